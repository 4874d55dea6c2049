"""One output's repository: open it, look at it, claim it, move its names."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor

from onward import _version
from onward.errors import (
    Damaged,
    Missing,
    NewerFormat,
    NotAnOutput,
    UnknownCheckpoint,
    UnsafeStore,
    UsageError,
)
from onward.repository.documents import MAX_MANIFEST_BYTES, digest_of
from onward.repository.history import History, checked_new_alias
from onward.repository.log import Build, Log
from onward.repository.manifest import Manifest, manifest_key, parse_manifest
from onward.repository.packs import pack_key
from onward.repository.records import (
    NO_DIGEST,
    Alias,
    AnyRecord,
    Claim,
    Commit,
    Drop,
    Open,
    for_people,
    new_hex32,
    now,
)
from onward.repository.writer import Writer
from onward.stores import honours_create
from onward.stores.base import Store

_DOCUMENTS_AT_ONCE = 16
_DROPPED_AT_ONCE = 1000  # so that a record's list of packs keeps within its length


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
        key = manifest_key(commit.checkpoint)
        what = f"manifest {commit.checkpoint} at {self.store.url}"
        try:
            data = self.store.read(key, 0, min(commit.manifest.size, MAX_MANIFEST_BYTES) + 1)
        except Missing as error:
            raise Damaged(f"{what} is missing", do="run `onward verify`") from error
        if len(data) != commit.manifest.size or digest_of(data) != commit.manifest.digest:
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
        try:
            manifest = self.manifest(commit)
            for pack, ref in manifest.packs.items():
                try:
                    size = self.store.size(pack_key(pack))
                except Missing:
                    return f"pack {pack} is missing"
                if size != ref.size:
                    return f"pack {pack} has {size:,} of {ref.size:,} bytes"
        except (Damaged, NewerFormat) as error:
            return error.what + (f": {error.why}" if error.why else "")
        return ""

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

        appended = self._append(build)
        return Writer(self.store, self.log, writer=writer, generation=appended.generation)

    def set_alias(self, name: str, checkpoint: str | None) -> None:
        """Points `name` to a checkpoint id, or removes it (`None`)."""
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            checked_new_alias(history, name, checkpoint)
            return Alias(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation, time=now(), prev=history.head_digest,
                name=name, checkpoint=checkpoint,
            )  # fmt: skip

        self._append(build)

    def drop(self, checkpoints: Iterable[str]) -> int:
        """Forgets checkpoints and deletes what only they needed; returns the bytes freed.

        Raises `UsageError` if an alias points to one of them, or one is the newest. Very many are
        dropped by several records: cut off between two, some are gone and the others are whole.
        """
        wanted = list(dict.fromkeys(checkpoints))
        self.check_droppable(self.refresh(), wanted)
        packs_of: dict[str, frozenset[str]] = {}
        return sum(
            self._drop(wanted[start : start + _DROPPED_AT_ONCE], packs_of)
            for start in range(0, len(wanted), _DROPPED_AT_ONCE)
        )

    def _drop(self, wanted: list[str], packs_of: dict[str, frozenset[str]]) -> int:
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            self.check_droppable(history, wanted)
            self._read_packs(history.live(), packs_of, unreadable=wanted)
            kept = {commit.checkpoint for commit in history.live()}.difference(wanted)
            reached = frozenset[str]().union(*(packs_of[id_] for id_ in kept))
            condemned = frozenset[str]().union(*(packs_of[id_] for id_ in wanted))
            return Drop(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation, time=now(), prev=history.head_digest,
                checkpoints=wanted, packs=sorted(condemned - reached),
            )  # fmt: skip

        while True:
            try:
                record = self._append(build)
            except Damaged:
                # Perhaps only dropped by somebody else while its manifest was to be read.
                if not self.log.refresh():
                    raise
            else:
                assert isinstance(record, Drop)
                return self.delete_dropped(record)

    def _read_packs(
        self,
        commits: list[Commit],
        packs_of: dict[str, frozenset[str]],
        *,
        unreadable: Collection[str],
    ) -> None:
        """Adds the packs of each checkpoint; none for those that may be `unreadable` and are.

        What a damaged manifest reaches is not known. If its checkpoint stays, nothing can be
        dropped; if it goes, its packs are not deleted but become leftovers that `verify` lists.
        """

        def packs(commit: Commit) -> frozenset[str]:
            try:
                return frozenset(self.manifest(commit).packs)
            except Damaged:
                if commit.checkpoint in unreadable:
                    return frozenset()
                raise

        new = [commit for commit in commits if commit.checkpoint not in packs_of]
        with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE) as pool:
            for commit, found in zip(new, pool.map(packs, new), strict=True):
                packs_of[commit.checkpoint] = found

    def _append(self, build: Build) -> AnyRecord:
        if not self._tested and not honours_create(self.store):
            raise _unsafe(self.store)
        self._tested = True
        return self.log.append(build, claimed_generation=None)

    def delete_dropped(self, record: Drop) -> int:
        """Deletes what a drop condemned. May be repeated at any time, by anyone."""
        freed = 0
        for pack in record.packs:
            try:
                freed += self.store.size(pack_key(pack))
            except Missing:
                continue
            self.store.delete(pack_key(pack))
        for id_ in record.checkpoints:
            self.store.delete(manifest_key(id_))
        return freed

    def check_droppable(self, history: History, wanted: list[str]) -> None:
        """Raises `UsageError` or `UnknownCheckpoint` if one of these may not be dropped."""
        for id_ in wanted:
            if id_ not in history.commits or id_ in history.dropped:
                raise UnknownCheckpoint(f"there is no checkpoint {id_!r}")
            names = history.names_of(id_)
            if names:
                raise UsageError(
                    f"checkpoint {id_} is called {', '.join(names)}",
                    do="move or remove the alias first",
                )
        latest = history.latest()
        if latest is not None and latest.checkpoint in wanted:
            raise UsageError(
                f"checkpoint {latest.checkpoint} is the newest",
                why="training goes on from it",
                do="drop older ones",
            )


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
