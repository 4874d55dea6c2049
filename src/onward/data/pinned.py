"""Finding the items of an unfinished increment again, in data that may have changed since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onward.data.delta import find
from onward.data.items import Digests, Items, halves
from onward.data.order import Indices
from onward.errors import DataChanged, DataError

Flags = npt.NDArray[np.bool_]

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Changes:
    """How many items an increment found added, changed and removed when it began."""

    added: int
    changed: int
    removed: int


@dataclass(frozen=True, eq=False)
class Pinned:
    """What an increment learns: indices, into the present dataset, of new and of known items."""

    new: Indices
    old: Indices


def find_pinned(
    new: Digests, old: Digests, present: Items, *, names: Sequence[str] | None = None
) -> Pinned:
    """Where these items are in `present`.

    Raises `DataChanged` that counts those which are gone, and shows those whose content is another
    one, with both contents.
    """
    found = find(np.concatenate([new, old]), present)
    pinned = Pinned(found[: len(new)], found[len(new) :])
    if bool((found < 0).any()):
        lost = [
            _lost(digests[places < 0], len(digests), role, present)
            for digests, places, role in ((new, pinned.new, "new"), (old, pinned.old, "known"))
            if bool((places < 0).any())
        ]
        _refuse(lost, present, names)
    return pinned


def first_of_each(places: Indices) -> Flags:
    """For each place whether it is the first of those equal to it."""
    if not len(places) or int(np.bincount(places).max()) == 1:
        return np.ones(len(places), np.bool_)
    flags = np.zeros(len(places), np.bool_)
    flags[np.unique(places, return_index=True)[1]] = True
    return flags


def check_eligible(eligible: Flags, present: Items) -> None:
    """Raises `DataError` unless there is one bool for each item."""
    if eligible.dtype != np.bool_ or eligible.shape != (present.count,):
        raise DataError(
            f"eligible has shape {list(eligible.shape)} and dtype {eligible.dtype}",
            why=f"the dataset has {present.count} items",
            do="give one bool for each item",
        )


def met_among(met: Indices | None, count: int, *, last: int) -> Flags:
    """For each of the `last` of `count` pinned items whether it was met; `None` is all of them."""
    flags = np.full(count, met is None)
    if met is not None and len(met):
        if int(met.min()) < 0 or int(met.max()) >= count:
            raise AssertionError(f"{count} items are pinned")
        flags[met] = True
    return flags[count - last :]


@dataclass(frozen=True, eq=False)
class _Lost:
    """Pinned items of one role that are not there: those gone, and those with another content."""

    gone: str
    changed: str
    before: Digests
    rows: Indices


def _lost(lost: Digests, of: int, role: str, present: Items) -> _Lost:
    assert present.digests is not None
    rows = np.full(len(lost), -1, np.int64)
    if present.kind == "keyed":
        keys, sought = halves(present.digests)[0], halves(lost)[0]
        order = np.argsort(keys)
        at = np.minimum(np.searchsorted(keys[order], sought), len(keys) - 1)
        if len(keys):
            rows = np.where(keys[order][at] == sought, order[at], -1)
    changed = rows >= 0
    count = int(np.count_nonzero(changed))
    gone = len(lost) - count
    return _Lost(
        f"{gone} of the {of} {role} items" if gone else "",
        f"{count} of the {of} {role} items" if count else "",
        lost[changed],
        rows[changed],
    )


def _refuse(lost: Sequence[_Lost], present: Items, names: Sequence[str] | None) -> None:
    gone = " and ".join(part.gone for part in lost if part.gone)
    changed = " and ".join(part.changed for part in lost if part.changed)
    if not changed:
        raise DataChanged(
            f"{gone} of the unfinished increment are gone",
            why=f"the dataset now has {present.count} items, without these",
            do="put them back and run the same command, or begin a new output by --branch",
        )
    rows = np.concatenate([part.rows for part in lost])
    before = np.concatenate([part.before for part in lost])
    assert present.digests is not None
    shown = [
        f"{_name(row, names)} was {bytes(was[8:]).hex()} and is {bytes(now[8:]).hex()}"
        for row, was, now in zip(
            rows[:_SHOWN].tolist(), before, present.digests[rows[:_SHOWN]], strict=False
        )
    ]
    why = "; ".join(shown) + ("; …" if len(rows) > _SHOWN else "")
    raise DataChanged(
        f"{changed} of the unfinished increment have changed",
        why=why + (f"; and {gone} are gone" if gone else ""),
        do="put the contents back and run the same command: a resume learns what it began with, "
        "and changed data belongs to a continue, the increment after it; or begin a new output "
        "by --branch",
    )


def _name(row: int, names: Sequence[str] | None) -> str:
    return f"item {row}" + (f" ({names[row]!r})" if names is not None else "")
