"""What every scenario trains: batches by interval, steps, and its state as arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from blake3 import blake3

STEPS_BETWEEN_SAVES = 3

Around = Callable[[], AbstractContextManager[None]]


class Training:
    """`step` trains once; a framework's own class says how."""

    def __init__(self, batches: Callable[[int], Sequence[Any]]) -> None:
        self._batches = batches
        self._pool = batches(0)
        self._taken = 0

    def begin_interval(self, index: int) -> None:
        """The batches from here to the next call are those between two saves.

        They are `STEPS_BETWEEN_SAVES` many and come again and again, so that a loop which trains
        longer while a save is being written changes no more rows than one that does not.
        """
        self._pool = self._batches(index)
        self._taken = 0

    def next_batch(self) -> Any:
        batch = self._pool[self._taken % len(self._pool)]
        self._taken += 1
        return batch

    def step(self, updating: Around = nullcontext) -> None:
        """One step, done when this returns. `updating()` surrounds what changes the state."""
        raise NotImplementedError

    def objects(self) -> dict[str, Any]:
        """What a script gives to `onward.open`."""
        raise NotImplementedError

    def arrays(self) -> Iterator[tuple[str, np.ndarray]]:
        """All of the state, in one order, sharing the live tensors' memory where they are whole."""
        raise NotImplementedError

    def size_bytes(self) -> int:
        return sum(array.nbytes for _, array in self.arrays())

    def digest(self) -> str:
        """Says whether two states are the same, bit for bit."""
        found = blake3(max_threads=blake3.AUTO)
        for name, array in self.arrays():
            found.update(f"{name} {array.dtype} {array.shape};".encode())
            found.update(array.reshape(-1).view(np.uint8).data)
        return found.hexdigest()

    def touch(self) -> float:
        """Reads one number of each page, so that none is still to be read from the disk."""
        return sum(
            float(array.reshape(-1)[::1024].sum(dtype=np.float64)) for _, array in self.arrays()
        )
