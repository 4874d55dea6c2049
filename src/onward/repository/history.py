"""The folded log: which checkpoints, names and writers there are. Pure; no input or output."""

from __future__ import annotations

import re
from collections.abc import Iterator, KeysView
from dataclasses import dataclass, field

from onward.errors import Damaged, UnknownCheckpoint, UsageError
from onward.repository.records import (
    NO_DIGEST,
    Alias,
    AnyRecord,
    Audit,
    Claim,
    Commit,
    Drop,
    ManifestPlace,
    Open,
    Repack,
    checked_alias,
    may_be_alias,
    pin_name,
)

_VERSION = re.compile(r"v([1-9][0-9]*)")
_PREFIX = re.compile(r"[0-9a-f]{4,16}")


@dataclass(slots=True)
class History:
    """The state after folding the records up to `seq` (docs/format.md §2.1)."""

    repository: str = ""
    seq: int = -1
    head_digest: str = NO_DIGEST
    generation: int = 0
    writer: str = ""
    who: str = ""
    commits: dict[str, Commit] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    pins: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)
    # Where a repack put manifests; the others are called like their checkpoint.
    moved: dict[str, ManifestPlace] = field(default_factory=dict)
    # Full retrains that were trained beside checkpoints, in the order of the log.
    audits: dict[str, list[Audit]] = field(default_factory=dict)
    # What nobody may use any more, and since which record: packs, and names of manifests.
    condemned_at: dict[str, int] = field(default_factory=dict)
    outdated_at: dict[str, int] = field(default_factory=dict)

    @property
    def condemned(self) -> KeysView[str]:
        """The packs that no checkpoint may use any more."""
        return self.condemned_at.keys()

    def check(self, record: AnyRecord) -> None:
        """Raises `Damaged` with the reason if `record` may not follow this history."""
        reason = self._objection(record)
        if reason:
            raise Damaged(f"log record {record.seq} ({type(record).__name__.lower()})", why=reason)

    def apply(self, record: AnyRecord, digest: str) -> None:
        """Folds in the next record, whose bytes have `digest`."""
        self.check(record)
        match record:
            case Open():
                self.repository = record.repository
            case Claim():
                self.generation = record.generation
                self.writer = record.writer
                self.who = record.who
            case Commit():
                self.commits[record.checkpoint] = record
            case Alias():
                self._name(record.name, record.checkpoint)
            case Drop():
                for id_ in record.checkpoints:
                    self.outdated_at[self.manifest_place(self.commits[id_]).name] = record.seq
                self.dropped.update(record.checkpoints)
                self._condemn(record.packs, record.seq)
            case Repack():
                for id_, place in record.manifests.items():
                    self.outdated_at[self.manifest_place(self.commits[id_]).name] = record.seq
                    self.moved[id_] = place
                self._condemn(record.packs, record.seq)
            case Audit():
                self.audits.setdefault(record.checkpoint, []).append(record)
        self.seq = record.seq
        self.head_digest = digest

    def _name(self, name: str, target: str | None) -> None:
        self.aliases.pop(name, None)
        self.pins = {id_ for id_ in self.pins if pin_name(id_) != name}
        if target is not None and name == pin_name(target):
            self.pins.add(target)
        elif target is not None:
            self.aliases[name] = target

    def _condemn(self, packs: list[str], seq: int) -> None:
        for pack in packs:
            self.condemned_at.setdefault(pack, seq)

    def _objection(self, record: AnyRecord) -> str:
        if record.seq != self.seq + 1:
            return f"it follows record {self.seq}"
        if record.prev != self.head_digest:
            return "it does not name the digest of its predecessor"
        if isinstance(record, Open) != (record.seq == 0):
            return "only record 0 opens a repository"
        if record.generation != self.generation + isinstance(record, Claim):
            return f"generation {record.generation} follows {self.generation}"
        match record:
            case Commit():
                if record.writer != self.writer:
                    return "its writer had not claimed the output"
                if record.checkpoint in self.commits:
                    return f"checkpoint {record.checkpoint} exists already"
                if record.parent is not None and record.parent not in self.commits:
                    return f"its parent {record.parent} is unknown"
            case Alias(checkpoint=target):
                if not may_be_alias(record.name):
                    return f"{record.name[:100]!r} cannot be an alias"
                if target is not None and (target not in self.commits or target in self.dropped):
                    return f"checkpoint {target} is unknown or dropped"
            case Drop():
                gone = [
                    id_ for id_ in record.checkpoints
                    if id_ not in self.commits or id_ in self.dropped
                ]  # fmt: skip
                if gone:
                    return f"checkpoint {gone[0]} is unknown or dropped already"
                dropped = set(record.checkpoints)
                named = [n for n, id_ in self.aliases.items() if id_ in dropped]
                if named:
                    return f"alias {named[0]!r} points to a checkpoint it drops"
                pinned = sorted(self.pins & dropped)
                if pinned:
                    return f"checkpoint {pinned[0]}, which it drops, is pinned"
            case Repack():
                return self._repack_objection(record)
            case Audit():
                # A checkpoint that was dropped while its audit ran is known all the same.
                if record.checkpoint not in self.commits:
                    return f"checkpoint {record.checkpoint} is unknown"
        return ""

    def _repack_objection(self, record: Repack) -> str:
        for id_, place in record.manifests.items():
            if id_ not in self.commits or id_ in self.dropped:
                return f"checkpoint {id_} is unknown or dropped"
            if not place.name.startswith(f"{id_}-"):
                return f"{place.name} is no name for another manifest of {id_}"
            if (
                place.name in self.outdated_at
                or place.name == self.manifest_place(self.commits[id_]).name
            ):
                return f"the name {place.name} was used before"
        return ""

    # Names.

    def live(self) -> list[Commit]:
        """The checkpoints that exist, oldest first."""
        return [c for id_, c in self.commits.items() if id_ not in self.dropped]

    def newest_first(self) -> Iterator[Commit]:
        """The checkpoints that exist, newest first, by their place in the log and nothing else."""
        return (c for id_, c in reversed(self.commits.items()) if id_ not in self.dropped)

    def latest(self) -> Commit | None:
        return next(self.newest_first(), None)

    def versions(self) -> dict[str, int]:
        """Checkpoint id → N of its `vN`."""
        return {id_: number for number, id_ in enumerate(self.commits, start=1)}

    def best(self, metric: str, *, lowest: bool) -> Commit | None:
        """The checkpoint with the best value of `metric`; the newer one of equals."""
        having = [(c.metrics.get(metric), c) for c in self.live()]
        scored = [(v, c) for v, c in having if v is not None and v == v]  # not a number is no best
        if not scored:
            return None
        value = (min if lowest else max)(value for value, _ in scored)
        return next(c for v, c in reversed(scored) if v == value)

    def manifest_place(self, commit: Commit) -> ManifestPlace:
        """Under which name a checkpoint's manifest is, and what it must contain."""
        place = self.moved.get(commit.checkpoint)
        if place is not None:
            return place
        return ManifestPlace(commit.checkpoint, commit.manifest.digest, commit.manifest.size)

    def names_of(self, checkpoint: str) -> list[str]:
        """The aliases that point to a checkpoint."""
        return sorted(name for name, id_ in self.aliases.items() if id_ == checkpoint)

    def resolve(self, name: str, *, metric: str = "", lowest: bool = False) -> Commit:
        """The checkpoint called `name`: alias, `latest`, `best`, `vN`, id or its first ≥ 4 digits.

        Raises `UnknownCheckpoint`, saying which names there are.
        """
        found: Commit | None = None
        ids: list[str] = []
        if name == "latest":
            found = self.latest()
        elif name == "best":
            found = self.best(metric, lowest=lowest) if metric else None
        elif name in self.aliases:
            ids = [self.aliases[name]]
        elif match := _VERSION.fullmatch(name):
            position = int(match[1]) - 1 if len(match[1]) < 16 else len(self.commits)
            ids = list(self.commits)[position : position + 1]
        elif _PREFIX.fullmatch(name):
            ids = [id_ for id_ in self.commits if id_.startswith(name)]
            ids = [id_ for id_ in ids if id_ not in self.dropped] or ids
        if len(ids) > 1:
            raise UnknownCheckpoint(
                f"{name!r} is the beginning of {len(ids)} checkpoint ids", do="give more digits"
            )
        if ids:
            found = self.commits[ids[0]]
            if found.checkpoint in self.dropped:
                raise UnknownCheckpoint(
                    f"checkpoint {found.checkpoint} was dropped",
                    do="choose one that `onward log` lists",
                )
        if found is None:
            raise UnknownCheckpoint(f"there is no checkpoint {name!r}", do=self._known_names(name))
        return found

    def _known_names(self, name: str) -> str:
        latest = self.latest()
        if latest is None:
            return "train first: this output holds no checkpoint yet"
        if name == "best":
            return "name the metric that decides, one that the checkpoints carry"
        choices = ["latest", f"v{len(self.commits)}", latest.checkpoint, *sorted(self.aliases)]
        return f"use one that `onward log` lists, such as {', '.join(choices[:6])}"


def checked_new_pin(checkpoint: str, history: History, *, pinned: bool) -> None:
    """Raises `UsageError` or `UnknownCheckpoint` if a pin may not be set or taken away so."""
    if checkpoint not in history.commits or checkpoint in history.dropped:
        raise UnknownCheckpoint(f"there is no checkpoint {checkpoint!r}")
    if not pinned and checkpoint not in history.pins:
        raise UsageError(f"checkpoint {checkpoint} is not pinned")


def checked_new_alias(history: History, name: str, checkpoint: str | None) -> None:
    """Raises `UsageError` or `UnknownCheckpoint` if `name` may not be moved so."""
    checked_alias(name)
    if checkpoint is None:
        if name not in history.aliases:
            raise UnknownCheckpoint(f"there is no alias {name!r}")
    elif checkpoint not in history.commits or checkpoint in history.dropped:
        raise UnknownCheckpoint(f"there is no checkpoint {checkpoint!r}")
