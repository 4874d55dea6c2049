"""What of a state must be written, and what its parent's packs hold already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeAlias

from blake3 import blake3

from onward.frameworks.base import TensorLeaf
from onward.repository.documents import digest_of
from onward.repository.manifest import Full, Manifest, PackRef, Part, Range, Rows, Tensor
from onward.repository.packs import Entry, row_numbers, some_rows, whole
from onward.repository.staging import Slot, row_bytes_of

_HASH_THREADS = 2
_INDEX_BYTES = 8
# A patch that is larger than this share of its tensor saves too little to be worth its lookup.
_PATCH_SHARE = 0.4
# A tensor is written whole again when its patches would weigh more than this many times itself, or
# be more than this many: that bounds what a restore has to read. Twice, not once, because at 16 %
# of rows a save the first rewrite then comes after a dozen saves, not after six.
_PATCHES_WEIGHT = 2.0
_MAX_PATCHES = 31

Named: TypeAlias = tuple[str, TensorLeaf]
Content: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Digest, dtype and shape: tensors that agree in them can be stored as the same parts."""


@dataclass(slots=True)
class Base:
    """The tensors of the last stored checkpoint: what a new one need not write again."""

    by_name: dict[str, Tensor] = field(default_factory=dict)
    by_content: dict[Content, list[Part]] = field(default_factory=dict)
    packs: dict[str, PackRef] = field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest) -> Base:
        stored = [tensor for tensor in manifest.tensors if tensor.parts]
        return cls(
            {tensor.path: tensor for tensor in stored},
            {
                (tensor.digest, tensor.dtype, tuple(tensor.shape)): tensor.parts
                for tensor in stored
                if tensor.digest is not None
            },
            dict(manifest.packs),
        )

    def tensor(self, name: str, leaf: TensorLeaf) -> Tensor | None:
        """The tensor of this name, if it is still of the same kind."""
        found = self.by_name.get(name)
        same = found is not None and (found.kind, found.dtype, tuple(found.shape)) == (
            leaf.kind, leaf.dtype, leaf.shape,
        )  # fmt: skip
        return found if same else None


@dataclass(slots=True)
class _Written:
    """A tensor to be stored as `before` (parts of older packs) and entries of the new one."""

    tensor: int
    before: list[Part]
    entries: list[int]
    rows: int | None  # None: one full part


@dataclass(slots=True)
class Layout:
    """Parts and digest of each tensor; those that are written come with `complete`."""

    parts: list[list[Part]]
    digests: list[str | None]
    entries: list[Entry] = field(default_factory=list)
    _written: list[_Written] = field(default_factory=list)

    def write(self, tensor: int, entry: Entry) -> None:
        self._written.append(_Written(tensor, [], [self._add(entry)], None))

    def write_as(self, tensor: int, other: int) -> None:
        """Stores `tensor` as the very bytes of another one that is written."""
        found = next(written for written in self._written if written.tensor == other)
        self._written.append(_Written(tensor, [], found.entries, None))

    def patch(self, tensor: int, before: list[Part], index: int, rows: Entry, count: int) -> None:
        self._written.append(_Written(tensor, before, [index, self._add(rows)], count))

    def add_index(self, entry: Entry) -> int:
        """The number of an index's entry; tensors that changed in the same rows share it."""
        for number, other in enumerate(self.entries):
            if other.digest is not None and other.digest == entry.digest:
                return number
        return self._add(entry)

    def complete(self, ranges: Sequence[Range]) -> None:
        """Tells where each entry came to lie."""
        for written in self._written:
            found = [ranges[number] for number in written.entries]
            if written.rows is None:
                self.parts[written.tensor] = [Full(found[0])]
                self.digests[written.tensor] = found[0].digest
            else:
                patch = Rows(written.rows, index=found[0], rows=found[1])
                self.parts[written.tensor] = [*written.before, patch]

    def _add(self, entry: Entry) -> int:
        self.entries.append(entry)
        return len(self.entries) - 1


def by_digest(leaves: Sequence[Named], base: Base) -> Layout:
    """Hashes every tensor; those that the base, or an earlier one here, holds are not written."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        digests = list(pool.map(_digest_of_leaf, [leaf for _, leaf in leaves]))
    layout = Layout([[] for _ in leaves], list(digests))
    firsts: dict[Content, int] = {}
    for number, ((name, leaf), digest) in enumerate(zip(leaves, digests, strict=True)):
        content = (digest, leaf.dtype, leaf.shape)
        if leaf.size_bytes == 0:
            continue
        if content in base.by_content:
            layout.parts[number] = base.by_content[content]
        elif content in firsts:
            layout.write_as(number, firsts[content])
        else:
            firsts[content] = number
            layout.write(number, whole(name, leaf, digest))
    return layout


def by_comparison(names: Sequence[str], slots: Sequence[Slot], base: Base) -> Layout:
    """Writes what the staging copy saw change against the base."""
    layout = Layout([[] for _ in slots], [None] * len(slots))
    for number, (name, slot) in enumerate(zip(names, slots, strict=True)):
        stored = base.tensor(name, slot.leaf)
        if slot.leaf.size_bytes == 0:
            layout.digests[number] = digest_of(b"")
        elif stored is not None and not slot.changed:
            layout.parts[number], layout.digests[number] = stored.parts, stored.digest
        elif stored is not None and not slot.everything and _patch_pays(slot, stored):
            index = layout.add_index(row_numbers(name, slot.rows))
            rows = some_rows(name, slot.leaf, slot.rows)
            layout.patch(number, stored.parts, index, rows, slot.rows.size)
            # In this thread alone: the training's own cores are not for hashing.
            layout.digests[number] = blake3(slot.memory.data).hexdigest()
        else:
            layout.write(number, whole(name, slot.leaf))
    return layout


def used_packs(parts: Sequence[list[Part]], *known: Mapping[str, PackRef]) -> dict[str, PackRef]:
    """The packs that the parts lie in, as they are known."""
    used: dict[str, PackRef] = {}
    for part in (part for several in parts for part in several):
        found = (part.index, part.rows) if isinstance(part, Rows) else (part.range,)
        for pack in (range_.pack for range_ in found):
            if pack not in used:
                used[pack] = next(packs[pack] for packs in known if pack in packs)
    return used


def _patch_pays(slot: Slot, stored: Tensor) -> bool:
    row_bytes = row_bytes_of(slot.leaf)
    patch_bytes = slot.rows.size * (row_bytes + _INDEX_BYTES)
    patches = [part for part in stored.parts if isinstance(part, Rows)]
    before = sum(part.index.size + part.rows.size for part in patches)
    return (
        patch_bytes <= _PATCH_SHARE * slot.leaf.size_bytes
        and before + patch_bytes <= _PATCHES_WEIGHT * slot.leaf.size_bytes
        and len(patches) < _MAX_PATCHES
    )


def _digest_of_leaf(leaf: TensorLeaf) -> str:
    assert leaf.data is not None
    return digest_of(leaf.data.data)
