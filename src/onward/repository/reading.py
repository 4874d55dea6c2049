"""Reading a checkpoint's tensors: ranged, parallel, every byte's digest checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.errors import Damaged, Missing
from onward.frameworks.base import ITEM_BYTES, TensorLeaf
from onward.repository.documents import digest_of
from onward.repository.manifest import Full, Manifest, Range, Region, Rows, Tensor
from onward.repository.packs import pack_key
from onward.repository.tree import decode
from onward.stores.base import Store

_THREADS = 8
_COALESCE_BYTES = 8 << 20
_LARGE_BYTES = 32 << 20

Bytes = npt.NDArray[np.uint8]
Progress = Callable[[int], None]


def description(manifest: Manifest) -> Any:
    """The state tree with leaves that lack data: enough to compare, no pack is read."""
    return decode(manifest.state, lambda index: _leaf(manifest.tensor(index), index, None))


def read_state(
    store: Store,
    manifest: Manifest,
    *,
    keys: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> Any:
    """The whole state tree, or only the named top-level entries of it, with its bytes.

    Raises `Damaged`, naming the tensor, if any byte is not what was written.
    """
    document = manifest.state
    if keys is not None:
        entries = document if isinstance(document, dict) else {}
        document = {key: entries[key] for key in keys if key in entries}
    wanted: set[int] = set()
    decode(document, wanted.add)
    arrays = read_tensors(
        store, {index: manifest.tensor(index) for index in sorted(wanted)}, progress=progress
    )
    return decode(document, lambda index: _leaf(manifest.tensor(index), index, arrays[index]))


def read_tensors(
    store: Store, tensors: dict[int, Tensor], *, progress: Progress | None = None
) -> dict[int, Bytes]:
    """The bytes of each tensor, read in parallel from few ranges and verified."""
    ranges: dict[tuple[str, int, int], tuple[Range, str]] = {}
    for tensor in tensors.values():
        for found in tensor.ranges():
            ranges.setdefault(found.place, (found, tensor.path))
    _check_sizes(store, ranges.values())
    batches = _batches([ranges[place] for place in sorted(ranges)])
    held: dict[tuple[str, int, int], Bytes] = {}

    def fetch(batch: list[tuple[Range, str]]) -> None:
        for found, data in _read_batch(store, batch):
            held[found.place] = data
        if progress is not None:
            progress(sum(found.size for found, _ in batch))

    if len(batches) == 1:
        fetch(batches[0])
    else:
        with ThreadPoolExecutor(_THREADS) as pool:
            for future in [pool.submit(fetch, batch) for batch in batches]:
                future.result()
    return {index: _assemble(tensor, held) for index, tensor in tensors.items()}


def _check_sizes(store: Store, ranges: Iterable[tuple[Range, str]]) -> None:
    # Before memory is reserved for what a manifest says: the packs must really be that long.
    last: dict[str, tuple[int, str]] = {}
    for found, path in ranges:
        last[found.pack] = max(last.get(found.pack, (0, "")), (found.offset + found.size, path))
    for pack, (end, path) in last.items():
        try:
            size = store.size(pack_key(pack))
        except Missing as error:
            raise _gone(store, pack, path) from error
        if size < end:
            raise Damaged(
                f"tensor {path} is cut off",
                why=f"pack {pack} at {store.url} has {size:,} bytes, {end:,} are needed",
                do="run `onward verify` to see which checkpoints are intact",
            )


def _batches(ranges: list[tuple[Range, str]]) -> list[list[tuple[Range, str]]]:
    """Neighbouring small ranges of one pack, to be read together."""
    batches: list[list[tuple[Range, str]]] = []
    for item in ranges:
        found = item[0]
        if batches:
            first, last = batches[-1][0][0], batches[-1][-1][0]
            near = found.pack == last.pack and found.offset - (last.offset + last.size) <= 4096
            if near and found.offset + found.size - first.offset <= _COALESCE_BYTES:
                batches[-1].append(item)
                continue
        batches.append([item])
    return batches


def _read_batch(store: Store, batch: list[tuple[Range, str]]) -> list[tuple[Range, Bytes]]:
    (first, path), (last, _) = batch[0], batch[-1]
    try:
        block = _read_block(store, first, last.offset + last.size - first.offset)
    except Missing as error:
        raise _gone(store, first.pack, path) from error
    pieces = [(found, block[found.offset - first.offset :][: found.size]) for found, _ in batch]
    for (found, path), (_, data) in zip(batch, pieces, strict=True):
        if data.size != found.size or digest_of(data.data) != found.digest:
            raise Damaged(
                f"tensor {path} is damaged",
                why=f"bytes {found.offset}–{found.offset + found.size} of pack {found.pack} at "
                f"{store.url} are not what was written",
                do="run `onward verify` to see which checkpoints are intact",
            )
    return pieces


def _read_block(store: Store, first: Range, size: int) -> Bytes:
    """`size` bytes of a pack from where `first` begins; fewer if the pack ends before that."""
    key = pack_key(first.pack)
    if size <= _LARGE_BYTES:
        return np.frombuffer(store.read(key, first.offset, size), dtype=np.uint8)
    block = np.empty(size, dtype=np.uint8)
    have = 0
    while have < size:
        piece = store.read(key, first.offset + have, min(_LARGE_BYTES, size - have))
        if not piece:
            return block[:have]
        block[have : have + len(piece)] = np.frombuffer(piece, dtype=np.uint8)
        have += len(piece)
    return block


def _gone(store: Store, pack: str, path: str) -> Damaged:
    return Damaged(
        f"tensor {path} is missing",
        why=f"there is no pack {pack} at {store.url}; perhaps its checkpoint was just dropped",
        do="see `onward log` whether it is still there, and `onward verify` whether it is intact",
    )


def _assemble(tensor: Tensor, held: dict[tuple[str, int, int], Bytes]) -> Bytes:
    if tensor.size_bytes == 0:
        return np.empty(0, dtype=np.uint8)
    only = tensor.parts[0]
    if len(tensor.parts) == 1 and isinstance(only, Full):
        # Shared and perhaps read-only: whoever restores copies it into live memory.
        return held[only.range.place]
    item = ITEM_BYTES[tensor.dtype]
    whole = np.empty(tensor.size_bytes, dtype=np.uint8)
    elements = whole.reshape(*tensor.shape, item)
    for part in tensor.parts:
        match part:
            case Full():
                whole[:] = held[part.range.place]
            case Region():
                block = tuple(slice(s, s + e) for s, e in zip(part.start, part.shape, strict=True))
                elements[block] = held[part.range.place].reshape(*part.shape, item)
            case Rows():
                index = _row_index(part, tensor, held)
                rows = whole.reshape(tensor.shape[0], -1)
                rows[index] = held[part.rows.place].reshape(part.count, rows.shape[1])
    if tensor.digest is not None and digest_of(whole.data) != tensor.digest:
        raise Damaged(f"tensor {tensor.path} is damaged", why="its parts do not give its digest")
    return whole


def _row_index(
    part: Rows, tensor: Tensor, held: dict[tuple[str, int, int], Bytes]
) -> npt.NDArray[np.int64]:
    index: npt.NDArray[np.int64] = held[part.index.place].view("<i8")
    if part.count and (
        index[0] < 0 or index[-1] >= tensor.shape[0] or bool(np.any(index[1:] <= index[:-1]))
    ):
        raise Damaged(f"tensor {tensor.path} has a row patch with bad row numbers")
    return index


def _leaf(tensor: Tensor, index: int, data: Bytes | None) -> TensorLeaf:
    return TensorLeaf(tensor.dtype, tuple(tensor.shape), tensor.kind, data, identity=index)
