"""The document of one checkpoint, and every check before its numbers are believed (§3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta, Struct

from onward.errors import Damaged
from onward.frameworks.base import ITEM_BYTES
from onward.repository.documents import (
    FORMAT,
    MAX_COUNT,
    MAX_MANIFEST_BYTES,
    convert,
    from_bytes,
    to_bytes,
)
from onward.repository.records import CheckpointId, Count, Digest, Hex32, Metrics, Text

_MAX_DIMENSIONS = 30  # NumPy 1 has 32, and reading needs one more than the tensor's own
_MAX_REGIONS = 16_384
MAX_EXPANSION = 64

Shape: TypeAlias = Annotated[list[Count], Meta(max_length=_MAX_DIMENSIONS)]


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


class PackRef(Struct, frozen=True, omit_defaults=True):
    """A whole pack file, and what its digest is made from: all bytes, or header and tensors."""

    size: Count
    digest: Digest
    of: Literal["file", "tensors"] = "file"


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


def manifest_key(name: str) -> str:
    """Of a manifest called `name`: its checkpoint's id, or what `History.manifest_place` says."""
    return f"onward/manifests/{name}.json"


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
    reason = _ranges_objection(manifest.tensors)
    if reason:
        raise Damaged(name, why=reason)
    return manifest


def _tensor_objection(tensor: Tensor, packs: Mapping[str, PackRef]) -> str:
    if tensor.dtype not in ITEM_BYTES:
        return f"unknown dtype {tensor.dtype[:40]!r}"
    if tensor.kind not in ("torch", "numpy", "mindspore"):
        return f"unknown kind {tensor.kind[:40]!r}"
    if math.prod(max(1, extent) for extent in tensor.shape) * ITEM_BYTES[tensor.dtype] > MAX_COUNT:
        return "its shape is out of range"
    seen: set[tuple[str, int, int]] = set()
    for found in tensor.ranges():
        pack = packs.get(found.pack)
        if pack is None:
            return f"pack {found.pack} is not among the manifest's packs"
        if found.offset < 8 or found.offset + found.size > pack.size:
            return f"a range lies outside of pack {found.pack}"
        if found.size and found.place in seen:
            return f"it uses byte {found.offset} of pack {found.pack} twice"
        seen.add(found.place)
    return _parts_objection(tensor)


def _parts_objection(tensor: Tensor) -> str:
    size = tensor.size_bytes
    if size == 0:
        return "it has no elements but parts" if tensor.parts else ""
    first, regions, patches = _sorted_out(tensor.parts)
    if len(regions) + len(patches) + (first is not None) != len(tensor.parts):
        return "its parts are not a full part or regions, and then row patches"
    if first is not None:
        if first.range.size != size:
            return f"a full part of {first.range.size} bytes for a tensor of {size}"
        if len(tensor.parts) == 1 and tensor.digest not in (None, first.range.digest):
            return "its digest is not that of its only part"
    else:
        reason = _regions_objection(regions, tensor)
        if reason:
            return reason
    row_bytes = size // tensor.shape[0] if tensor.shape else 0
    for patch in patches:
        if not tensor.shape or patch.count > tensor.shape[0]:
            return f"a patch of {patch.count} rows"
        if patch.index.size != patch.count * 8 or patch.rows.size != patch.count * row_bytes:
            return "a row patch whose sizes do not fit"
    return ""


def _sorted_out(parts: list[Part]) -> tuple[Full | None, list[Region], list[Rows]]:
    """The parts by kind, up to the first that stands where its kind may not."""
    first = parts[0] if parts and isinstance(parts[0], Full) else None
    at = 1 if first else 0
    regions: list[Region] = []
    patches: list[Rows] = []
    for part in parts[at:]:
        if isinstance(part, Rows):
            patches.append(part)
        elif isinstance(part, Region) and first is None and not patches:
            regions.append(part)
        else:
            break
    return first, regions, patches


def _regions_objection(regions: list[Region], tensor: Tensor) -> str:
    if not regions:
        return "it does not begin with a full part or a region"
    if len(regions) > _MAX_REGIONS:
        return f"{len(regions)} regions"
    for part in regions:
        if len(part.start) != len(tensor.shape) or len(part.shape) != len(tensor.shape):
            return "a region of another dimension"
        if any(s + e > n for s, e, n in zip(part.start, part.shape, tensor.shape, strict=True)):
            return "a region outside of the tensor"
        size = math.prod(part.shape) * ITEM_BYTES[tensor.dtype]
        if part.range.size != size or size == 0:
            return "a region whose size does not fit"
    covered = sum(part.range.size for part in regions)
    if covered != tensor.size_bytes:
        return f"its parts give {covered} of {tensor.size_bytes} bytes"
    return "two regions overlap" if tensor.shape and _any_overlap(regions) else ""


def _any_overlap(regions: list[Region]) -> bool:
    # Sorted by where they begin along the first dimension, each is compared only with those that
    # begin before it ends: few for a sharded tensor, and for a hostile pile still quick.
    regions = sorted(regions, key=lambda part: part.start)
    start = np.array([part.start for part in regions], dtype=np.int64)
    end = start + np.array([part.shape for part in regions], dtype=np.int64)
    last = np.searchsorted(start[:, 0], end[:, 0])
    for this in range(len(regions)):
        others = slice(this + 1, last[this])
        if bool(np.all((start[others] < end[this]) & (start[this] < end[others]), axis=1).any()):
            return True
    return False


def _ranges_objection(tensors: list[Tensor]) -> str:
    """Why the ranges of different tensors cannot stand beside each other, or ''."""
    digests: dict[tuple[str, int, int], str] = {}
    for tensor in tensors:
        for found in tensor.ranges():
            if digests.setdefault(found.place, found.digest) != found.digest:
                return f"two digests for byte {found.offset} of pack {found.pack}"
    pack, end = "", 0
    for this_pack, offset, size in sorted(digests):
        if size and this_pack == pack and offset < end:
            return f"two ranges of pack {pack} overlap at byte {offset}"
        end = max(end if this_pack == pack else 0, offset + size)
        pack = this_pack
    # Tensors of one part share its memory, the others have their own when they are read.
    own = sum(tensor.size_bytes for tensor in tensors if len(tensor.parts) > 1)
    if own > MAX_EXPANSION * sum(size for _, _, size in digests):
        return f"its parts make {own} bytes of far fewer"
    return ""
