"""How data differs from what a checkpoint has learned, found out before anything is trained.

Where the script's run told how it reads the data, items are compared with the ledger; else files
are, with those that the checkpoint was trained on. Of what is not on this machine yet, names and
sizes tell, and for the rest the answer is that only fetching does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from onward.data.delta import Delta
from onward.data.file_list import DATA_FILES, FileList
from onward.data.items import Items
from onward.data.provenance import described_ledgers, read_ledgers
from onward.data.snapshot import DataSnapshot
from onward.data.sources import open_as_read
from onward.errors import DataError, RepositoryError, StateError, UsageError
from onward.jobs.data import DataPlan, JobData
from onward.jobs.newness import has_left_items
from onward.learning.evidence import evidence_of
from onward.learning.holdouts import Holdouts
from onward.repository import Commit, Manifest, Repository

SHOWN = 5
"""So many names of each kind are told."""


@dataclass(frozen=True, slots=True)
class Difference:
    """`unit` is `items` or `files`, and what is counted. `unsure` are files that are at the store
    under a known name and size, and not here: only fetching them tells.

    `held_out` items are in holdouts, and are never learned. `new_bytes` is the size of files that
    are, or may be, new; 0 for items. `names` has the first few of what is `added`, `changed` and
    `removed`, where they have names.
    """

    unit: str
    added: int
    changed: int
    removed: int
    known: int
    unsure: int = 0
    held_out: int = 0
    new_bytes: int = 0
    names: dict[str, list[str]] = field(default_factory=dict)

    @property
    def new(self) -> int:
        """What there is, or may be, to learn."""
        return self.added + self.changed + self.unsure

    @property
    def is_known(self) -> bool:
        """Whether nothing is left to find out."""
        return not self.unsure


def difference(
    repository: Repository, commit: Commit, manifest: Manifest, data: JobData, *,
    todo: DataPlan, found: DataSnapshot | None, most_read_bytes: int | None = None,
) -> Difference | None:  # fmt: skip
    """Of `data` as it is now against what the checkpoint learned; None where nothing can tell.

    `found` is the data's snapshot, where it is here and was read. Items are read only if they are
    no more than `most_read_bytes`.
    """
    if not todo.fetched and not todo.removed:
        items = _by_items(repository, commit, manifest, data.path, most_read_bytes=most_read_bytes)
        if items is not None:
            return items
    before = FileList.read(manifest.about.get(DATA_FILES))
    if before is None or has_left_items(manifest):
        return None
    if found is not None:
        return _by_files(before, FileList.of(found))
    if data.is_local:
        return None
    return _by_listing(before, data, todo, most_read_bytes=most_read_bytes)


# Items.


def _by_items(
    repository: Repository, commit: Commit, manifest: Manifest, place: Path, *,
    most_read_bytes: int | None,
) -> Difference | None:  # fmt: skip
    told = manifest.about.get("data")
    if not isinstance(told, Mapping) or not described_ledgers(manifest):
        return None
    try:
        ledgers = read_ledgers(repository.store, manifest)
        held_out = HeldOut(repository, commit)
        parts = []
        for name, ledger in ledgers.items():
            facts = told.get(name)
            how = facts.get("read") if isinstance(facts, Mapping) else None
            source = open_as_read(how, place)
            if source is None:
                return None
            if most_read_bytes is not None and source.unread_bytes() > most_read_bytes:
                return None
            snapshot = source.snapshot()
            items = snapshot.identified
            delta, left_out = held_out.without(items, ledger.delta(items))
            names = {
                kind: [str(snapshot.names[index]) for index in which[:SHOWN].tolist()]
                for kind, which in (("added", delta.added), ("changed", delta.changed))
            }
            parts.append(
                Difference(
                    "items", len(delta.added), len(delta.changed), len(delta.removed),
                    len(delta.known), held_out=left_out, names=names,
                )
            )  # fmt: skip
    except (DataError, UsageError, StateError, RepositoryError):
        return None  # the script will say what is wrong; a plan goes without
    return _sum(parts)


def _sum(parts: Sequence[Difference]) -> Difference:
    return Difference(
        "items",
        added=sum(part.added for part in parts),
        changed=sum(part.changed for part in parts),
        removed=sum(part.removed for part in parts),
        known=sum(part.known for part in parts),
        held_out=sum(part.held_out for part in parts),
        names={
            kind: [name for part in parts for name in part.names[kind]][:SHOWN]
            for kind in ("added", "changed")
        },
    )


class HeldOut:
    """The items of the holdouts that a checkpoint knows: they are never learned."""

    def __init__(self, repository: Repository, commit: Commit) -> None:
        self._holdouts = Holdouts()
        for name, each in evidence_of(repository, commit).holdouts.items():
            self._holdouts.freeze(
                name, digests=each.digests, count=each.count, increment=each.increment,
                metric=each.metric, higher_is_better=each.higher_is_better,
                clusters=each.clusters, kind=each.kind,
            )  # fmt: skip

    def without(self, items: Items, delta: Delta) -> tuple[Delta, int]:
        """The delta without what is held out, and how many items that is."""
        if items.digests is None:
            return delta, 0
        held = self._holdouts.contains(items.digests)
        added, changed = (which[~held[which]] for which in (delta.added, delta.changed))
        left_out = len(delta.added) + len(delta.changed) - len(added) - len(changed)
        return replace(delta, added=added, changed=changed), left_out


# Files.


def _by_files(before: FileList, now: FileList) -> Difference:
    delta, removed = before.delta(now)
    sizes = now.sizes
    return Difference(
        "files", len(delta.added), len(delta.changed), len(removed), len(delta.known),
        new_bytes=sum(sizes[index] for index in delta.new.tolist()),
        names={
            "added": [now.names[index] for index in delta.added[:SHOWN].tolist()],
            "changed": [now.names[index] for index in delta.changed[:SHOWN].tolist()],
            "removed": sorted(removed)[:SHOWN],
        },
    )  # fmt: skip


def _by_listing(
    before: FileList, data: JobData, todo: DataPlan, *, most_read_bytes: int | None
) -> Difference:
    """What is at the store, of which some is not here."""
    sizes = before.by_name()
    contents = dict(zip(before.names, before.contents, strict=True))
    away = {entry.key for entry in todo.fetched}
    alike = [
        entry.key
        for entry in data.entries
        if sizes.get(entry.key) == entry.size_bytes and entry.key not in away
    ]
    here = data.contents(alike, most_read_bytes=most_read_bytes)
    added, changed, unsure, known, new_bytes = [], [], 0, 0, 0
    for entry in data.entries:
        name = entry.key
        if name not in sizes:
            added.append(name)
        elif sizes[name] != entry.size_bytes:
            changed.append(name)
        elif name not in here:
            unsure += 1
        elif here[name] != contents[name].tobytes():
            changed.append(name)
        else:
            known += 1
            continue
        new_bytes += entry.size_bytes
    removed = sorted(sizes.keys() - {entry.key for entry in data.entries})
    return Difference(
        "files", len(added), len(changed), len(removed), known, unsure=unsure,
        new_bytes=new_bytes,
        names={"added": added[:SHOWN], "changed": changed[:SHOWN], "removed": removed[:SHOWN]},
    )  # fmt: skip
