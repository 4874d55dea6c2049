"""Filling memory with tensors: pieces of packs in parallel, each hashed while it is in the cache.

What is needed beside the memory to fill is bounded: `_THREADS` times two pieces.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.errors import Damaged, Missing
from onward.frameworks.base import ITEM_BYTES
from onward.repository.manifest import Full, Range, Region, Rows, Tensor
from onward.repository.packs import pack_key
from onward.stores import holding, read_into
from onward.stores.base import Store

_THREADS = 8
_PIECE_BYTES = 8 << 20
_SMALL_BYTES = 1 << 20  # what is shorter is read together with its neighbours
_GAP_BYTES = 4096  # read and thrown away rather than asking again

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int], None]
Read = Callable[[Range, int, int], Bytes]
Place = tuple[str, int, int]
Item = TypeVar("Item")


@contextmanager
def packs_of(store: Store, tensors: Iterable[Tensor]) -> Iterator[Store]:
    """The store with every pack of these tensors held, and seen to be as long as they need.

    To be entered before memory is reserved for what a manifest says. Raises `Damaged`.
    """
    last: dict[str, tuple[int, str]] = {}
    for tensor in tensors:
        for found in tensor.ranges():
            end = (found.offset + found.size, tensor.path)
            last[found.pack] = max(last.get(found.pack, (0, "")), end)
    with holding(store, [pack_key(pack) for pack in last]) as held:
        for pack, (needed, path) in last.items():
            try:
                size = held.size(pack_key(pack))
            except Missing as error:
                raise _gone(held, pack, path) from error
            if size < needed:
                raise Damaged(
                    f"tensor {path} is cut off",
                    why=f"pack {pack} at {held.url} has {size:,} bytes, {needed:,} are needed",
                    do="run `onward verify` to see which checkpoints are intact",
                )
        yield held


def fill(
    store: Store,
    tensors: Mapping[int, Tensor],
    memory: Mapping[int, Bytes],
    *,
    verify: bool = True,
    progress: Progress | None = None,
) -> None:
    """Reads each tensor into its memory: one-dimensional, writable, of the tensor's length.

    Tensors with the same only range may have the same array; else arrays overlap nowhere. What
    several tensors use is read once. `store` comes of `packs_of`. Raises `Damaged`, naming a
    tensor; what was filled until then stays as it is. `verify=False` checks no digest and is for
    measuring what that costs.
    """
    filling = _Filling(store, verify, progress or (lambda size_bytes: None))
    filling.bases(tensors, memory)
    filling.patches(tensors, memory)
    if verify:
        filling.wholes(tensors, memory)


@dataclass(slots=True)
class _Wanted:
    """A range, and the views of memory that get its bytes; the first is the one read into."""

    range: Range
    path: str
    targets: list[Bytes] = field(default_factory=list)

    @property
    def dense(self) -> bool:
        return all(target.flags.c_contiguous for target in self.targets[:1])


@dataclass(frozen=True, slots=True)
class _Patch:
    """New rows of one tensor, whose memory is seen as rows of bytes."""

    part: Rows
    path: str
    rows: Bytes

    def extent(self) -> Place:
        """Where both of its ranges lie: far apart, they are as good as one long range."""
        index, rows = self.part.index, self.part.rows
        start = min(index.offset, rows.offset)
        end = max(index.offset + index.size, rows.offset + rows.size)
        return (rows.pack, start, end - start if index.pack == rows.pack else _PIECE_BYTES + 1)


class _Filling:
    """The steps of one `fill`, each of which uses all threads."""

    def __init__(self, store: Store, verify: bool, progress: Progress) -> None:
        self._store = store
        self._verify = verify
        self._progress = progress

    def bases(self, tensors: Mapping[int, Tensor], memory: Mapping[int, Bytes]) -> None:
        """Everything but row patches, in the order in which it lies in the packs."""
        calls: list[tuple[Place, Callable[[], None]]] = []
        small: list[_Wanted] = []
        for wanted in _wanted(tensors, memory):
            if wanted.range.size < _SMALL_BYTES:
                small.append(wanted)
                continue
            arrival, offset = _Arrival(wanted), wanted.range.offset
            for number, piece in enumerate(arrival.pieces):
                call = self._piece_call(arrival, number, offset)
                calls.append(((wanted.range.pack, offset, number), call))
                offset += piece.size
        for batch in _together(small, lambda wanted: wanted.range.place):
            calls.append((batch[0].range.place, self._block_call(batch)))
        calls.sort(key=lambda call: call[0])
        _in_parallel([call for _, call in calls])

    def patches(self, tensors: Mapping[int, Tensor], memory: Mapping[int, Bytes]) -> None:
        """Row patches: the first of every tensor, then the second, for later ones win."""
        of_each: list[list[_Patch]] = []
        for index, tensor in tensors.items():
            parts = [part for part in tensor.parts if isinstance(part, Rows)]
            if parts:
                rows = memory[index].reshape(tensor.shape[0], -1)
                of_each.append([_Patch(part, tensor.path, rows) for part in parts])
        for layer in zip_longest(*of_each):
            due = [patch for patch in layer if patch is not None]
            batches = _together(due, _Patch.extent)
            _in_parallel([self._patches_call(batch) for batch in batches])

    def wholes(self, tensors: Mapping[int, Tensor], memory: Mapping[int, Bytes]) -> None:
        """Tensors of several parts once more as a whole, where that has a digest."""

        def call(index: int, tensor: Tensor) -> Callable[[], None]:
            def check() -> None:
                if not _agrees(blake3(memory[index].data), str(tensor.digest)):
                    raise Damaged(
                        f"tensor {tensor.path} is damaged", why="its parts do not give its digest"
                    )

            return check

        _in_parallel(
            [
                call(index, tensor)
                for index, tensor in tensors.items()
                if tensor.parts and tensor.digest is not None and only_range(tensor) is None
            ]
        )

    def _piece_call(self, arrival: _Arrival, number: int, offset: int) -> Callable[[], None]:
        def read_piece() -> None:
            piece = arrival.pieces[number]
            dense = piece.flags.c_contiguous
            flat = piece.reshape(-1) if dense else np.empty(piece.size, np.uint8)
            found, path = arrival.wanted.range, arrival.wanted.path
            if self._read_into(found.pack, offset, flat, path) < flat.size:
                raise self._damaged(found, path)
            if not dense:
                piece[...] = flat.reshape(piece.shape)
            if arrival.hash_on(number, self._verify):
                if self._verify and not _agrees(arrival.hasher, found.digest):
                    raise self._damaged(found, path)
                first, *others = arrival.wanted.targets
                for other in others:
                    other[...] = first.reshape(other.shape)
            self._progress(flat.size)

        return read_piece

    def _block_call(self, batch: list[_Wanted]) -> Callable[[], None]:
        def read_block() -> None:
            read = self._block(batch[0].range, batch[-1].range, batch[0].path)
            for wanted in batch:
                data = read(wanted.range, 0, wanted.range.size)
                if data.size < wanted.range.size:
                    raise self._damaged(wanted.range, wanted.path)
                self._check(blake3(data.data), wanted.range, wanted.path)
                for target in wanted.targets:
                    target[...] = data.reshape(target.shape)
            self._progress(sum(wanted.range.size for wanted in batch))

        return read_block

    def _patches_call(self, batch: list[_Patch]) -> Callable[[], None]:
        def apply_patches() -> None:
            ranges = [found for patch in batch for found in (patch.part.index, patch.part.rows)]
            first = min(ranges, key=lambda found: found.offset)
            last = max(ranges, key=lambda found: found.offset + found.size)
            short = len(batch) > 1 or batch[0].extent()[2] <= _PIECE_BYTES
            read = self._block(first, last, batch[0].path) if short else self._stream(batch[0].path)
            for patch in batch:
                self._apply(patch, read)
            self._progress(sum(found.size for found in ranges))

        return apply_patches

    def _apply(self, patch: _Patch, read: Read) -> None:
        part, (height, row_bytes) = patch.part, patch.rows.shape
        at_once = max(1, _PIECE_BYTES // (row_bytes + 8))
        width = row_bytes if at_once > 1 else min(row_bytes, _PIECE_BYTES)
        of_index, of_rows = blake3(), blake3()
        last = -1
        for start in range(0, part.count, at_once):
            count = min(at_once, part.count - start)
            numbers = read(part.index, start * 8, count * 8)
            of_index.update(numbers.data)
            if numbers.size < count * 8:
                raise self._damaged(part.index, patch.path)
            index = numbers.view("<i8")
            # Checked before any byte goes anywhere, and before it is known whether it is damaged.
            if index[0] <= last or index[-1] >= height or bool(np.any(index[1:] <= index[:-1])):
                raise Damaged(
                    f"tensor {patch.path} has a row patch with bad row numbers",
                    do="run `onward verify` to see which checkpoints are intact",
                )
            last = index[-1]
            for at in range(0, row_bytes, width):
                some = min(width, row_bytes - at)
                data = read(part.rows, start * row_bytes + at, count * some)
                if data.size < count * some:
                    raise self._damaged(part.rows, patch.path)
                of_rows.update(data.data)
                patch.rows[index, at : at + some] = data.reshape(count, some)
        self._check(of_index, part.index, patch.path)
        self._check(of_rows, part.rows, patch.path)

    def _block(self, first: Range, last: Range, path: str) -> Read:
        """Reads from `first` to `last` at once; what it gives is cut off where the pack ends."""
        block = np.empty(last.offset + last.size - first.offset, np.uint8)
        block = block[: self._read_into(first.pack, first.offset, block, path)]
        return lambda found, start, size: block[found.offset - first.offset + start :][:size]

    def _stream(self, path: str) -> Read:
        def read(found: Range, start: int, size: int) -> Bytes:
            piece = np.empty(size, np.uint8)
            return piece[: self._read_into(found.pack, found.offset + start, piece, path)]

        return read

    def _read_into(self, pack: str, start: int, target: Bytes, path: str) -> int:
        if not target.size:
            return 0
        try:
            return read_into(self._store, pack_key(pack), start, target.data)
        except Missing as error:
            raise _gone(self._store, pack, path) from error

    def _check(self, hasher: blake3, found: Range, path: str) -> None:
        if self._verify and not _agrees(hasher, found.digest):
            raise self._damaged(found, path)

    def _damaged(self, found: Range, path: str) -> Damaged:
        return Damaged(
            f"tensor {path} is damaged",
            why=f"bytes {found.offset}–{found.offset + found.size} of pack {found.pack} at "
            f"{self._store.url} are not what was written",
            do="run `onward verify` to see which checkpoints are intact",
        )


class _Arrival:
    """A long range whose pieces come in any order: hashed in order, as far as they have come."""

    def __init__(self, wanted: _Wanted) -> None:
        self.wanted = wanted
        self.pieces = list(_cuts(wanted.targets[0]))
        self.hasher = blake3()
        self._here: set[int] = set()
        self._next = 0
        self._busy = False
        self._lock = threading.Lock()

    def hash_on(self, number: int, verify: bool) -> bool:
        """Takes note of a piece that is here. True once, for the last that was needed.

        One thread hashes at a time; the others only leave word, and go on reading.
        """
        with self._lock:
            self._here.add(number)
            if self._busy:
                return False
            self._busy = True
        while True:
            with self._lock:
                if self._next not in self._here:
                    self._busy = False
                    return self._next == len(self.pieces)
                piece = self.pieces[self._next]
                self._next += 1
            if verify:
                self.hasher.update(np.ascontiguousarray(piece).reshape(-1).data)


def only_range(tensor: Tensor) -> Range | None:
    """The range of a tensor that is nothing but one range."""
    only = tensor.parts[0] if len(tensor.parts) == 1 else None
    return only.range if isinstance(only, Full) else None


def _gone(store: Store, pack: str, path: str) -> Damaged:
    return Damaged(
        f"tensor {path} is missing",
        why=f"there is no pack {pack} at {store.url}; perhaps its checkpoint was just dropped",
        do="see `onward log` whether it is still there, and `onward verify` whether it is intact",
    )


def _agrees(hasher: blake3, digest: str) -> bool:
    return bool(hasher.hexdigest() == digest)


def _wanted(tensors: Mapping[int, Tensor], memory: Mapping[int, Bytes]) -> list[_Wanted]:
    """Every range but those of row patches, with all memory that it belongs into."""
    found: dict[Place, _Wanted] = {}
    more: list[_Wanted] = []
    seen: set[tuple[Place, int]] = set()
    for index, tensor in tensors.items():
        for part in tensor.parts:
            if isinstance(part, Rows):
                break
            place = part.range.place
            if (place, id(memory[index])) in seen:
                continue  # tensors that share their array
            seen.add((place, id(memory[index])))
            target = memory[index]
            if isinstance(part, Region):
                block = tuple(slice(s, s + e) for s, e in zip(part.start, part.shape, strict=True))
                target = target.reshape(*tensor.shape, ITEM_BYTES[tensor.dtype])[block]
            wanted = found.setdefault(place, _Wanted(part.range, tensor.path))
            scattered = not (target.flags.c_contiguous and wanted.dense)
            if wanted.targets and part.range.size >= _SMALL_BYTES and scattered:
                # Nowhere is it in one piece from which it could be copied: read again.
                more.append(_Wanted(part.range, tensor.path, [target]))
            else:
                wanted.targets.append(target)
    return [*found.values(), *more]


def _cuts(view: Bytes) -> Iterator[Bytes]:
    """`view` in short pieces, in the order in which a range has their bytes."""
    if view.flags.c_contiguous:
        flat = view.reshape(-1)
        for start in range(0, flat.size, _PIECE_BYTES):
            yield flat[start : start + _PIECE_BYTES]
    elif view[0].size > _PIECE_BYTES:
        for part in view:
            yield from _cuts(part)
    else:
        at_once = max(1, _PIECE_BYTES // view[0].size)
        for first in range(0, len(view), at_once):
            yield view[first : first + at_once]


def _together(items: list[Item], extent: Callable[[Item], Place]) -> list[list[Item]]:
    """Neighbours in one pack, to be read at once; what is longer than a piece stays alone."""
    batches: list[list[Item]] = []
    first: Place = ("", 0, 0)
    end = 0
    for item in sorted(items, key=extent):
        pack, offset, size = extent(item)
        near = batches and pack == first[0] and offset - end <= _GAP_BYTES
        if near and max(end, offset + size) - first[1] <= _PIECE_BYTES:
            batches[-1].append(item)
            end = max(end, offset + size)
        else:
            batches.append([item])
            first, end = extent(item), offset + size
    return batches


def _in_parallel(calls: Sequence[Callable[[], None]]) -> None:
    """Does all of it, or raises the first error once nothing is under way any more."""
    if len(calls) <= 1:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(min(_THREADS, len(calls))) as pool:
        futures = [pool.submit(call) for call in calls]
        try:
            for future in futures:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
