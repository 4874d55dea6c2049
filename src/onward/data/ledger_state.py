"""What a ledger is made of, and how that is stored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import DIGEST_BYTES, Digests, Kind
from onward.data.order import Indices
from onward.data.pinned import Changes
from onward.data.segments import Marks, numbers_of
from onward.errors import NewerFormat, StateError

_VERSION = 2

Numbers = npt.NDArray[np.int64]
"""Numbers of entries, ascending."""


@dataclass(frozen=True, eq=False)
class Pin:
    """An unfinished increment."""

    changes: Changes
    count: int
    """How many items it is to learn."""
    total: int = 0
    """Of counted items, how many the data had."""
    rows: Indices | None = None
    """Of counted items, those that are new, where they are not simply all behind the known ones."""
    idle: Numbers | None = None
    """Entries that it leaves alone although they are in the data: held out, or copies."""
    again: bool = False
    """Whether it learns the known items too, instead of replaying them."""
    partial: bool = False
    """Whether its data holds only what is new, so that nothing is replayed from there."""


@dataclass(frozen=True, eq=False)
class LedgerState:
    """All of a ledger.

    `entries` are learned, in the order of their numbers; `segments` hold their digests and behind
    them those of the pinned increment. What an array holds never changes.
    """

    kind: Kind | None = None
    entries: int = 0
    segments: list[Digests] = field(default_factory=list)
    marks: list[Marks] = field(default_factory=list)
    pin: Pin | None = None

    def replace(self, **changed: Any) -> LedgerState:
        """The same with some of it changed."""
        return dataclasses.replace(self, **changed)


def write_state_dict(state: LedgerState, *, known: int, withdrawn: int) -> dict[str, Any]:
    """The state as counts, text and arrays. `known` and `withdrawn` are for who reads no arrays."""
    return {
        "version": _VERSION,
        "kind": state.kind,
        "entries": state.entries,
        "known": known,
        "withdrawn": withdrawn,
        "segments": list(state.segments),
        "marks": list(state.marks),
        "pinned": None if state.pin is None else _written(state.pin),
    }


def read_state_dict(stored: Mapping[str, Any]) -> LedgerState:
    """The state that was written by this version or an earlier one.

    Raises `NewerFormat`, and `StateError` for what was never written.
    """
    try:
        version = stored["version"]
        if version > _VERSION:
            raise NewerFormat(
                f"the ledger has version {version}, this Onward knows {_VERSION}",
                do="update Onward",
            )
        state = _read(stored) if version == _VERSION else _read_first(stored)
        _check(state)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise unreadable(f"{type(error).__name__}: {error}") from error
    return state


def _written(pin: Pin) -> dict[str, Any]:
    return {**dataclasses.asdict(pin.changes), "count": pin.count, "total": pin.total,
            "rows": pin.rows, "idle": pin.idle, "again": pin.again,
            "partial": pin.partial}  # fmt: skip


def _read(stored: Mapping[str, Any]) -> LedgerState:
    pinned = stored["pinned"]
    pin = None
    if pinned is not None:
        changes = Changes(pinned["added"], pinned["changed"], pinned["removed"])
        pin = Pin(
            changes, pinned["count"], pinned["total"], pinned["rows"], pinned["idle"],
            pinned["again"], pinned["partial"],
        )  # fmt: skip
    return LedgerState(
        stored["kind"], stored["entries"], list(stored["segments"]), list(stored["marks"]), pin
    )


def _read_first(stored: Mapping[str, Any]) -> LedgerState:
    """Version 1: one array or a count of what is known, another of what is pinned."""
    known, pinned, replayable = (stored[key] for key in ("known", "pinned", "replayable"))
    idle = None if replayable is None else np.flatnonzero(~replayable)
    if isinstance(pinned if pinned is not None else known, int):
        pin = None
        if pinned is not None:
            pin = Pin(Changes(pinned - known, 0, 0), count=pinned - known, total=pinned)
        return LedgerState("counted" if known or pinned else None, known, pin=pin)
    segments = [part for part in (known, pinned) if isinstance(part, np.ndarray) and len(part)]
    entries = len(known) if isinstance(known, np.ndarray) else 0
    pin = None
    if pinned is not None:
        pin = Pin(Changes(len(pinned), 0, 0), count=len(pinned), idle=idle)
    return LedgerState("identified", entries, segments, pin=pin)


def _check(state: LedgerState) -> None:
    """Everything that is used without a look: a stored ledger may come from anywhere."""
    if state.kind not in (None, "counted", "identified", "keyed"):
        raise unreadable(f"its kind is {str(state.kind)[:40]!r}")
    pin = state.pin
    total = pin.total if pin is not None else state.entries
    counts = [state.entries, total, 0 if pin is None else pin.count]
    if not all(type(count) is int and 0 <= count < 1 << 40 for count in counts):
        raise unreadable("its counts are none")
    if any(
        array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != DIGEST_BYTES
        for array in state.segments
    ):
        raise unreadable("its digests have another shape or dtype")
    digests = sum(len(array) for array in state.segments)
    if state.kind == "counted":
        fits = digests == 0 and (pin is None or state.entries <= total)
    else:
        fits = state.entries == digests if pin is None else state.entries <= digests
    if not fits:
        raise unreadable("it has another number of entries than it says")
    for marks in state.marks:
        if marks.dtype not in (np.uint32, np.uint64) or marks.ndim != 1:
            raise unreadable("its marks have another shape or dtype")
        _check_numbers(numbers_of(marks), state.entries)
    if pin is not None:
        _check_numbers(pin.idle, state.entries)
        _check_numbers(pin.rows, total)


def _check_numbers(numbers: Numbers | None, below: int) -> None:
    if numbers is None or not len(numbers):
        return
    if numbers.dtype != np.int64 or numbers.ndim != 1:
        raise unreadable("its numbers have another shape or dtype")
    if not 0 <= int(numbers.min()) <= int(numbers.max()) < below:
        raise unreadable("it names an entry that it lacks")


def unreadable(why: str) -> StateError:
    """The error for a stored ledger that was never written."""
    return StateError("the ledger cannot be read", why=why, do="run `onward verify`")
