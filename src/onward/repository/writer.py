"""The one writer of an output: packs, then the manifest, then the record that makes it exist."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from blake3 import blake3

from onward.errors import Damaged, UnknownCheckpoint, Unstorable
from onward.frameworks.base import TensorLeaf, fetched
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.layout import Base, Layout, Named, by_comparison, by_digest, used_packs
from onward.repository.log import Log
from onward.repository.manifest import (
    FrameworkRef,
    Manifest,
    PackRef,
    Tensor,
    manifest_bytes,
    manifest_key,
    parse_manifest,
)
from onward.repository.packs import Hashing, pack_key, plan_pack
from onward.repository.records import (
    AnyRecord,
    Commit,
    DocumentRef,
    Missed,
    Scores,
    for_people,
    new_checkpoint_id,
    new_hex32,
    now,
)
from onward.repository.staging import Slot, Staging
from onward.repository.tree import encode
from onward.stores.base import Store


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
    missed: tuple[Missed, ...] = ()
    scores: Scores | None = None


@dataclass(slots=True)
class Draft:
    """A state on its way to be stored: its document, and each of its tensors once.

    With `slots` the bytes are staged and the live state may change; without, they are live.
    """

    checkpoint: str
    document: Any = None
    leaves: list[Named] = field(default_factory=list)
    slots: list[Slot] | None = None
    _by_identity: dict[object, int] = field(default_factory=dict)
    _names: set[str] = field(default_factory=set)

    def add(self, path: str, leaf: TensorLeaf) -> int:
        assert leaf.data is None or leaf.data.size == leaf.size_bytes, path
        index = len(self.leaves)
        if leaf.identity is not None:
            key = (leaf.identity, leaf.kind, leaf.dtype, leaf.shape)
            index = self._by_identity.setdefault(key, index)
        if index == len(self.leaves):
            while path in self._names:  # {"a": {"b": …}, "a/b": …}
                path += "~"
            self._names.add(path)
            self.leaves.append((path, leaf))
        return index


class Writer:
    """Commits checkpoints under one claim. Every method raises `Fenced` once another claim won.

    With a `staging` copy, `snapshot` returns as soon as the state is copied, and `store` may run
    beside training, in another thread, one at a time. Without, a state must not change until
    `store` returns, and what is unchanged is found by hashing all of it.
    """

    def __init__(
        self, store: Store, log: Log, *, writer: str, generation: int,
        staging: Staging | None = None,
    ) -> None:  # fmt: skip
        self.store = store
        self.log = log
        self.writer = writer
        self.generation = generation
        self.staging = staging
        self.make_room: Callable[[int], object] = lambda size_bytes: None
        """Called with the length of a pack before it is written; may raise a `StoreError`."""
        # What is staged is this checkpoint, but for what the slots say has changed since.
        self._base = Base()

    @property
    def history(self) -> History:
        return self.log.history

    def base_on(self, manifest: Manifest) -> None:
        """Unchanged tensors of the next commit are taken from this checkpoint's packs."""
        self._base = Base.of(manifest)

    def commit(self, state: Any, facts: Facts) -> Commit:
        """Stores `state` as a checkpoint; it exists, durable, when this returns.

        Raises `Unstorable` before the checkpoint can exist, `UnknownCheckpoint` for an unknown
        parent, `StoreError` with nothing committed, or `Indeterminate` when the store never
        answered.
        """
        return self.store_draft(self.snapshot(state), facts)

    def snapshot(self, state: Any, *, at_once: bool = True) -> Draft:
        """Takes `state` as it is now. Raises `Unstorable`, `Unsettled`, `TooLarge`.

        With `at_once=False`, settled tensors on an accelerator may change only when the staging
        copy is `complete`: they are fetched by `store_draft`.
        """
        draft = Draft(new_checkpoint_id())
        draft.document = encode(state, draft.add)
        if self.staging is None:
            draft.leaves = [(name, fetched(leaf)) for name, leaf in draft.leaves]
        else:
            draft.slots = self.staging.take(draft.leaves, at_once=at_once)
            draft.leaves = [
                (n, s.leaf) for (n, _), s in zip(draft.leaves, draft.slots, strict=True)
            ]
        return draft

    def reserve(self, state: Any) -> None:
        """Makes memory ready for states like this one. Raises `TooLarge`."""
        if self.staging is not None:
            draft = Draft(new_checkpoint_id())
            encode(state, draft.add)
            self.staging.reserve(draft.leaves)

    def prime(self, state: Any) -> None:
        """Stages a state that was just restored; `check_primed` must follow before a snapshot."""
        if self.staging is not None:
            self.snapshot(state)

    def check_primed(self) -> None:
        """Takes for unchanged what is staged with the digest that the restored checkpoint names."""
        slots = self.staging.slots if self.staging is not None else {}
        for name, slot in slots.items():
            stored = self._base.tensor(name, slot.leaf)
            if stored is not None and blake3(slot.memory.data).hexdigest() == stored.digest:
                slot.settle()

    def store_draft(self, draft: Draft, facts: Facts) -> Commit:
        """Stores what `snapshot` took. Raises as `commit` does; what was not stored is still owed.

        The next snapshot must wait for it.
        """
        if self.staging is not None:
            self.staging.finish()
        while True:
            try:
                return self._store_once(draft, facts)
            except _PackCondemned:
                # A drop named packs that this checkpoint meant to reuse: write all of it anew.
                self._base = Base()

    def _store_once(self, draft: Draft, facts: Facts) -> Commit:
        self.log.refresh()
        self.log.check_fence(self.generation)
        if facts.parent is not None and facts.parent not in self.history.commits:
            raise UnknownCheckpoint(f"there is no checkpoint {facts.parent!r} to be the parent")
        if self.history.condemned & self._base.packs.keys():
            raise _PackCondemned
        layout, packs, stored = self._store_pack(draft)
        manifest = self._manifest(draft, facts, layout, packs)
        data = _checked_bytes(manifest)
        # A name that nobody else uses: this may be repeated, and replaces nothing.
        self.store.put(manifest_key(manifest.checkpoint), [data], len(data))
        commit = self._append(manifest, DocumentRef(digest_of(data), len(data)), stored, facts)
        self.base_on(manifest)
        if self.staging is not None:
            self.staging.settle()
        return commit

    def _store_pack(self, draft: Draft) -> tuple[Layout, dict[str, PackRef], int]:
        if draft.slots is None:
            layout = by_digest(draft.leaves, self._base)
        else:
            layout = by_comparison([name for name, _ in draft.leaves], draft.slots, self._base)
        fresh: dict[str, PackRef] = {}
        if layout.entries:
            plan = plan_pack(new_hex32(), layout.entries)
            self.make_room(plan.size_bytes)
            hashing = Hashing(plan)
            self.store.put(pack_key(plan.name), hashing, plan.size_bytes)
            fresh[plan.name] = hashing.ref()
            layout.complete(hashing.ranges())
        stored = sum(ref.size for ref in fresh.values())
        return layout, used_packs(layout.parts, fresh, self._base.packs), stored

    def _manifest(
        self, draft: Draft, facts: Facts, layout: Layout, packs: dict[str, PackRef]
    ) -> Manifest:
        tensors = [
            Tensor(path, leaf.kind, leaf.dtype, list(leaf.shape), digest, parts)
            for (path, leaf), digest, parts in zip(
                draft.leaves, layout.digests, layout.parts, strict=True
            )
        ]
        return Manifest(
            repository=self.history.repository, checkpoint=draft.checkpoint,
            step=facts.step, epoch=facts.epoch, increment=facts.increment, parent=facts.parent,
            finished=facts.finished, reason=for_people(facts.reason), time=now(),
            verb=for_people(facts.verb), origin=dict(facts.origin) if facts.origin else None,
            framework=FrameworkRef(facts.framework, facts.framework_version),
            about=dict(facts.about), metrics=_finite(facts.metrics), packs=packs,
            tensors=tensors, state=draft.document,
        )  # fmt: skip

    def _append(self, manifest: Manifest, ref: DocumentRef, stored: int, facts: Facts) -> Commit:
        record_id = new_hex32()
        scores = msgspec.UNSET if facts.scores is None else _recordable(facts.scores)

        def build(history: History) -> AnyRecord:
            if history.condemned & manifest.packs.keys():
                raise _PackCondemned
            return Commit(
                seq=history.seq + 1, record=record_id, writer=self.writer,
                generation=self.generation, time=manifest.time, prev=history.head_digest,
                checkpoint=manifest.checkpoint, step=manifest.step, epoch=manifest.epoch,
                increment=manifest.increment, parent=manifest.parent, finished=manifest.finished,
                reason=manifest.reason, manifest=ref, stored=stored, metrics=manifest.metrics,
                missed=list(facts.missed) or msgspec.UNSET, scores=scores,
            )  # fmt: skip

        record = self.log.append(build, claimed_generation=self.generation)
        assert isinstance(record, Commit)
        return record


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: float(value) if value is not None and math.isfinite(value) else None
        for name, value in metrics.items()
    }


def _recordable(scores: Scores) -> Scores:
    return msgspec.structs.replace(
        scores,
        after=_finite(scores.after),
        before=_finite(scores.before),
        verdict=for_people(scores.verdict),
    )


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
