"""Packs under new names: how a commit is pushed whose packs were condemned at the remote output.

The working copy does not know what others drop or repack there, and goes on reusing packs. Their
bytes are here all the same: they are pushed again, under names that nobody has condemned.
"""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from onward.repository.manifest import Manifest
from onward.repository.records import new_hex32
from onward.repository.repacking import moved_manifest


class Renewals:
    """The new names that packs of one working copy have at its remote output."""

    def __init__(self) -> None:
        self._new: dict[str, str] = {}
        self._old: dict[str, str] = {}

    def renewed(self, manifest: Manifest, condemned: Collection[str]) -> Manifest:
        """The manifest as it is pushed: without condemned packs, the same each time until then."""
        moved, refs = {}, {}
        for pack, ref in manifest.packs.items():
            if pack not in condemned:
                continue
            name = self._new.get(pack)
            if name is None or name in condemned:
                name = self._new[pack] = new_hex32()
                self._old[name] = pack
            refs[name] = ref
            for tensor in manifest.tensors:
                for found in tensor.ranges():
                    if found.pack == pack:
                        moved[found] = msgspec.structs.replace(found, pack=name)
        return moved_manifest(manifest, moved, refs) or manifest

    def local(self, pack: str) -> str:
        """What a pack of a renewed manifest is called in the working copy."""
        return self._old.get(pack, pack)
