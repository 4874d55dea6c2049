"""The document of one checkpoint, and every check before its numbers are believed (§3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta, Struct

from onward.errors import Damaged
from onward.frameworks.base import ITEM_BYTES
from onward.repository.documents import (
    FORMAT,
    MAX_MANIFEST_BYTES,
    convert,
    from_bytes,
    to_bytes,
)
from onward.repository.records import CheckpointId, Count, Digest, Hex32, Metrics, Text

Shape: TypeAlias = Annotated[list[Count], Meta(max_length=64)]


class Range(Struct, frozen=True):
    """Bytes of a pack, with their digest."""

    pack: Hex32
    offset: Count
    size: Count
    digest: Digest

    @property
    def place(self) -> tuple[str, int, int]:
        return (self.pack, self.offset, self.size)


class Full(Struct, frozen=True, tag_field="part", tag="full"):
    """All elements of a tensor."""

    range: Range


class Rows(Struct, frozen=True, tag_field="part", tag="rows"):
    """New values of some rows of the first dimension."""

    count: Count
    index: Range
    rows: Range


class Region(Struct, frozen=True, tag_field="part", tag="region"):
    """A block of a tensor."""

    start: Shape
    shape: Shape
    range: Range


Part: TypeAlias = Full | Rows | Region


def part_ranges(part: Part) -> tuple[Range, ...]:
    """Every range of a pack that a part uses."""
    return (part.index, part.rows) if isinstance(part, Rows) else (part.range,)


class Tensor(Struct, frozen=True):
    """One tensor: what it is and where its bytes are."""

    path: str
    kind: str
    dtype: str
    shape: Shape
    digest: Digest | None
    parts: list[Part]

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    def ranges(self) -> Iterator[Range]:
        for part in self.parts:
            yield from part_ranges(part)


class PackRef(Struct, frozen=True):
    """A whole pack file."""

    size: Count
    digest: Digest


class FrameworkRef(Struct, frozen=True):
    name: str
    version: str


class Manifest(Struct, frozen=True, kw_only=True):
    """Everything about one checkpoint but its tensors' bytes."""

    format: int = FORMAT
    repository: Hex32
    checkpoint: CheckpointId
    step: Count
    epoch: Count
    increment: Count
    parent: CheckpointId | None
    finished: bool
    reason: Text
    time: Text
    verb: Text
    origin: dict[str, str] | None
    framework: FrameworkRef
    about: dict[str, Any]
    metrics: Metrics
    packs: dict[Hex32, PackRef]
    tensors: list[Tensor]
    state: Any

    def tensor(self, index: int) -> Tensor:
        if index >= len(self.tensors):
            raise Damaged(f"manifest {self.checkpoint} names tensor {index}, which it lacks")
        return self.tensors[index]

    def size_bytes(self) -> int:
        """Bytes of all tensors, tied ones once."""
        return sum(tensor.size_bytes for tensor in self.tensors)


def manifest_key(checkpoint: str) -> str:
    return f"onward/manifests/{checkpoint}.json"


def manifest_bytes(manifest: Manifest) -> bytes:
    return to_bytes(msgspec.to_builtins(manifest))


def parse_manifest(data: bytes, checkpoint: str) -> Manifest:
    """The manifest, every number in it checked against every other; else `Damaged`."""
    name = f"manifest {checkpoint}"
    document = from_bytes(data, name=name, max_bytes=MAX_MANIFEST_BYTES)
    manifest = convert(document, Manifest, name=name)
    if manifest.checkpoint != checkpoint:
        raise Damaged(f"{name} says that it is manifest {manifest.checkpoint}")
    for tensor in manifest.tensors:
        reason = _tensor_objection(tensor, manifest.packs)
        if reason:
            raise Damaged(f"{name}, tensor {tensor.path[:200]!r}", why=reason)
    _check_overlap(manifest, name)
    return manifest


def _tensor_objection(tensor: Tensor, packs: dict[str, PackRef]) -> str:
    if tensor.dtype not in ITEM_BYTES:
        return f"unknown dtype {tensor.dtype[:40]!r}"
    if tensor.kind not in ("torch", "numpy", "mindspore"):
        return f"unknown kind {tensor.kind[:40]!r}"
    for found in tensor.ranges():
        pack = packs.get(found.pack)
        if pack is None:
            return f"pack {found.pack} is not among the manifest's packs"
        if found.offset < 8 or found.offset + found.size > pack.size:
            return f"a range lies outside of pack {found.pack}"
    return _parts_objection(tensor)


def _parts_objection(tensor: Tensor) -> str:
    size = tensor.size_bytes
    if size == 0:
        return "it has no elements but parts" if tensor.parts else ""
    if not tensor.parts or isinstance(tensor.parts[0], Rows):
        return "it does not begin with a full part or a region"
    row_bytes = size // tensor.shape[0] if tensor.shape else 0
    covered = 0
    regions: list[Region] = []
    for position, part in enumerate(tensor.parts):
        match part:
            case Full():
                if position or part.range.size != size:
                    return f"a full part of {part.range.size} bytes for a tensor of {size}"
                covered = size
            case Region():
                if any(isinstance(earlier, Rows) for earlier in tensor.parts[:position]):
                    return "a region follows a row patch"
                reason = _region_objection(part, tensor)
                if reason:
                    return reason
                regions.append(part)
                covered += part.range.size
            case Rows():
                if not tensor.shape or part.count > tensor.shape[0]:
                    return f"a patch of {part.count} rows"
                if part.index.size != part.count * 8 or part.rows.size != part.count * row_bytes:
                    return "a row patch whose sizes do not fit"
    if covered != size:
        return f"its parts give {covered} of {size} bytes"
    return _regions_overlap(regions)


def _region_objection(part: Region, tensor: Tensor) -> str:
    if len(part.start) != len(tensor.shape) or len(part.shape) != len(tensor.shape):
        return "a region of another dimension"
    if any(s + e > n for s, e, n in zip(part.start, part.shape, tensor.shape, strict=True)):
        return "a region outside of the tensor"
    if part.range.size != math.prod(part.shape) * ITEM_BYTES[tensor.dtype] or part.range.size == 0:
        return "a region whose size does not fit"
    return ""


def _regions_overlap(regions: list[Region]) -> str:
    # Sorted by their start along the first dimension, only neighbours whose intervals meet there
    # are compared in full; a hostile pile that all meet is cut off by the count.
    if len(regions) > 65_536:
        return f"{len(regions)} regions"
    ordered = sorted(regions, key=lambda part: part.start)
    active: list[Region] = []
    for part in ordered:
        first = part.start[0] if part.start else 0
        active = [a for a in active if not a.start or a.start[0] + a.shape[0] > first]
        if len(active) > 4096:
            return "too many regions side by side"
        for other in active:
            if all(
                a < b + extent_b and b < a + extent_a
                for a, extent_a, b, extent_b in zip(
                    part.start, part.shape, other.start, other.shape, strict=True
                )
            ):
                return "two regions overlap"
        active.append(part)
    return ""


def _check_overlap(manifest: Manifest, name: str) -> None:
    places = sorted({found.place for tensor in manifest.tensors for found in tensor.ranges()})
    end, pack = 0, ""
    for this_pack, offset, size in places:
        if this_pack == pack and offset < end and size:
            raise Damaged(name, why=f"two ranges of pack {pack} overlap at byte {offset}")
        end, pack = (offset + size if this_pack != pack else max(end, offset + size)), this_pack
