"""The delta: what is added, changed and removed in data against what a ledger has learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onward.data.items import DIGEST_BYTES, Digests, Items, contained, halves, locate
from onward.data.order import Indices
from onward.data.segments import CURRENT, SKIPPED, SUPERSEDED, WITHDRAWN, Statuses
from onward.errors import NothingNew


@dataclass(frozen=True, eq=False)
class Delta:
    """What is different in data, in the order of the dataset.

    `added`, `changed` and `known` are indices (int64) of its items; each item is in one of them.
    An item whose content was learned, under whatever key, is known: a rename or a copy is nothing.
    Else one whose key was learned is changed, and any other is added. `removed` are the digests
    (uint8 [r, 16]) of what was in the data and is gone; what only has another content now is
    `superseded` instead.
    """

    added: Indices
    changed: Indices
    known: Indices
    removed: Digests
    superseded: Digests
    places: Indices
    """For each entry of the ledger the index of its item, or -1; nothing for counted items."""
    statuses: Statuses
    """For each entry of the ledger what has become of it."""

    @property
    def new(self) -> Indices:
        """What there is to learn: added and changed items, in the order of the dataset."""
        return np.sort(np.concatenate([self.added, self.changed]))

    @property
    def empty(self) -> bool:
        """Whether the data is, item for item, what it was."""
        return not (len(self.added) or len(self.changed) or len(self.removed))

    def require_new(self) -> None:
        """Raises `NothingNew` where there is nothing to learn."""
        if not len(self.added) and not len(self.changed):
            raise nothing_new(f"all {len(self.known):,} items of the data are learned")


def compare(entries: Digests, statuses: Statuses, present: Items) -> Delta:
    """The delta of `present` against a ledger's entries, of which each has a status.

    About 0.5 s for a million of each.
    """
    assert present.digests is not None
    keyed = present.kind == "keyed"
    exact = locate(present.digests, entries)
    is_known = exact >= 0
    places = np.full(len(entries), -1, np.int64)
    places[exact[is_known]] = np.flatnonzero(is_known)
    lost = np.flatnonzero(places < 0)
    is_changed = np.zeros(present.count, np.bool_)
    has_key = np.zeros(len(lost), np.bool_)
    if keyed:
        rest = np.flatnonzero(~is_known)
        entry_keys, entry_contents = halves(entries)
        keys, contents = halves(present.digests)
        is_known[rest] = contained(contents[rest], entry_contents)
        is_changed[rest] = ~is_known[rest] & contained(keys[rest], entry_keys)
        places[lost] = places_by_content(entries[lost], present.digests)
        has_key = contained(entry_keys[lost], keys)
    became = np.full(len(entries), CURRENT, np.uint8)
    became[lost] = np.where(has_key, SUPERSEDED, WITHDRAWN)
    # What went in an earlier increment was reported then.
    became = np.where(statuses == CURRENT, became, statuses)
    became[places >= 0] = CURRENT
    went = (statuses == CURRENT) & (became != CURRENT)
    return Delta(
        added=np.flatnonzero(~is_known & ~is_changed),
        changed=np.flatnonzero(is_changed),
        known=np.flatnonzero(is_known),
        removed=entries[went & (became == WITHDRAWN)],
        superseded=entries[went & (became == SUPERSEDED)],
        places=places,
        statuses=became,
    )


def compare_counted(statuses: Statuses, count: int) -> Delta:
    """The delta of `count` items that only grow at their end, against as many as have a status."""
    is_known = np.zeros(count, np.bool_)
    is_known[: len(statuses)] = statuses != SKIPPED
    nothing = np.empty((0, DIGEST_BYTES), np.uint8)
    return Delta(
        added=np.flatnonzero(~is_known),
        changed=np.empty(0, np.int64),
        known=np.flatnonzero(is_known),
        removed=nothing,
        superseded=nothing,
        places=np.empty(0, np.int64),
        statuses=statuses,
    )


def find(wanted: Digests, present: Items) -> Indices:
    """For each digest the index of the item that it stands for in `present`, or -1.

    Of keyed items, one with another key but the same content will do.
    """
    assert present.digests is not None
    places = locate(wanted, present.digests)
    if present.kind == "keyed":
        lost = np.flatnonzero(places < 0)
        places[lost] = places_by_content(wanted[lost], present.digests)
    return places


def places_by_content(wanted: Digests, present: Digests) -> Indices:
    """For each keyed digest the index of an item with its content, or -1.

    Of several, the one whose key comes first: the same one wherever it is in the dataset.
    """
    if not len(wanted) or not len(present):
        return np.full(len(wanted), -1, np.int64)
    keys, contents = halves(present)
    _, sought = halves(wanted)
    candidates = np.flatnonzero(contained(contents, sought))
    if not len(candidates):
        return np.full(len(wanted), -1, np.int64)
    order = candidates[np.lexsort((keys[candidates], contents[candidates]))]
    found = contents[order]
    at = np.minimum(np.searchsorted(found, sought), len(found) - 1)
    return np.where(found[at] == sought, order[at], -1)


def nothing_new(why: str) -> NothingNew:
    """The error for an increment that would learn nothing."""
    return NothingNew(
        "nothing new to learn",
        why=why,
        do="add data and run the same command, or train again on the same with --continue",
    )
