"""Arrays that only grow, kept in few pieces of which almost none is ever written again.

A repository stores an array that did not change at no cost. What grows is therefore kept as a list
of arrays: what is new is one more, and the last two become one where they are of like length, as in
a log-structured merge tree (O'Neil et al. 1996). Of n rows there are then O(log n) arrays, each
less than half as long as the one before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

CURRENT, SUPERSEDED, WITHDRAWN, SKIPPED = range(4)
"""What became of a ledger's entry: it is in the data; its key has another content now; it is gone;
it was never learned (of counted items, which all have a number)."""

Statuses = npt.NDArray[np.uint8]
Marks = npt.NDArray[Any]
"""Numbers of entries, each times 4 plus its status: 4 bytes below a billion entries, else 8."""

_BITS = 2


def appended(
    segments: Sequence[npt.NDArray[Any]],
    more: npt.NDArray[Any],
    *,
    merge: Callable[[list[npt.NDArray[Any]]], npt.NDArray[Any]] = np.concatenate,
) -> list[Any]:
    """The segments with `more` behind them; those that are not merged are the same arrays."""
    grown = list(segments)
    if len(more):
        grown.append(more)
    while len(grown) > 1 and 2 * len(grown[-1]) >= len(grown[-2]):
        grown[-2:] = [merge(grown[-2:])]
    return grown


def marks_of(numbers: npt.NDArray[np.int64], statuses: Statuses) -> Marks:
    """Marks that give these entries, each named once, these statuses."""
    marks = (numbers.astype(np.uint64) << np.uint64(_BITS)) | statuses
    small = not len(marks) or int(marks.max()) <= np.iinfo(np.uint32).max
    return marks.astype(np.uint32) if small else marks


def merge_marks(segments: Sequence[Marks]) -> Marks:
    """One segment in which the last mark of each entry stands."""
    backwards = np.concatenate(segments)[::-1]
    _, last = np.unique(numbers_of(backwards), return_index=True)
    return backwards[last]


def statuses_of(segments: Sequence[Marks], count: int) -> Statuses:
    """The status of each of `count` entries: what its last mark says, else current."""
    statuses = np.zeros(count, np.uint8)
    for marks in segments:
        statuses[numbers_of(marks)] = (marks & 3).astype(np.uint8)
    return statuses


def numbers_of(marks: Marks) -> npt.NDArray[np.int64]:
    """The entries that these marks are about."""
    return (marks >> _BITS).astype(np.int64)
