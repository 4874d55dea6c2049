"""Collection: forgetting checkpoints, then deleting what nobody may use any more.

Two phases. A `drop` record forgets checkpoints and condemns the packs that only they needed; from
then on no commit may name those. A sweep deletes what old enough records condemned: anybody may
sweep, at any time, as often as they like.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from onward.errors import Damaged, Missing, UnknownCheckpoint, UsageError
from onward.repository.documents import MAX_RECORD_BYTES
from onward.repository.history import History
from onward.repository.manifest import manifest_key
from onward.repository.packs import pack_key
from onward.repository.records import (
    AnyRecord,
    Commit,
    Drop,
    new_hex32,
    now,
    parse_record,
    record_key,
)
from onward.repository.retention import Retention, decide
from onward.stores.base import Store
from onward.stores.local import LocalStore

if TYPE_CHECKING:
    from onward.repository.repository import Repository

GRACE_S = 3600.0
_DROPPED_AT_ONCE = 1000  # so that a record's list of packs keeps within its length
_DOCUMENTS_AT_ONCE = 16


def usual_grace_s(store: Store) -> float:
    """How long condemned bytes stay for whoever is reading them.

    Readers of local files hold them open, and lose nothing. On an object store they hold nothing.
    """
    return 0.0 if isinstance(store, LocalStore) else GRACE_S


@dataclass(frozen=True, slots=True)
class Swept:
    """Bytes of packs that a sweep deleted, and of those that are condemned but stay for readers."""

    freed_bytes: int = 0
    waiting_bytes: int = 0


class Reach:
    """The packs that checkpoints need, with their sizes. Each manifest is read once.

    What a damaged manifest reaches is not known: asking for it raises `Damaged`, unless the
    checkpoint is among those that may be `unreadable`: then it reaches nothing.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._packs: dict[str, dict[str, int]] = {}

    def of(
        self, commits: Iterable[Commit], *, unreadable: Collection[str] = ()
    ) -> dict[str, dict[str, int]]:
        """Checkpoint id → pack → size in bytes."""
        history = self._repository.history
        names = {c.checkpoint: history.manifest_place(c).name for c in commits}
        unread = [id_ for id_, name in names.items() if name not in self._packs]

        def packs(id_: str) -> dict[str, int]:
            try:
                manifest = self._repository.manifest(history.commits[id_])
            except Damaged:
                if id_ in unreadable:
                    return {}
                raise
            return {pack: ref.size for pack, ref in manifest.packs.items()}

        with ThreadPoolExecutor(_DOCUMENTS_AT_ONCE) as pool:
            for id_, found in zip(unread, pool.map(packs, unread), strict=True):
                self._packs[names[id_]] = found
        return {id_: self._packs[name] for id_, name in names.items()}

    def only(self, history: History, wanted: Collection[str]) -> dict[str, int]:
        """The packs that only these live checkpoints need."""
        gone = set(wanted)
        packs_of = self.of(history.live(), unreadable=gone)
        own = {pack: size for id_ in wanted for pack, size in packs_of[id_].items()}
        for id_, packs in packs_of.items():
            if id_ not in gone:
                for pack in packs:
                    own.pop(pack, None)
        return own

    def forget(self, history: History) -> None:
        """Lets go of what was read of checkpoints that are gone."""
        live = {history.manifest_place(commit).name for commit in history.live()}
        self._packs = {name: packs for name, packs in self._packs.items() if name in live}


class Collector:
    """Drops and sweeps in one repository.

    `claimed_generation` is for who collects under a claim: a higher claim ends that with `Fenced`.
    """

    def __init__(self, repository: Repository, *, claimed_generation: int | None = None) -> None:
        self.repository = repository
        self.reach = Reach(repository)
        self._generation = claimed_generation
        self._times_s: dict[int, float | None] = {}

    def drop(self, checkpoints: Iterable[str]) -> list[str]:
        """Forgets checkpoints; deletes nothing yet.

        Raises `UsageError` if an alias or a pin protects one of them, or one is the newest. Very
        many are dropped by several records: cut off between two, some are gone and the others are
        whole.
        """
        wanted = list(dict.fromkeys(checkpoints))
        check_droppable(self.repository.refresh(), wanted)
        for start in range(0, len(wanted), _DROPPED_AT_ONCE):
            some = wanted[start : start + _DROPPED_AT_ONCE]

            def chosen(history: History, some: list[str] = some) -> list[str]:
                check_droppable(history, some)
                return some

            self._drop(chosen)
        return wanted

    def prune(self, retention: Retention) -> list[str]:
        """Forgets what the rules do not keep, and returns their ids; deletes nothing yet.

        What is named, pinned or saved meanwhile is taken into account: the decision is made anew
        from the very history that the record follows.
        """
        dropped: list[str] = []

        def chosen(history: History) -> list[str]:
            goes = decide(history, retention).goes[:_DROPPED_AT_ONCE]
            if not goes:
                raise _NothingGoes
            return goes

        self.repository.refresh()
        while decide(self.repository.history, retention).goes:
            try:
                dropped += self._drop(chosen).checkpoints
            except _NothingGoes:
                break
        return dropped

    def sweep(self, *, grace_s: float, now_s: float) -> Swept:
        """Deletes what records condemned that are at least `grace_s` old; `now_s` since 1970.

        Cut off anywhere, the next sweep deletes the rest. A record whose age cannot be told
        condemns only for `grace_s` 0.
        """
        return self._sweep(self.repository.store.delete, grace_s, now_s)

    def due(self, *, grace_s: float, now_s: float) -> Swept:
        """What a sweep would delete; deletes nothing."""
        return self._sweep(lambda key: None, grace_s, now_s)

    def _sweep(self, delete: Callable[[str], None], grace_s: float, now_s: float) -> Swept:
        freed = waiting = 0
        for key, size_bytes, seq in self._condemned(self.repository.refresh()):
            is_pack = key.startswith("onward/packs/")
            if self._is_due(seq, grace_s, now_s):
                delete(key)
                freed += size_bytes * is_pack
            else:
                waiting += size_bytes * is_pack
        return Swept(freed, waiting)

    def _drop(self, chosen: Callable[[History], list[str]]) -> Drop:
        record_id, writer = new_hex32(), new_hex32()

        def build(history: History) -> AnyRecord:
            wanted = chosen(history)
            return Drop(
                seq=history.seq + 1, record=record_id, writer=writer,
                generation=history.generation, time=now(), prev=history.head_digest,
                checkpoints=wanted, packs=sorted(self.reach.only(history, wanted)),
            )  # fmt: skip

        while True:
            try:
                record = self.repository.append(build, claimed_generation=self._generation)
            except Damaged:
                # Perhaps only dropped or moved by somebody else while its manifest was to be read.
                if not self.repository.log.refresh():
                    raise
            else:
                assert isinstance(record, Drop)
                self.reach.forget(self.repository.history)
                return record

    def _condemned(self, history: History) -> list[tuple[str, int, int]]:
        """What is stored and condemned: key, size in bytes, and the record that says so."""
        if not history.condemned_at and not history.outdated_at:
            return []
        return [
            (entry.key, entry.size_bytes, seq)
            for folder, at, key in (
                ("onward/packs/", history.condemned_at, pack_key),
                ("onward/manifests/", history.outdated_at, manifest_key),
            )
            for entry in self.repository.store.list(folder)
            if (seq := at.get(stem(entry.key))) is not None and key(stem(entry.key)) == entry.key
        ]

    def _is_due(self, seq: int, grace_s: float, now_s: float) -> bool:
        if grace_s <= 0:
            return True
        if seq not in self._times_s:
            self._times_s[seq] = _time_s(self.repository.store, seq)
        time_s = self._times_s[seq]
        return time_s is not None and now_s - time_s >= grace_s


def check_droppable(history: History, wanted: list[str]) -> None:
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
        if id_ in history.pins:
            raise UsageError(f"checkpoint {id_} is pinned", do="`onward unpin` it first")
    latest = history.latest()
    if latest is not None and latest.checkpoint in wanted:
        raise UsageError(
            f"checkpoint {latest.checkpoint} is the newest",
            why="training goes on from it",
            do="drop older ones",
        )


def stem(key: str) -> str:
    """The name of a pack or a manifest in its key."""
    return key.rpartition("/")[2].partition(".")[0]


def _time_s(store: Store, seq: int) -> float | None:
    """When a record was made, in seconds since 1970; None where that cannot be told."""
    try:
        data = store.read(record_key(seq), 0, MAX_RECORD_BYTES + 1)
    except Missing:
        return None  # the log of a working copy begins later
    try:
        made = datetime.fromisoformat(parse_record(data, seq).time)
    except ValueError:
        return None
    return made.timestamp() if made.tzinfo is not None else None


class _NothingGoes(Exception):
    """Meanwhile somebody dropped, named or pinned everything that was to go."""
