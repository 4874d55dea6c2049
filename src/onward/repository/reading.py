"""Reading a checkpoint's state tree: into live memory where it is given, else into its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from onward.frameworks.base import TensorLeaf
from onward.repository.filling import Bytes, Place, Progress, fill, only_range, packs_of
from onward.repository.manifest import MAX_EXPANSION, Manifest, Tensor
from onward.repository.tree import decode
from onward.stores.base import Store

_ALIGNMENT = 64


def description(manifest: Manifest) -> Any:
    """The state tree with leaves that lack data: enough to compare, no pack is read."""
    return decode(manifest.state, lambda index: _leaf(manifest.tensor(index), index))


def read_state(
    store: Store,
    manifest: Manifest,
    *,
    keys: Iterable[str] | None = None,
    into: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
    verify: bool = True,
) -> Any:
    """The whole state tree, or only the named top-level entries of it, with its bytes.

    `into` is a tree of leaves whose data is live memory (`Framework.destinations`). A tensor that
    stands at the same place, with the same dtype and shape, is read there, and its leaf's data is
    that memory. With `into`, every other tensor gets memory of its own, and its leaf is `private`
    if it stands nowhere else; without, tensors of equal bytes share memory.

    Raises `Damaged`, naming the tensor, if any byte is not what was written; live memory may then
    be overwritten in part. (`verify=False` is for measuring what verifying costs.)
    """
    document = manifest.state
    if keys is not None:
        entries = document if isinstance(document, dict) else {}
        document = {key: entries[key] for key in keys if key in entries}
    uses: Counter[int] = Counter()

    def seen(index: int) -> TensorLeaf:
        uses[index] += 1
        return _leaf(manifest.tensor(index), index)

    described = decode(document, seen)
    tensors = {index: manifest.tensor(index) for index in sorted(uses)}
    live: dict[int, Bytes] = {}
    if into is not None:
        _match(described, into, live)
        live = _apart(live)
    with packs_of(store, tensors.values()) as packs:
        memory, own = _memory(tensors, live, share=into is None)
        fill(packs, tensors, memory, verify=verify, progress=progress)
    return decode(
        document,
        lambda index: _leaf(
            tensors[index], index, memory[index], private=index in own and uses[index] == 1
        ),
    )


def read_tensors(
    store: Store, tensors: dict[int, Tensor], *, progress: Progress | None = None
) -> dict[int, Bytes]:
    """The bytes of each tensor, verified. Those of equal tensors may be one array."""
    with packs_of(store, tensors.values()) as packs:
        memory, _ = _memory(tensors, {}, share=True)
        fill(packs, tensors, memory, progress=progress)
    return memory


def _match(tree: Any, into: Any, live: dict[int, Bytes]) -> None:
    """Notes the live memory of each tensor; of one that stands in several places, the first."""
    if isinstance(tree, TensorLeaf):
        fits = isinstance(into, TensorLeaf) and (tree.dtype, tree.shape) == (into.dtype, into.shape)
        if fits and into.data is not None and into.data.size == tree.size_bytes > 0:
            assert into.data.flags.writeable
            assert isinstance(tree.identity, int)
            live.setdefault(tree.identity, into.data)
    elif isinstance(tree, dict) and isinstance(into, Mapping):
        for key, child in tree.items():
            if key in into:
                _match(child, into[key], live)


def _apart(live: dict[int, Bytes]) -> dict[int, Bytes]:
    """Without memory that two tensors claim, which is tied now and was not when it was saved.

    Which of them wins is for the framework to say, that sets one after the other.
    """
    order = sorted(live, key=lambda index: _address(live[index]))
    clashing: set[int] = set()
    widest = -1
    for index in order:
        if widest >= 0 and _address(live[index]) < _address(live[widest]) + live[widest].size:
            clashing |= {index, widest}
        if widest < 0 or _end(live[index]) > _end(live[widest]):
            widest = index
    return {index: data for index, data in live.items() if index not in clashing}


def _memory(
    tensors: Mapping[int, Tensor], live: Mapping[int, Bytes], *, share: bool
) -> tuple[dict[int, Bytes], set[int]]:
    """Where each tensor goes, and which of these are new and nobody else's."""
    memory: dict[int, Bytes] = {}
    own: set[int] = set()
    shared: dict[Place, Bytes] = {}
    copies: Counter[Place] = Counter()
    for index, tensor in tensors.items():
        found = only_range(tensor)
        if index in live:
            memory[index] = live[index]
        elif found is None:
            memory[index] = _fresh(tensor.size_bytes)
            own.add(index)
        elif share or copies[found.place] >= MAX_EXPANSION:
            # Limited also otherwise: a short manifest must not ask for memory without end.
            if found.place not in shared:
                shared[found.place] = _fresh(tensor.size_bytes)
            memory[index] = shared[found.place]
        else:
            copies[found.place] += 1
            memory[index] = _fresh(tensor.size_bytes)
            own.add(index)
    return memory, own


def _fresh(size: int) -> Bytes:
    """New memory that begins where frameworks let theirs begin."""
    whole = np.empty(size + _ALIGNMENT, np.uint8)
    start = -_address(whole) % _ALIGNMENT
    return whole[start : start + size]


def _address(data: Bytes) -> int:
    return int(data.__array_interface__["data"][0])


def _end(data: Bytes) -> int:
    return _address(data) + data.size


def _leaf(
    tensor: Tensor, index: int, data: Bytes | None = None, *, private: bool = False
) -> TensorLeaf:
    return TensorLeaf(
        tensor.dtype, tuple(tensor.shape), tensor.kind, data, identity=index, private=private
    )
