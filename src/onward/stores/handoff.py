"""A queue of parts from the thread that makes them to the thread that uploads them."""

from __future__ import annotations

from collections.abc import Iterator
from queue import SimpleQueue
from threading import Semaphore

from onward.stores.base import Chunk

_PARTS_WAITING = 2


class GivenUp(Exception):
    """The source failed: raised in the uploading thread, so that it stores nothing."""


class Handoff:
    """Parts in order, at most a few of them waiting.

    The giving thread calls `give` for each part, then `finish` or `give_up`. The taking thread
    iterates, and calls `stop` when it is through, for whatever reason; nobody waits after that.
    """

    def __init__(self) -> None:
        self._parts: SimpleQueue[Chunk | None] = SimpleQueue()
        self._room = Semaphore(_PARTS_WAITING)
        self._given_up = False
        self._stopped = False

    def give(self, part: Chunk) -> bool:
        """Hand over a part as soon as there is room; false if nobody takes it any more."""
        self._room.acquire()
        if self._stopped:
            return False
        self._parts.put(part)
        return True

    def finish(self) -> None:
        """There are no more parts."""
        self._parts.put(None)

    def give_up(self) -> None:
        """There will be no more parts, although there should be."""
        self._given_up = True
        self._parts.put(None)

    def stop(self) -> None:
        """No more parts will be taken."""
        self._stopped = True
        self._room.release()

    def __iter__(self) -> Iterator[Chunk]:
        while (part := self._parts.get()) is not None:
            self._room.release()
            yield part
        if self._given_up:
            raise GivenUp
