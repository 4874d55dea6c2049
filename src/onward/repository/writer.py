"""The one writer of an output: packs, then the manifest, then the record that makes it exist."""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from onward.errors import Damaged, UnknownCheckpoint, Unstorable
from onward.frameworks.base import TensorLeaf
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.log import Log
from onward.repository.manifest import (
    FrameworkRef,
    Full,
    Manifest,
    PackRef,
    Part,
    Tensor,
    manifest_bytes,
    manifest_key,
    parse_manifest,
    part_ranges,
)
from onward.repository.packs import Hashing, digest_of_array, pack_key, plan_pack
from onward.repository.records import (
    AnyRecord,
    Commit,
    DocumentRef,
    for_people,
    new_checkpoint_id,
    new_hex32,
    now,
)
from onward.repository.tree import encode
from onward.stores.base import Store

_HASH_THREADS = 2

_Content: TypeAlias = tuple[str, str, tuple[int, ...]]
"""Digest, dtype and shape: tensors that agree in them can be stored as the same parts."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What a checkpoint is about, beside its state."""

    step: int
    epoch: int
    increment: int
    parent: str | None
    finished: bool
    reason: str
    verb: str
    framework: str
    framework_version: str
    origin: Mapping[str, str] | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Draft:
    """The tensors of a state being saved: each once, with its digest."""

    leaves: list[tuple[str, TensorLeaf]] = field(default_factory=list)
    by_identity: dict[object, int] = field(default_factory=dict)
    digests: list[str] = field(default_factory=list)

    def add(self, path: str, leaf: TensorLeaf) -> int:
        assert leaf.data is not None, path
        assert leaf.data.size == leaf.size_bytes, path
        index = len(self.leaves)
        if leaf.identity is not None:
            key = (leaf.identity, leaf.kind, leaf.dtype, leaf.shape)
            index = self.by_identity.setdefault(key, index)
        if index == len(self.leaves):
            self.leaves.append((path, leaf))
        return index

    def content(self, index: int) -> _Content:
        leaf = self.leaves[index][1]
        return (self.digests[index], leaf.dtype, leaf.shape)


class Writer:
    """Commits checkpoints under one claim. Every method raises `Fenced` once another claim won."""

    def __init__(self, store: Store, log: Log, *, writer: str, generation: int) -> None:
        self.store = store
        self.log = log
        self.writer = writer
        self.generation = generation
        # What the last manifest says is where: lets unchanged tensors be named, not written.
        self._known: dict[_Content, list[Part]] = {}
        self._packs: dict[str, PackRef] = {}

    @property
    def history(self) -> History:
        return self.log.history

    def base_on(self, manifest: Manifest) -> None:
        """Unchanged tensors of the next commit are taken from this checkpoint's packs."""
        self._known = {
            (tensor.digest, tensor.dtype, tuple(tensor.shape)): tensor.parts
            for tensor in manifest.tensors
            if tensor.digest is not None and tensor.parts
        }
        self._packs = dict(manifest.packs)

    def commit(self, state: Any, facts: Facts) -> Commit:
        """Stores `state` as a checkpoint; it exists, durable, when this returns.

        Raises `Unstorable` before the checkpoint can exist, `UnknownCheckpoint` for an unknown
        parent, `StoreError` with nothing committed, or `Indeterminate` when the store never
        answered.
        """
        draft = _Draft()
        document = encode(state, draft.add)
        with ThreadPoolExecutor(_HASH_THREADS) as pool:
            draft.digests = list(pool.map(_digest_of_leaf, [leaf for _, leaf in draft.leaves]))
        while True:
            try:
                return self._commit_once(draft, document, facts)
            except _PackCondemned:
                # A drop named packs that this checkpoint meant to reuse: write all of it anew.
                self._known = {}
                self._packs = {}

    def _commit_once(self, draft: _Draft, document: Any, facts: Facts) -> Commit:
        self.log.refresh()
        self.log.check_fence(self.generation)
        if facts.parent is not None and facts.parent not in self.history.commits:
            raise UnknownCheckpoint(f"there is no checkpoint {facts.parent!r} to be the parent")
        if self.history.condemned & self._packs.keys():
            raise _PackCondemned
        parts, packs, stored = self._store_packs(draft)
        manifest = self._manifest(draft, document, facts, parts, packs)
        data = _checked_bytes(manifest)
        # A name that nobody else uses: this may be repeated, and replaces nothing.
        self.store.put(manifest_key(manifest.checkpoint), [data], len(data))
        commit = self._append(manifest, DocumentRef(digest_of(data), len(data)), stored)
        self.base_on(manifest)
        return commit

    def _store_packs(self, draft: _Draft) -> tuple[list[list[Part]], dict[str, PackRef], int]:
        parts: list[list[Part]] = [[] for _ in draft.leaves]
        fresh: dict[_Content, list[int]] = {}
        for index, (_, leaf) in enumerate(draft.leaves):
            if leaf.size_bytes == 0:
                continue
            known = self._known.get(draft.content(index))
            if known is not None:
                parts[index] = known
            else:
                fresh.setdefault(draft.content(index), []).append(index)
        packs: dict[str, PackRef] = {}
        stored = 0
        if fresh:
            firsts = [indices[0] for indices in fresh.values()]
            name = new_hex32()
            plan = plan_pack(name, [(*draft.leaves[i], draft.digests[i]) for i in firsts])
            hashing = Hashing(plan)
            self.store.put(pack_key(name), hashing, plan.size_bytes)
            packs[name] = hashing.ref()
            stored = plan.size_bytes
            for indices, found in zip(fresh.values(), plan.ranges, strict=True):
                for index in indices:
                    parts[index] = [Full(found)]
        for found in (r for several in parts for part in several for r in part_ranges(part)):
            if found.pack not in packs:
                packs[found.pack] = self._packs[found.pack]
        return parts, packs, stored

    def _manifest(
        self, draft: _Draft, document: Any, facts: Facts,
        parts: list[list[Part]], packs: dict[str, PackRef],
    ) -> Manifest:  # fmt: skip
        tensors = [
            Tensor(path, leaf.kind, leaf.dtype, list(leaf.shape), digest, list_of_parts)
            for (path, leaf), digest, list_of_parts in zip(
                draft.leaves, draft.digests, parts, strict=True
            )
        ]
        return Manifest(
            repository=self.history.repository, checkpoint=new_checkpoint_id(),
            step=facts.step, epoch=facts.epoch, increment=facts.increment, parent=facts.parent,
            finished=facts.finished, reason=for_people(facts.reason), time=now(),
            verb=for_people(facts.verb), origin=dict(facts.origin) if facts.origin else None,
            framework=FrameworkRef(facts.framework, facts.framework_version),
            about=dict(facts.about), metrics=_finite(facts.metrics), packs=packs,
            tensors=tensors, state=document,
        )  # fmt: skip

    def _append(self, manifest: Manifest, ref: DocumentRef, stored: int) -> Commit:
        record_id = new_hex32()

        def build(history: History) -> AnyRecord:
            if history.condemned & manifest.packs.keys():
                raise _PackCondemned
            return Commit(
                seq=history.seq + 1, record=record_id, writer=self.writer,
                generation=self.generation, time=manifest.time, prev=history.head_digest,
                checkpoint=manifest.checkpoint, step=manifest.step, epoch=manifest.epoch,
                increment=manifest.increment, parent=manifest.parent, finished=manifest.finished,
                reason=manifest.reason, manifest=ref, stored=stored, metrics=manifest.metrics,
            )  # fmt: skip

        record = self.log.append(build, claimed_generation=self.generation)
        assert isinstance(record, Commit)
        return record


def _digest_of_leaf(leaf: TensorLeaf) -> str:
    assert leaf.data is not None
    return digest_of_array(leaf.data)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in metrics.items()
    }


def _checked_bytes(manifest: Manifest) -> bytes:
    """The stored form, read as every later reader will read it: none may find it unreadable."""
    try:
        data = manifest_bytes(manifest)
        parse_manifest(data, manifest.checkpoint)
    except (Damaged, ValueError, TypeError) as error:
        why = error.why or error.what if isinstance(error, Damaged) else str(error)
        raise Unstorable("this state cannot be stored", why=why) from error
    return data


class _PackCondemned(Exception):
    """A pack that a commit wants to reuse was dropped meanwhile."""
