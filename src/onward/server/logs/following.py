"""Following a file that grows, by many at once.

One reader looks at the file for all who follow it and encodes what is new once; what it made last
stays for a while, and everybody takes it from there at their own pace. Who is further back than
that reads the file by themselves. There are no queues: who stalls costs nothing, and misses
nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from anyio import CapacityLimiter
from anyio.to_thread import run_sync

TICK_S = 0.2
_CHUNK = 128 << 10
_CHUNKS_A_TICK = 32
_KEPT = 2 << 20

HEARTBEAT = b": still here\n\n"
HEARTBEAT_S = 10.0
"""Who is sent nothing else is sent this so often: a connection that is gone is noticed by it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What stands from `start` to before `next`, as it is sent. `open`: it has no end yet, so that
    `start` is `next`, and it will come again."""

    start: int
    next: int
    data: bytes
    open: bool = False


Read = Callable[[int, int, "int | None"], Chunk | None]
"""From a place, about so many bytes, and up to a place: a chunk; None if there is nothing new."""

Beginning = Callable[[], int]
"""A place near the end where something begins."""


class Followed:
    """A file that somebody follows."""

    def __init__(
        self, read: Read, beginning: Beginning, limiter: CapacityLimiter, *,
        ended: Callable[[], bool],
    ) -> None:  # fmt: skip
        self._read = read
        self._beginning = beginning
        self._limiter = limiter
        self._has_ended = ended
        self._kept: deque[Chunk] = deque()
        self._by_start: dict[int, Chunk] = {}
        self.kept_bytes = 0
        self._end = -1
        """How far the reader is; -1 before it has looked."""
        self._open: Chunk | None = None
        self._ended = False
        self._failed: BaseException | None = None
        self._beats = 0
        self._changed = asyncio.Event()
        self.followers = 0
        self._task: asyncio.Task[None] | None = None

    async def follow(self, cursor: int) -> AsyncIterator[bytes]:
        """Everything from a place on, in order, as it comes; ends when the file has ended."""
        self.followers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._look())
        shown_open: Chunk | None = None
        beats = self._beats
        try:
            while True:
                changed = self._changed
                if self._failed is not None:
                    raise self._failed
                if self._end >= 0:
                    cursor = min(cursor, self._end)
                    chunk = self._by_start.get(cursor) or await self._own(cursor)
                    if chunk is not None:
                        if chunk.data:
                            yield chunk.data
                        cursor = chunk.next
                        continue
                    waiting = self._open
                    if waiting not in (None, shown_open) and waiting.start == cursor:
                        shown_open = waiting
                        yield waiting.data
                    if self._ended and cursor >= self._end:
                        return
                if beats != self._beats:
                    beats = self._beats
                    yield HEARTBEAT
                await changed.wait()
        finally:
            self.followers -= 1
            if not self.followers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _own(self, cursor: int) -> Chunk | None:
        """What this follower reads by itself, being further back than what is kept."""
        if cursor >= self._end:
            return None
        until = min((start for start in list(self._by_start) if start > cursor), default=self._end)
        chunk = await run_sync(self._read, cursor, _CHUNK, until, limiter=self._limiter)
        if chunk is None or chunk.next <= cursor:
            # Nothing begins between here and there.
            return Chunk(cursor, until, chunk.data if chunk is not None else b"")
        return chunk

    async def _look(self) -> None:
        ticks = 0
        try:
            while not self._ended:
                changed = await run_sync(self._advance, limiter=self._limiter)
                ticks += 1
                if ticks % round(HEARTBEAT_S / TICK_S) == 0:
                    self._beats += 1
                    changed = True
                if changed:
                    self._wake()
                if not self._ended:
                    await asyncio.sleep(TICK_S)
        except Exception as error:
            self._failed = error
            self._wake()

    def _wake(self) -> None:
        self._changed, changed = asyncio.Event(), self._changed
        changed.set()

    def _advance(self) -> bool:
        """Reads what is new. In a thread; nobody else changes what it changes."""
        ended = self._has_ended()  # first: what comes before the end is read after it is known
        changed = False
        if self._end < 0:
            self._end, changed = self._beginning(), True
        for _ in range(_CHUNKS_A_TICK):
            chunk = self._read(self._end, _CHUNK, None)
            if chunk is None or chunk.open:
                changed |= chunk != self._open
                self._open = chunk
                break
            self._keep(chunk)
            self._open, changed = None, True
        else:
            return True  # there is more than fits in one look: not the end, whatever was said
        if ended:
            if (waiting := self._open) is not None:
                # It will never have an end: as it is, it is whole.
                self._open = None
                self._keep(Chunk(waiting.start, waiting.start + 1, waiting.data))
            self._ended = changed = True
        return changed

    def _keep(self, chunk: Chunk) -> None:
        # In this order: who finds the chunk must not find that it ends behind the end.
        self._end = chunk.next
        self._kept.append(chunk)
        self._by_start[chunk.start] = chunk
        self.kept_bytes += len(chunk.data)
        while self.kept_bytes > _KEPT and len(self._kept) > 1:
            old = self._kept.popleft()
            del self._by_start[old.start]
            self.kept_bytes -= len(old.data)
