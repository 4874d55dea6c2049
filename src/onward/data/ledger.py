"""The ledger: the items that a checkpoint has learned from.

Items are known in one of two ways. Data that only ever grows at its end is known by a count: items
0 … n - 1 are known. Any other data needs a stable id per item, of which the ledger keeps 16 bytes.

An unfinished increment is *pinned*: it goes on with the items it began with, in the same order,
however the data has grown meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Digests, Items, locate
from onward.data.order import Indices
from onward.errors import DataChanged, DataError, NewerFormat

_VERSION = 1


@dataclass(frozen=True, eq=False)
class Pinned:
    """What an increment learns: indices, into the present dataset, of new and of known items."""

    new: Indices
    old: Indices


class Ledger:
    """Remembers which items are known, and which the unfinished increment is about.

    >>> ledger = Ledger()
    >>> ledger.pin(Items.counted(3))
    >>> ledger.learn_pinned()
    >>> ledger.new_items(Items.counted(5)).tolist()
    [3, 4]
    """

    def __init__(self) -> None:
        self._known = Items.counted(0)
        self._pinned: Items | None = None
        # Known items may be gone for good when an increment begins; which, belongs to its pin.
        self._replayable: npt.NDArray[np.bool_] | None = None

    @property
    def known(self) -> int:
        """How many items finished increments have learned from."""
        return self._known.count

    @property
    def pinned(self) -> int | None:
        """How many new items the unfinished increment is about; `None` between increments."""
        if self._pinned is None:
            return None
        return self._pinned.count - (0 if self._pinned.digests is not None else self.known)

    def new_items(self, present: Items) -> Indices:
        """Indices of the items of `present` that are not known, in the order of the dataset."""
        self._check_kind(present)
        if present.digests is None or self._known.digests is None:
            self._check_grown(present, self.known, "already learned from")
            return np.arange(self.known, present.count, dtype=np.int64)
        return np.flatnonzero(locate(present.digests, self._known.digests) < 0)

    def has_new(self, present: Items) -> bool:
        """Whether a finished model would learn anything from `present`."""
        return len(self.new_items(present)) > 0

    def pin(self, present: Items) -> None:
        """Begins an increment that is about what is new in `present`."""
        if self._pinned is not None:
            raise AssertionError("an increment is pinned already")
        new = self.new_items(present)
        if present.digests is None:
            self._pinned = present
            return
        self._pinned = Items(len(new), present.digests[new])
        if self._known.digests is not None:
            self._replayable = locate(self._known.digests, present.digests) >= 0

    def pinned_items(self, present: Items) -> Pinned:
        """Where the pinned increment's items are in `present`, in the order they were pinned.

        Raises `DataChanged` where some of them are gone.
        """
        if self._pinned is None:
            raise AssertionError("no increment is pinned")
        self._check_kind(present)
        if present.digests is None:
            self._check_grown(present, self._pinned.count, "part of the unfinished increment")
            return Pinned(
                np.arange(self.known, self._pinned.count, dtype=np.int64),
                np.arange(self.known, dtype=np.int64),
            )
        new, old = self._pinned.digests, self._known.digests
        assert new is not None
        if old is None:
            old = np.empty((0, DIGEST_BYTES), np.uint8)
        elif self._replayable is not None:
            old = old[self._replayable]
        return Pinned(
            _locate_all(new, present.digests, "new"), _locate_all(old, present.digests, "known")
        )

    def learn_pinned(self) -> None:
        """Ends the increment: what was pinned is known now."""
        if self._pinned is None:
            raise AssertionError("no increment is pinned")
        known, new = self._known.digests, self._pinned.digests
        if known is None or new is None:
            self._known = self._pinned
        else:
            self._known = Items(len(known) + len(new), np.concatenate([known, new]))
        self._pinned = self._replayable = None

    def state_dict(self) -> dict[str, Any]:
        """Counts and arrays of 16-byte ids."""
        return {
            "version": _VERSION,
            "known": _stored(self._known),
            "pinned": None if self._pinned is None else _stored(self._pinned),
            "replayable": self._replayable,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes the ledger that `state_dict` describes."""
        if state_dict["version"] > _VERSION:
            raise NewerFormat(
                f"the ledger has version {state_dict['version']}, this Onward knows {_VERSION}",
                do="update Onward",
            )
        pinned = state_dict["pinned"]
        self._known = _loaded(state_dict["known"])
        self._pinned = None if pinned is None else _loaded(pinned)
        self._replayable = state_dict["replayable"]

    def _check_kind(self, present: Items) -> None:
        for ours in (self._known, self._pinned):
            if ours is None or ours.count == 0:
                continue
            if (ours.digests is None) != (present.digests is None):
                counted = ours.digests is None
                raise DataError(
                    "the items known so far are " + ("counted" if counted else "known by id"),
                    why=f"this dataset was given with{'' if counted else 'out'} ids",
                    do=f"give the dataset with{'out' if counted else ''} ids= as before, or begin "
                    "a new output by --branch",
                )

    def _check_grown(self, present: Items, at_least: int, role: str) -> None:
        if present.count < at_least:
            raise DataChanged(
                f"the dataset has {present.count} items, but {at_least} are {role}",
                why="data whose items have no ids may only grow at its end",
                do="put the missing items back, or give ids= so that items may go and move",
            )


def _locate_all(wanted: Digests, present: Digests, kind: str) -> Indices:
    places = locate(wanted, present)
    gone = int(np.count_nonzero(places < 0))
    if gone:
        raise DataChanged(
            f"{gone} of the {len(wanted)} {kind} items of the unfinished increment are gone",
            why=f"the dataset now has {len(present)} items, without these",
            do="put them back and run the same command, or begin a new output by --branch",
        )
    return places


def _stored(items: Items) -> int | Digests:
    return items.count if items.digests is None else items.digests


def _loaded(stored: int | Digests) -> Items:
    return Items(len(stored), stored) if isinstance(stored, np.ndarray) else Items.counted(stored)
