"""One output's repository: open it, look at it, claim it, move its names."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial

from onward import _version
from onward.errors import (
    Damaged,
    Missing,
    NewerFormat,
    NotAnOutput,
    UnsafeStore,
    UsageError,
)
from onward.repository.collecting import Collector
from onward.repository.documents import MAX_MANIFEST_BYTES, digest_of
from onward.repository.history import History, checked_new_alias, checked_new_pin
from onward.repository.log import Build, Log
from onward.repository.manifest import Manifest, manifest_key, parse_manifest
from onward.repository.packs import pack_key
from onward.repository.records import (
    NO_DIGEST,
    Alias,
    AnyRecord,
    Claim,
    Commit,
    Open,
    for_people,
    new_hex32,
    now,
    pin_name,
)
from onward.repository.writer import Writer
from onward.stores import honours_create
from onward.stores.base import Store


class Repository:
    """The repository at a store. Make one with `open_repository` or `open_or_create`.

    `exclusive` says whether the store honours create-if-absent; with None that is found out before
    the first record is appended.
    """

    def __init__(self, store: Store, *, exclusive: bool | None = True) -> None:
        self.store = store
        self.log = Log(store, exclusive=exclusive is not False)
        self._tested = exclusive is not None

    @property
    def history(self) -> History:
        return self.log.history

    def refresh(self) -> History:
        """Reads what was appended since the last look."""
        self.log.refresh()
        return self.history

    def manifest(self, commit: Commit) -> Manifest:
        """The verified manifest of a checkpoint. Raises `Damaged` or `NewerFormat`."""
        place = self.history.manifest_place(commit)
        what = f"manifest {place.name} at {self.store.url}"
        try:
            data = self.store.read(
                manifest_key(place.name), 0, min(place.size, MAX_MANIFEST_BYTES) + 1
            )
        except Missing as error:
            raise Damaged(f"{what} is missing", do="run `onward verify`") from error
        if len(data) != place.size or digest_of(data) != place.digest:
            raise Damaged(
                f"{what} is damaged",
                why="its bytes are not those that its log record names",
                do="run `onward verify` to see which checkpoints are intact",
            )
        manifest = parse_manifest(data, commit.checkpoint)
        if _facts(manifest) != _facts(commit) or manifest.repository != self.history.repository:
            raise Damaged(f"{what} is damaged", why="it contradicts its log record")
        return manifest

    def damage(self, commit: Commit) -> str:
        """Why this checkpoint cannot be restored, or ''. Looks at its manifest and at lengths."""
        return self.looked_over(commit)[1]

    def looked_over(self, commit: Commit) -> tuple[Manifest | None, str]:
        """The manifest of a checkpoint, and why it cannot be restored, or ''; as `damage` looks."""
        try:
            manifest = self.manifest(commit)
            for pack, ref in manifest.packs.items():
                try:
                    size = self.store.size(pack_key(pack))
                except Missing:
                    return None, f"pack {pack} is missing"
                if size != ref.size:
                    return None, f"pack {pack} has {size:,} of {ref.size:,} bytes"
        except (Damaged, NewerFormat) as error:
            return None, error.what + (f": {error.why}" if error.why else "")
        return manifest, ""

    def claim(self, who: str, *, generation: int | None = None, writer: str = "") -> Writer:
        """Takes over as the one writer; every earlier writer is fenced from here on.

        With `generation` and `writer`, goes on under a claim that was already appended for this
        process (by the agent that started it) instead of making one.
        """
        if generation is not None:
            self.refresh()
            if (self.history.generation, self.history.writer) != (generation, writer):
                self.log.check_fence(generation)
                raise UsageError(
                    f"there is no claim {writer}:{generation} at {self.store.url}",
                    do="start the script through `onward run`, or without ONWARD_CLAIM",
                )
            return Writer(self.store, self.log, writer=writer, generation=generation)
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            return Claim(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation + 1, time=now(), prev=history.head_digest,
                who=for_people(who),
            )  # fmt: skip

        appended = self.append(build)
        return Writer(self.store, self.log, writer=writer, generation=appended.generation)

    def set_alias(self, name: str, checkpoint: str | None) -> None:
        """Points `name` to a checkpoint id, or removes it (`None`)."""

        def check(history: History) -> None:
            checked_new_alias(history, name, checkpoint)

        self._set_name(name, checkpoint, check)

    def _set_name(
        self, name: str, checkpoint: str | None, check: Callable[[History], None]
    ) -> None:
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            check(history)
            return Alias(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation, time=now(), prev=history.head_digest,
                name=name, checkpoint=checkpoint,
            )  # fmt: skip

        self.append(build)

    def pin(self, checkpoint: str) -> None:
        """Protects a checkpoint id from every drop, without giving it a name."""
        self._set_name(
            pin_name(checkpoint), checkpoint, partial(checked_new_pin, checkpoint, pinned=True)
        )

    def unpin(self, checkpoint: str) -> None:
        """Takes the pin away."""
        self._set_name(
            pin_name(checkpoint), None, partial(checked_new_pin, checkpoint, pinned=False)
        )

    def drop(self, checkpoints: Iterable[str], *, grace_s: float = 0.0) -> int:
        """Forgets checkpoints and deletes what only they needed; returns the bytes freed.

        Raises `UsageError` if an alias or a pin protects one of them, or one is the newest. With
        `grace_s`, bytes condemned less than so long ago stay for a later sweep.
        """
        collector = Collector(self)
        collector.drop(checkpoints)
        return collector.sweep(grace_s=grace_s, now_s=time.time()).freed_bytes

    def append(self, build: Build, *, claimed_generation: int | None = None) -> AnyRecord:
        """Appends a record as `Log.append` does, once the store is known to keep two apart."""
        if not self._tested and not honours_create(self.store):
            raise _unsafe(self.store)
        self._tested = True
        return self.log.append(build, claimed_generation=claimed_generation)


def exists(store: Store) -> bool:
    """Whether an output's log begins at this store."""
    log = Log(store)
    try:
        log.load()
    except NotAnOutput:
        return False
    return True


def open_repository(store: Store) -> Repository:
    """The repository at `store`, to look at or to move names in. Raises `NotAnOutput`."""
    repository = Repository(store, exclusive=None)
    repository.log.load()
    return repository


def open_or_create(store: Store, *, single_writer: bool = False) -> Repository:
    """The repository at `store` for writing; an empty place becomes an output.

    Probes whether the store keeps two writers apart; where it does not, raises `UnsafeStore`
    unless the user promises to be the only one (`single_writer`).
    """
    exclusive = honours_create(store)
    if not exclusive and not single_writer:
        raise _unsafe(store)
    repository = Repository(store, exclusive=exclusive)
    try:
        repository.log.load()
    except NotAnOutput:
        _create(repository)
    return repository


def _create(repository: Repository) -> None:
    record_id, writer, own_id = new_hex32(), new_hex32(), new_hex32()

    def build(history: History) -> AnyRecord:
        if history.seq >= 0:
            raise _MadeMeanwhile
        return Open(
            seq=0, record=record_id, writer=writer, generation=0, time=now(), prev=NO_DIGEST,
            repository=own_id, made_by=f"onward {_version.__version__}",
        )  # fmt: skip

    try:
        repository.log.append(build, claimed_generation=None)
    except _MadeMeanwhile:
        return


def _unsafe(store: Store) -> UnsafeStore:
    return UnsafeStore(
        f"{store.url} does not honour create-if-absent",
        why="it cannot keep two writers apart, so one could destroy the other's checkpoints",
        do="promise that nothing else writes there with --single-writer "
        "(single_writer=True), or use a store that honours conditional writes",
    )


def _facts(document: Manifest | Commit) -> tuple[object, ...]:
    return (
        document.checkpoint, document.step, document.epoch, document.increment, document.parent,
        document.finished,
    )  # fmt: skip


class _MadeMeanwhile(Exception):
    """Another process created the repository between the look and the append: as good as ours."""
