"""Fetching one large object by ranges: several at once, and a cut connection goes on."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from typing import Self, TypeAlias, TypeVar

from onward.errors import Damaged, Missing, TransferFailed, Unreachable
from onward.stores.base import Chunk, Store
from onward.stores.objects import ObjectStore
from onward.stores.os_errors import written

_RANGE_BYTES = 8 << 20
_RANGES_AT_ONCE = 4
_TRIES = 8
_SYNC_BYTES = 64 << 20

Progress: TypeAlias = Callable[[int], None]
Transfer: TypeAlias = Callable[[Progress], None]
Answer = TypeVar("Answer")


def fetch_object(
    remote: Store,
    key: str,
    path: Path,
    *,
    size_bytes: int,
    progress: Progress,
    arrived: Callable[[Chunk], object] = lambda _: None,
) -> None:
    """Appends to the file at `path` what it lacks of an object, and makes it durable.

    Several ranges are under way at once, but they are appended in order, so that the file is the
    object's beginning at any moment: whoever goes on needs no other notes. `arrived` is given what
    is appended. Raises `TransferFailed` when the store stays away, `Damaged` when the object is
    shorter; what was appended is kept, what came out of order behind a gap is not.
    """
    with written(f"could not write {path}"):
        have = path.stat().st_size if path.is_file() else 0
        if have > size_bytes:
            path.unlink()
            have = 0
        with path.open("ab", buffering=0) as file, _Syncing(file.fileno()) as syncing:
            for piece in _in_order(remote, key, have, size_bytes, progress):
                _write_all(file.fileno(), piece)
                arrived(piece)
                have += len(piece)
                syncing.wrote(len(piece))
                progress(len(piece))
        if have < size_bytes:
            raise Damaged(f"{key} at {remote.url} is cut short", why=f"at byte {have:,}")


def read_patiently(
    remote: Store, key: str, start: int, size_bytes: int | None, *, progress: Progress
) -> bytes:
    """A range of an object from a store that breaks off now and then.

    Raises `TransferFailed` when it stays away, `Damaged` when the object is gone.
    """
    return _patiently(lambda: remote.read(key, start, size_bytes), remote, key, progress)


def _patiently(read: Callable[[], Answer], remote: Store, key: str, progress: Progress) -> Answer:
    failures = 0
    while True:
        try:
            return read()
        except Missing as error:
            raise Damaged(f"{key} is missing at {remote.url}") from error
        except Unreachable as error:
            failures += 1
            if failures >= _TRIES:
                raise TransferFailed(
                    f"{key} could not be fetched from {remote.url}",
                    why=error.what,
                    do="run the same command again: what was fetched is kept",
                ) from error
            progress(0)
            time.sleep(min(0.05 * 2**failures, 5.0))


def _in_order(remote: Store, key: str, start: int, end: int, progress: Progress) -> Iterator[Chunk]:
    """The bytes from `start` to `end`, a few ranges ahead of the taker; fewer if they end early."""
    over = Event()

    def go_on(size_bytes: int) -> None:
        if over.is_set():
            raise _NobodyTakesIt
        progress(size_bytes)  # raises where all transfers were given up

    # Bytes that are only passed on need not be copied where the store can do without.
    once: Callable[[str, int, int], Chunk] = (
        remote.read_view if isinstance(remote, ObjectStore) else remote.read
    )

    def read(at: int, wanted: int) -> Chunk:
        data: Chunk = b""
        while len(data) < wanted:
            go_on(0)
            rest = partial(once, key, at + len(data), wanted - len(data))
            piece = _patiently(rest, remote, key, go_on)
            if not piece:
                break
            data = b"".join((data, piece)) if data else piece
        return data

    pool = ThreadPoolExecutor(_RANGES_AT_ONCE, thread_name_prefix="onward-range")
    waiting: deque[tuple[int, Future[Chunk]]] = deque()
    try:
        for at in range(start, end, _RANGE_BYTES):
            wanted = min(_RANGE_BYTES, end - at)
            waiting.append((wanted, pool.submit(read, at, wanted)))
            last = at + wanted == end
            # One range more than there are threads, so that none of them waits for the taker.
            while waiting and (last or len(waiting) > _RANGES_AT_ONCE):
                wanted, future = waiting.popleft()
                data = future.result()
                if data:
                    yield data
                if len(data) < wanted:
                    return
    finally:
        over.set()
        pool.shutdown(wait=False, cancel_futures=True)


class _NobodyTakesIt(Exception):
    """The transfer of this object has ended, in success or not."""


class _Syncing:
    """Makes what was written durable while more of it arrives, so that the end is not a long wait.

    On leaving, all of it is durable, or an error is raised.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="onward-sync")
        self._under_way: Future[None] | None = None
        self._size_bytes = 0

    def wrote(self, size_bytes: int) -> None:
        self._size_bytes += size_bytes
        if self._size_bytes >= _SYNC_BYTES and (self._under_way is None or self._under_way.done()):
            self._settle()
            self._under_way = self._thread.submit(os.fsync, self._file)
            self._size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, at: object) -> None:
        try:
            # In every case: the file's number must not be another file's when it is used.
            self._settle()
        finally:
            self._thread.shutdown()
        os.fsync(self._file)

    def _settle(self) -> None:
        # The kernel tells of a failed write once: whoever asks next would hear that all is well.
        if self._under_way is not None:
            self._under_way.result()


def _write_all(file: int, data: Chunk) -> None:
    view = memoryview(data)
    while view.nbytes:
        view = view[os.write(file, view) :]
