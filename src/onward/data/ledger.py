"""The ledger: the items that a checkpoint has learned from, whatever became of them since.

An *entry* stands for one learned item, or one version of it where keyed items change. Entries are
only ever added, 16 bytes each (none for counted items, which are known by their number), in
segments of which almost none is written again (`segments.py`). What is no longer in the data is
marked, so that it is reported as removed once, and is known again should it come back.

An unfinished increment is *pinned*: it goes on with the items it began with, in the same order,
however the data has grown meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from onward.data.delta import Delta, compare, compare_counted, nothing_new
from onward.data.items import DIGEST_BYTES, Digests, Items, Kind, contained, halves, locate
from onward.data.ledger_state import LedgerState, Numbers, Pin, read_state_dict, write_state_dict
from onward.data.order import Indices
from onward.data.pinned import (
    Changes,
    Flags,
    Pinned,
    check_eligible,
    find_pinned,
    first_of_each,
    met_among,
)
from onward.data.segments import (
    CURRENT,
    SKIPPED,
    WITHDRAWN,
    Statuses,
    appended,
    marks_of,
    merge_marks,
    statuses_of,
)
from onward.errors import DataChanged, DataError

__all__ = ["Changes", "Delta", "Ledger", "Pinned"]

_KINDS: dict[Kind, tuple[str, str]] = {
    "counted": ("counted", "without ids="),
    "identified": ("known by id", "with ids="),
    "keyed": ("known by key and content", "with a key for each item"),
}


class Ledger:
    """Remembers which items are known, and which the unfinished increment is about.

    >>> ledger = Ledger()
    >>> ledger.pin(Items.counted(3)).added.tolist()
    [0, 1, 2]
    >>> ledger.learn_pinned()
    >>> ledger.new_items(Items.counted(5)).tolist()
    [3, 4]
    """

    def __init__(self) -> None:
        self._state = LedgerState()
        self._statuses_now: Statuses | None = None
        self._digests_now: Digests | None = None

    # What it knows.

    @property
    def known(self) -> int:
        """How many items, versions of one counted each, finished increments have learned from."""
        state = self._state
        skipped = np.count_nonzero(self._statuses == SKIPPED) if state.kind == "counted" else 0
        return state.entries - int(skipped)

    @property
    def pinned(self) -> int | None:
        """How many items the unfinished increment is to learn; `None` between increments."""
        return None if self._state.pin is None else self._state.pin.count

    @property
    def changes(self) -> Changes | None:
        """How the data had changed when the unfinished increment began."""
        return None if self._state.pin is None else self._state.pin.changes

    @property
    def withdrawn(self) -> int:
        """How many known items are gone from the data, as of the last increment."""
        return int(np.count_nonzero(self._statuses == WITHDRAWN))

    @property
    def extent(self) -> int:
        """Of counted items, the number from which on all are neither learned nor being learned."""
        state = self._state
        return state.entries if state.pin is None else max(state.entries, state.pin.total)

    @property
    def kind(self) -> Kind | None:
        """How the items are known; `None` before the first."""
        return self._state.kind

    def withdrawn_items(self) -> Items:
        """The known items that are gone from the data, as of the last increment."""
        return Items.counted(0) if self.kind == "counted" else self._with_status(WITHDRAWN)

    def current_items(self) -> Items:
        """The known items that were in the data when the last increment began."""
        if self.kind == "counted":
            return Items.counted(self._state.entries)
        return self._with_status(CURRENT)

    def learned(self, items: Items) -> Flags:
        """For each item whether finished increments have learned from it, in the data or not.

        Keyed items count by their content, whatever their key.
        """
        state = self._state
        if self._refers_to_nothing(items):
            return np.zeros(items.count, np.bool_)
        if items.digests is None:
            flags = np.zeros(max(items.count, state.entries), np.bool_)
            flags[: state.entries] = self._statuses != SKIPPED
            return flags[: items.count]
        return among(items, self._digests[: state.entries])

    def learning(self, items: Items) -> Flags:
        """For each item whether the unfinished increment is about it."""
        state = self._state
        flags = np.zeros(items.count, np.bool_)
        if self._refers_to_nothing(items) or state.pin is None:
            return flags
        if items.digests is None:
            rows = self._pinned_rows(state.pin)
            flags[rows[rows < items.count]] = True
            return flags
        return among(items, self._digests[state.entries :])

    def seen(self, items: Items) -> Flags:
        """For each item whether this model has, or may have, learned from it.

        Those of an unfinished increment count: some of them were met. `learned` and `learning`
        tell the two apart.
        """
        return self.learned(items) | self.learning(items)

    def seen_keys(self, keys: Digests) -> tuple[Flags, Flags]:
        """For each key, uint8 [n, 16], whether some content under it is learned, and being learned.

        The first 8 bytes of each count. There are no keys in ledgers of other kinds.
        """
        if self._state.kind != "keyed":
            return np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.bool_)
        sought, known = halves(keys)[0], halves(self._digests)[0]
        entries = self._state.entries
        return contained(sought, known[:entries]), contained(sought, known[entries:])

    # What is new.

    def delta(self, present: Items) -> Delta:
        """What is added, changed and removed in `present` against all that is learned.

        Raises `DataError` if its items are of another kind, `DataChanged` if counted ones are gone.
        """
        self._check_kind(present)
        state = self._state
        if present.digests is None:
            self._check_grown(present, state.entries, "already learned from")
            return compare_counted(self._statuses, present.count)
        return compare(self._digests[: state.entries], self._statuses, present)

    def new_items(self, present: Items) -> Indices:
        """Indices of the items of `present` that are not known, in the order of the dataset."""
        return self.delta(present).new

    def has_new(self, present: Items) -> bool:
        """Whether a finished model would learn anything from `present`."""
        return len(self.new_items(present)) > 0

    # An increment.

    def pin(
        self,
        present: Items,
        *,
        eligible: Flags | None = None,
        again: bool = False,
        partial: bool = False,
    ) -> Delta:
        """Begins an increment that is about what is new in `present`; returns the delta.

        `eligible` (bool, one for each item) is False for what is held out: it is neither learned
        nor replayed. With `again`, the increment learns all eligible items, known ones too. With
        `partial`, the data holds only what is new: what it lacks is not gone, only out of reach.
        Raises `NothingNew` where there is nothing to learn, and what `delta` raises.
        """
        if self._state.pin is not None:
            raise AssertionError("an increment is pinned already")
        delta = self.delta(present)
        new, old = delta.new, delta.known
        if eligible is not None:
            check_eligible(eligible, present)
            new, old = new[eligible[new]], old[eligible[old]]
        if not len(new) and not (again and len(old)):
            _refuse_empty(delta, held_out=eligible is not None)
        changed = len(new) - int(np.count_nonzero(np.isin(new, delta.added)))
        changes = Changes(len(new) - changed, changed, 0 if partial else len(delta.removed))
        if present.digests is None:
            self._pin_counted(present, new, old, changes=changes, again=again)
        else:
            self._pin_digests(
                present, delta, new, old, changes=changes, again=again, partial=partial
            )
        return delta

    def pinned_items(self, present: Items, *, names: Sequence[str] | None = None) -> Pinned:
        """Where the pinned increment's items are in `present`, in the order they were pinned.

        Raises `DataChanged` where some of them are gone or have another content than when the
        increment began; `names`, one for each item of `present`, make it say which.
        """
        pin = self._pin
        self._check_kind(present)
        replayed = np.flatnonzero(self._statuses == CURRENT)
        if pin.partial:
            replayed = replayed[:0]
        if pin.idle is not None:
            replayed = replayed[~contained(replayed.view(np.uint64), pin.idle.astype(np.uint64))]
        if present.digests is None:
            self._check_grown(present, pin.total, "part of the unfinished increment")
            found = Pinned(self._pinned_rows(pin), replayed)
        else:
            new = self._digests[self._state.entries :]
            found = find_pinned(new, self._digests[replayed], present, names=names)
        if pin.again:
            nothing = np.empty(0, np.int64)
            return Pinned(np.concatenate([found.old, found.new]), nothing)
        return found

    def learn_pinned(self, met: Indices | None = None) -> None:
        """Ends the increment: what was pinned is known now.

        `met` are the pinned new items that were really met, as positions in the order of
        `pinned_items(…).new`; the others stay new. Without it, all of them count as met.
        """
        pin, state = self._pin, self._state
        if state.kind == "counted":
            rows, held = self._pinned_rows(pin), pin.total - state.entries
            is_met = met_among(met, pin.count, last=len(rows))
            became = np.concatenate([self._statuses, np.full(held, SKIPPED, np.uint8)])
            became[rows[is_met]] = CURRENT
            before = np.concatenate([self._statuses, np.full(held, CURRENT, np.uint8)])
            self._become(pin=None, entries=pin.total, marks=self._marked(before, became))
            return
        fresh = len(self._digests) - state.entries
        is_met = met_among(met, pin.count, last=fresh)
        segments = state.segments
        if not is_met.all():
            # What was pinned lies in the last segment, by itself or behind what was known.
            last = segments[-1]
            kept = np.concatenate([last[: len(last) - fresh], last[len(last) - fresh :][is_met]])
            segments = appended(segments[:-1], kept)
        entries = state.entries + int(np.count_nonzero(is_met))
        self._become(pin=None, entries=entries, segments=segments)

    # Its state.

    def state_dict(self) -> dict[str, Any]:
        """Counts, and lists of arrays of which an increment adds or replaces few."""
        return write_state_dict(self._state, known=self.known, withdrawn=self.withdrawn)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes the ledger that `state_dict` describes, of this version or an earlier one.

        Raises `NewerFormat` for a later one, `StateError` for what is no ledger.
        """
        self._state = read_state_dict(state_dict)
        self._statuses_now = self._digests_now = None

    # Details.

    def _pin_counted(
        self, present: Items, new: Indices, old: Indices, *, changes: Changes, again: bool
    ) -> None:
        first = self._state.entries
        simply = np.array_equal(new, np.arange(first, present.count))
        learned = self._statuses != SKIPPED
        learned[old] = False
        self._become(
            kind="counted",
            pin=Pin(
                changes,
                count=len(new) + (len(old) if again else 0),
                total=present.count,
                rows=None if simply else new,
                idle=_or_none(np.flatnonzero(learned)),
                again=again,
            ),
        )

    def _pin_digests(
        self,
        items: Items,
        delta: Delta,
        new: Indices,
        old: Indices,
        *,
        changes: Changes,
        again: bool,
        partial: bool,
    ) -> None:
        assert items.digests is not None
        is_old = np.zeros(items.count, np.bool_)
        is_old[old] = True
        present = np.flatnonzero(delta.places >= 0)
        places = delta.places[present]
        # A copy of what is replayed already is not replayed twice.
        replayed = is_old[places] & first_of_each(places)
        marks = self._state.marks if partial else self._marked(self._statuses, delta.statuses)
        self._become(
            kind=items.kind,
            segments=appended(self._state.segments, items.digests[new]),
            marks=marks,
            pin=Pin(
                changes,
                count=len(new) + (int(np.count_nonzero(replayed)) if again else 0),
                idle=None if partial else _or_none(present[~replayed]),
                again=again,
                partial=partial,
            ),
        )

    @property
    def _pin(self) -> Pin:
        if self._state.pin is None:
            raise AssertionError("no increment is pinned")
        return self._state.pin

    def _pinned_rows(self, pin: Pin) -> Indices:
        """Of counted items, those that the increment is about."""
        return np.arange(self._state.entries, pin.total) if pin.rows is None else pin.rows

    @property
    def _statuses(self) -> Statuses:
        """Of each learned entry."""
        if self._statuses_now is None:
            self._statuses_now = statuses_of(self._state.marks, self._state.entries)
        return self._statuses_now

    @property
    def _digests(self) -> Digests:
        """Of each entry, and behind them of what is pinned."""
        if self._digests_now is None:
            nothing = np.empty((0, DIGEST_BYTES), np.uint8)
            self._digests_now = np.concatenate([nothing, *self._state.segments])
        return self._digests_now

    def _with_status(self, status: int) -> Items:
        digests = self._digests[: self._state.entries][self._statuses == status]
        return Items(len(digests), digests, self._state.kind or "identified")

    def _marked(self, before: Statuses, became: Statuses) -> list[Any]:
        numbers = np.flatnonzero(became != before)
        marks = marks_of(numbers, became[numbers])
        return appended(self._state.marks, marks, merge=merge_marks)

    def _become(self, **changed: Any) -> None:
        self._state = self._state.replace(**changed)
        self._statuses_now = self._digests_now = None

    def _refers_to_nothing(self, items: Items) -> bool:
        """Whether nothing is known or pinned; raises `DataError` for items of another kind."""
        self._check_kind(items)
        return self._state.kind is None

    def _check_kind(self, present: Items) -> None:
        ours = self._state.kind
        if ours is None or ours == present.kind:
            return
        raise DataError(
            f"the items known so far are {_KINDS[ours][0]}",
            why=f"this dataset was given {_KINDS[present.kind][1]}",
            do=f"give the dataset {_KINDS[ours][1]} as before, or begin a new output by --branch",
        )

    def _check_grown(self, present: Items, at_least: int, role: str) -> None:
        if present.count < at_least:
            raise DataChanged(
                f"the dataset has {present.count} items, but {at_least} are {role}",
                why="data whose items have no ids may only grow at its end",
                do="put the missing items back, or give ids= so that items may go and move",
            )


def among(items: Items, entries: Digests) -> Flags:
    """For each item whether it is among these entries; keyed ones count by their content."""
    assert items.digests is not None
    if items.kind == "keyed":
        return contained(halves(items.digests)[1], halves(entries)[1])
    return locate(items.digests, entries) >= 0


def _or_none(numbers: Numbers) -> Numbers | None:
    return numbers if len(numbers) else None


def _refuse_empty(delta: Delta, *, held_out: bool) -> None:
    new = len(delta.added) + len(delta.changed)
    if not new and not len(delta.known):
        raise DataError("the data is empty", do="check where the data is")
    delta.require_new()
    assert held_out
    raise nothing_new(f"all {new:,} new items of the data are held out")
