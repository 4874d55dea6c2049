"""The staging copy: the last saved state on the host. Copying into it is also the comparison.

The memory is reserved once and reused, because fresh pages cost several times what copying costs.
Comparison is by bytes, so that not-a-number and negative zero are what they are.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Event
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from onward.frameworks.base import DistantLeaf, TensorLeaf

Bytes: TypeAlias = npt.NDArray[np.uint8]
RowNumbers: TypeAlias = npt.NDArray[np.int64]

NONE: RowNumbers = np.empty(0, dtype=np.int64)

_ALIGNMENT = 64
_BLOCK_BYTES = 4096  # so that large tensors can be written past the page cache from where they lie
_SPAN_BYTES = 16 << 20  # what one thread takes at a time
_BLOCK_BYTES = 1 << 20  # compared and then copied while it is still in the cache
_SMALL_BYTES = 64 << 10  # not worth a row patch, nor a task of its own
_MIN_ROWS = 16
_GLANCE_ROWS = 64
_HUGE_PAGES = getattr(mmap, "MADV_HUGEPAGE", None)
_POPULATE = 23  # MADV_POPULATE_WRITE, which Python does not name; Linux 5.14 and later
_NOT_IN_CHILDREN = getattr(mmap, "MADV_DONTFORK", None)


class TooLarge(Exception):
    """The machine has too little memory left for a staging copy."""

    def __init__(self, needed_bytes: int, available_bytes: int) -> None:
        super().__init__(f"{needed_bytes:,} bytes are needed, {available_bytes:,} are available")


@dataclass(slots=True)
class Slot:
    """One tensor's place in the staging copy, and what became of it since it was last stored."""

    leaf: TensorLeaf
    """Describes the tensor; its data is the staged bytes."""
    everything: bool = True
    """Whether all of it counts as changed; else `rows` do."""
    rows: RowNumbers = field(default_factory=lambda: NONE)

    @property
    def memory(self) -> Bytes:
        assert self.leaf.data is not None
        return self.leaf.data

    @property
    def changed(self) -> bool:
        return self.everything or self.rows.size > 0

    def add(self, everything: bool, rows: RowNumbers) -> None:
        """Adds what changed between two copies: a save that failed is still owed."""
        self.everything = self.everything or everything
        if self.everything:
            self.rows = NONE
        elif rows.size:
            self.rows = np.union1d(self.rows, rows) if self.rows.size else rows

    def settle(self) -> None:
        """What is staged is stored."""
        self.everything, self.rows = False, NONE


class Staging:
    """Slots by name. Use it from one thread at a time; it spreads the copying over all cores."""

    def __init__(
        self,
        *,
        threads: int | None = None,
        available_bytes: Callable[[], int | None] = lambda: None,
    ) -> None:
        self.slots: dict[str, Slot] = {}
        self.complete = Event()
        """Set while nothing that was taken remains to be fetched: settled tensors may change."""
        self.complete.set()
        self._later: list[_Task] = []
        self._available_bytes = available_bytes
        count = threads or len(os.sched_getaffinity(0))
        self._pool = ThreadPoolExecutor(count, thread_name_prefix="onward-copy")

    def missing_bytes(self, leaves: Iterable[tuple[str, TensorLeaf]]) -> int:
        """How much memory `take` would have to reserve for these leaves."""
        return sum(_padded(leaf) for name, leaf in leaves if not self._fits(name, leaf))

    def reserve(self, leaves: Sequence[tuple[str, TensorLeaf]]) -> None:
        """Makes the memory ready, so that the first `take` is as quick as those after it.

        Raises `TooLarge`.
        """
        self._slots_for(leaves)

    def take(self, leaves: Sequence[tuple[str, TensorLeaf]], *, at_once: bool = True) -> list[Slot]:
        """Copies the leaves and forgets all other slots.

        When it returns, the live tensors may change; with `at_once=False`, those that are settled
        may only when `complete` is set, after `finish`. Raises `TooLarge`, with nothing done, if
        the machine lacks the memory for it, and `Unsettled`.
        """
        slots = self._slots_for(leaves)
        # Tasks in an order of their own, so that no thread is left with the largest at the end.
        tasks = [
            task
            for (_, leaf), slot in zip(leaves, slots, strict=True)
            for task in _tasks(leaf, slot)
        ]
        tasks.sort(key=lambda task: -task.size_bytes)
        if not at_once:
            self._later = [task for task in tasks if task.settled]
            tasks = [task for task in tasks if not task.settled]
        if self._later:
            self.complete.clear()
        self._carry_out(tasks)
        return slots

    def finish(self) -> None:
        """Fetches what `take` left for later. Raises `Unsettled`."""
        tasks, self._later = self._later, []
        try:
            self._carry_out(tasks)
        finally:
            self.complete.set()

    def _carry_out(self, tasks: Sequence[_Task]) -> None:
        """Copies in all threads, and tells the slots what changed."""
        small = [task for task in tasks if task.size_bytes < _SMALL_BYTES]
        large = tasks[: len(tasks) - len(small)]
        futures = [self._pool.submit(_do, task) for task in large]
        try:
            for task in small:
                _do(task)
            for future in futures:
                future.result()
        except BaseException:
            wait(futures)
            # Some of it is copied, and what that changed is not known: all of it is owed.
            for task in tasks:
                task.slot.add(True, NONE)
            raise
        of_slot: dict[int, list[_Task]] = {}
        for task in tasks:
            of_slot.setdefault(id(task.slot), []).append(task)
        for several in of_slot.values():
            several[0].slot.add(*_together(several))

    def settle(self) -> None:
        """All that is staged is stored: the next comparison is against it."""
        for slot in self.slots.values():
            slot.settle()

    def close(self) -> None:
        """Gives the memory back."""
        self._pool.shutdown()
        self.slots = {}

    def _fits(self, name: str, leaf: TensorLeaf) -> bool:
        slot = self.slots.get(name)
        return slot is not None and _kind(slot.leaf) == _kind(leaf)

    def _slots_for(self, leaves: Sequence[tuple[str, TensorLeaf]]) -> list[Slot]:
        missing = self.missing_bytes(leaves)
        available = self._available_bytes()
        if available is not None and missing > available:
            raise TooLarge(missing, available)
        arena = _reserve(missing) if missing else np.empty(0, dtype=np.uint8)
        slots: dict[str, Slot] = {}
        start = 0
        for name, leaf in sorted(leaves, key=lambda named: not _is_large(named[1])):
            if self._fits(name, leaf):
                slots[name] = self.slots[name]
                continue
            memory = arena[start : start + leaf.size_bytes]
            slots[name] = Slot(TensorLeaf(leaf.dtype, leaf.shape, leaf.kind, memory))
            start += _padded(leaf)
        self.slots = slots
        return [slots[name] for name, _ in leaves]


def _kind(leaf: TensorLeaf) -> tuple[str, tuple[int, ...], str]:
    return (leaf.dtype, leaf.shape, leaf.kind)


def _padded(leaf: TensorLeaf) -> int:
    # Small ones stand last, behind all that is padded to blocks.
    return leaf.size_bytes + -leaf.size_bytes % (_BLOCK_BYTES if _is_large(leaf) else _ALIGNMENT)


def _is_large(leaf: TensorLeaf) -> bool:
    return leaf.size_bytes >= _SMALL_BYTES


def _reserve(size_bytes: int) -> Bytes:
    """Memory that is no child's: a data worker that was forked must not make it be copied."""
    memory = mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel that lacks one of these is slower, or needs more memory, but right.
    for advice in (_HUGE_PAGES, _NOT_IN_CHILDREN):
        if advice is not None:
            with suppress(OSError):
                memory.madvise(advice)
    with suppress(OSError):
        for start in range(0, size_bytes, _SPAN_BYTES):
            memory.madvise(_POPULATE, start, min(_SPAN_BYTES, size_bytes - start))
    return np.frombuffer(memory, dtype=np.uint8)


# Copying and comparing.


@dataclass(slots=True, eq=False)
class _Task:
    """Some rows of one tensor, for one thread. `rows` and `everything` are what it found."""

    leaf: TensorLeaf
    slot: Slot
    start: int
    staged: Bytes
    row_bytes: int
    everything: bool = False
    rows: RowNumbers = field(default_factory=lambda: NONE)

    @property
    def size_bytes(self) -> int:
        return self.staged.size

    @property
    def row_range(self) -> tuple[int, int]:
        return self.start // self.row_bytes, (self.start + self.size_bytes) // self.row_bytes

    @property
    def settled(self) -> bool:
        return isinstance(self.leaf, DistantLeaf) and self.leaf.settled

    def live(self) -> Bytes:
        """The live bytes, shared or fetched; to be read in this thread, before its next task."""
        stop = self.start + self.size_bytes
        if isinstance(self.leaf, DistantLeaf):
            assert self.leaf.source is not None
            return self.leaf.source.fetch(self.start, stop)
        assert self.leaf.data is not None
        return self.leaf.data[self.start : stop]


def _tasks(leaf: TensorLeaf, slot: Slot) -> Iterator[_Task]:
    row_bytes = row_bytes_of(leaf)
    step = max(1, _SPAN_BYTES // row_bytes) * row_bytes if row_bytes else _SPAN_BYTES
    if isinstance(leaf, DistantLeaf) and leaf.source is not None and not leaf.source.piecewise:
        step = max(1, leaf.size_bytes)
    for start in range(0, leaf.size_bytes, step):
        yield _Task(leaf, slot, start, slot.memory[start : start + step], row_bytes)


def row_bytes_of(leaf: TensorLeaf) -> int:
    """The length of a row where a patch of rows could pay, else 0."""
    if leaf.size_bytes < _SMALL_BYTES or not leaf.shape or leaf.shape[0] < _MIN_ROWS:
        return 0
    row_bytes = leaf.size_bytes // leaf.shape[0]
    return row_bytes if row_bytes <= _BLOCK_BYTES else 0


def _do(task: _Task) -> None:
    live = task.live()
    if task.slot.everything:  # new, or owed in full anyway
        np.copyto(task.staged, live)
    elif task.row_bytes:
        _take_rows(task, live)
    else:
        _take_whole(task, live)


def _take_whole(task: _Task, live: Bytes) -> None:
    seen = task.size_bytes >= _SMALL_BYTES and _glance(live, task.staged, 1)
    if not seen and _equal(live, task.staged):
        return
    np.copyto(task.staged, live)
    task.everything = True


def _take_rows(task: _Task, live: Bytes) -> None:
    """A dense tensor does not pay for a comparison: a glance at some rows decides that.

    The rows lie apart, because the first ones of an embedding table are often the busiest.
    """
    row_bytes = task.row_bytes
    if _glance(live, task.staged, row_bytes) * 2 > _GLANCE_ROWS:
        np.copyto(task.staged, live)
        task.everything = True
        return
    found: list[RowNumbers] = []
    step = max(1, _BLOCK_BYTES // row_bytes) * row_bytes
    for start in range(0, live.size, step):
        rows = _take_changed_rows(
            live[start : start + step], task.staged[start : start + step], row_bytes
        )
        if rows.size:
            found.append(rows + (task.start + start) // row_bytes)
    if found:
        task.rows = np.concatenate(found)


def _take_changed_rows(live: Bytes, staged: Bytes, row_bytes: int) -> RowNumbers:
    """Copies what differs, while it is in the cache; the numbers of these rows."""
    rows = _changed_rows(live, staged, row_bytes)
    if rows.size * 2 > live.size // row_bytes:
        np.copyto(staged, live)
    elif rows.size:
        wide = _widest(row_bytes)
        to = staged.view(wide).reshape(live.size // row_bytes, -1)
        to[rows] = live.view(wide).reshape(to.shape)[rows]
    return rows


def _glance(live: Bytes, staged: Bytes, row_bytes: int) -> int:
    """How many of some rows, evenly spread, have changed."""
    count = live.size // row_bytes
    chosen = np.linspace(0, count - 1, min(count, _GLANCE_ROWS)).astype(np.int64)
    one = live.reshape(count, row_bytes)[chosen]
    other = staged.reshape(count, row_bytes)[chosen]
    return int((one != other).any(axis=1).sum())


def _equal(live: Bytes, staged: Bytes) -> bool:
    for start in range(0, live.size, _BLOCK_BYTES):
        one, other = live[start : start + _BLOCK_BYTES], staged[start : start + _BLOCK_BYTES]
        wide = _widest(one.size)
        if not np.array_equal(one.view(wide), other.view(wide)):
            return False
    return True


def _changed_rows(live: Bytes, staged: Bytes, row_bytes: int) -> RowNumbers:
    """The numbers of the rows that differ, ascending."""
    wide = _widest(row_bytes)
    flags = np.not_equal(live.view(wide), staged.view(wide))
    per_row = row_bytes // np.dtype(wide).itemsize
    if per_row == 1:
        return np.flatnonzero(flags)
    if per_row % 8:
        return np.flatnonzero(flags.reshape(-1, per_row).any(axis=1))
    # Eight flags at a time, column by column: several times as fast as any(axis=1).
    words = flags.view(np.uint64).reshape(-1, per_row // 8)
    if words.shape[1] > 32:
        return np.flatnonzero(np.bitwise_or.reduce(words, axis=1))
    marks = words[:, 0].copy()
    for column in range(1, words.shape[1]):
        np.bitwise_or(marks, words[:, column], out=marks)
    return np.flatnonzero(marks)


def _widest(size_bytes: int) -> str:
    for width in (8, 4, 2):
        if size_bytes % width == 0:
            return f"u{width}"
    return "u1"


def _together(tasks: Sequence[_Task]) -> tuple[bool, RowNumbers]:
    """What all tasks of one tensor found; a dense span counts as all of its rows."""
    if not any(task.everything or task.rows.size for task in tasks):
        return False, NONE
    if not tasks[0].row_bytes or all(task.everything for task in tasks):
        return True, NONE
    ordered = sorted(tasks, key=lambda task: task.start)
    rows = [np.arange(*task.row_range) if task.everything else task.rows for task in ordered]
    return False, np.concatenate(rows)
