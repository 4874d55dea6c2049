"""Names of rows: which row of a head or an embedding table belongs to which class, user or item."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice, repeat
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from onward.errors import NewerFormat, StateError, UnknownLabel, UsageError

VERSION = 1
_SHOWN = 5
_INT64 = range(-(1 << 63), 1 << 63)

Name: TypeAlias = int | str


class Names:
    """An append-only index: row i belongs to `names[i]`, and keeps belonging to it.

    A name is a whole number or text, and 7 is not "7"; NumPy's numbers are numbers. Names given
    twice count once. Stateful: stored as one array of numbers, or as one text and where each name
    ends in it.

    Raises `UsageError` for what is neither number nor text.

        classes = Names(["cat", "dog"])
        classes.rows(["dog", "dog", "cat"])   # array([1, 1, 0])
    """

    later: tuple[Name, ...] = ()
    """Names of the data that have no row yet, since they belong to the next increment."""

    def __init__(self, names: Iterable[Any] = ()) -> None:
        self._row: dict[Name, int] = {}
        self._state: dict[str, Any] | None = None
        self.add(names)

    def add(self, names: Iterable[Any]) -> None:
        """Appends those that are new, in their order. Rows that have a name keep it."""
        fresh = _checked(names)
        if not self._row:
            row = dict(zip(fresh, range(len(fresh)), strict=True))
            if len(row) == len(fresh):  # the usual case, and the quickest way
                self._row = row
                return
        rows = self._row
        for name in fresh:
            if name not in rows:
                rows[name] = len(rows)

    def row(self, name: Any) -> int:
        """The row of one name. Raises `UnknownLabel`."""
        return int(self.rows([name])[0])

    def rows(self, names: Any) -> npt.NDArray[np.int64]:
        """The row of each name: int64 in the shape of `names`, an array, tensor or sequence.

        Raises `UnknownLabel` with those that have no row.
        """
        shape = tuple(getattr(names, "shape", ()))
        if len(shape) > 1:
            return self.rows(names.reshape(-1)).reshape(shape)
        wanted = _checked(names)
        try:
            return np.fromiter(map(self._row.__getitem__, wanted), np.int64, len(wanted))
        except KeyError:
            raise self._unknown(wanted) from None

    def rows_or_none(self, others: Names) -> npt.NDArray[np.int64]:
        """The row here of each name of another index, in its order; -1 where there is none."""
        found = map(self._row.get, others, repeat(-1))
        return np.fromiter(found, np.int64, len(others))

    def __len__(self) -> int:
        return len(self._row)

    def __iter__(self) -> Iterator[Name]:
        return iter(self._row)

    def __contains__(self, name: object) -> bool:
        return _is_name(name) and name in self._row

    def __getitem__(self, row: int) -> Name:
        count = len(self._row)
        if not -count <= row < count:
            raise IndexError(f"row {row} of {count}")
        return next(islice(self._row, row % count, None))

    def __repr__(self) -> str:
        return f"<{len(self):,} names{': ' if self._row else ''}{shown(self)}>"

    def state_dict(self) -> dict[str, Any]:
        """All names in the order of their rows, in arrays that stay the same until more come."""
        if self._state is None or self._state["count"] != len(self):
            self._state = {"version": VERSION, "count": len(self), **_packed(list(self._row))}
        return dict(self._state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned. Raises `NewerFormat` or `StateError`."""
        if not is_state(state_dict):
            raise StateError("this is not a state of names", do="load what state_dict() returned")
        version = state_dict["version"]
        if version > VERSION:
            raise NewerFormat(
                f"these names are of version {version}, this is version {VERSION}",
                do="install a newer Onward",
            )
        try:
            names = _unpacked(state_dict)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise StateError("the stored names cannot be read", why=str(error)) from error
        row = dict(zip(names, range(len(names)), strict=True))
        if not len(row) == len(names) == state_dict["count"]:
            raise StateError("the stored names cannot be read", why="their number is another one")
        self._row, self._state = row, None

    def _unknown(self, wanted: list[Name]) -> UnknownLabel:
        unknown = list(dict.fromkeys(name for name in wanted if name not in self._row))
        verb = "has" if len(unknown) == 1 else "have"
        return UnknownLabel(
            f"{shown(unknown)} {verb} no row among {len(self):,} names",
            why=_why_unknown(unknown, self._row) or ("they come later" if self.later else ""),
            do="give all names that occur to onward.names(output, key, present) before the model "
            "is built; those in its `later` belong to the next increment: leave their items out "
            "of this one",
        )


def is_state(tree: Any) -> bool:
    """Whether `tree` is what `Names.state_dict` returns, or the description of it."""
    return (
        isinstance(tree, Mapping)
        and type(tree.get("version")) is int
        and type(tree.get("count")) is int
        and ("numbers" in tree or ("text" in tree and "ends" in tree))
    )


def shown(names: Iterable[Name]) -> str:
    """Up to five of them, as messages show them: `'a', 'b', … and 7 more`."""
    listed = list(names)
    text = ", ".join(_short(name) for name in listed[:_SHOWN])
    more = len(listed) - _SHOWN
    return f"{text} … and {more:,} more" if more > 0 else text


def _short(name: Name) -> str:
    if isinstance(name, int) and name not in _INT64:
        return f"a number of {name.bit_length():,} bits"
    text = ascii(name[:40]) if isinstance(name, str) and not name.isprintable() else repr(name)[:60]
    return text + ("…" if isinstance(name, str) and len(name) > len(text) else "")


def _is_name(value: object) -> bool:
    return isinstance(value, int | str | np.integer) and not isinstance(value, bool)


def _checked(names: Any) -> list[Name]:
    """The names as Python's own numbers and text."""
    if isinstance(names, str | bytes):
        raise UsageError(f"{names[:40]!r} is one name", do="give a list of names")
    listed = names.tolist() if hasattr(names, "tolist") else list(names)
    if not isinstance(listed, list):
        listed = [listed]
    kinds = set(map(type, listed))
    if kinds <= {int, str}:
        return listed
    return [_plain(name) for name in listed]


def _plain(name: Any) -> Name:
    value = name.tolist() if hasattr(name, "tolist") else name  # a number of NumPy or PyTorch
    if not _is_name(value):
        raise UsageError(
            f"{value!r:.60} is no name, it is a {type(name).__name__}",
            do="name classes, users and items by whole numbers or text",
        )
    return str.__str__(value) if isinstance(value, str) else int(value)


def _why_unknown(unknown: list[Name], known: Mapping[Name, int]) -> str:
    for name in unknown[:_SHOWN]:
        if isinstance(name, str):
            sign, digits = name[:1] == "-", name.removeprefix("-")
            short = 0 < len(digits) < 20 and digits.isascii() and digits.isdigit()
            if short and (-int(digits) if sign else int(digits)) in known:
                return f"it has {name} as a number, not as text"
        elif name in _INT64 and str(name) in known:
            return f"it has {name} as text, not as a number"
    return ""


def _packed(names: list[Name]) -> dict[str, Any]:
    kinds = set(map(type, names))
    if kinds == {int} and all(map(_INT64.__contains__, (min(names), max(names)))):
        return {"numbers": _fixed(np.array(names, np.int64))}
    # Hexadecimal, because Python refuses to write huge numbers in tens. Whatever text can be.
    texts = [f"{name:x}" if isinstance(name, int) else name for name in names]
    whole_text = "".join(texts)
    data = whole_text.encode("utf-8", "surrogatepass")
    lengths: Iterable[int] = map(len, texts)
    if len(data) != len(whole_text):
        lengths = (len(text.encode("utf-8", "surrogatepass")) for text in texts)
    ends = np.cumsum(np.fromiter(lengths, np.int64, len(texts)), dtype=np.int64)
    packed = {"text": _fixed(np.frombuffer(data, np.uint8)), "ends": _fixed(ends)}
    if int in kinds:
        whole = np.fromiter((isinstance(name, int) for name in names), np.uint8, len(names))
        packed["whole"] = _fixed(whole)
    return packed


def _unpacked(state: Mapping[str, Any]) -> list[Name]:
    if "numbers" in state:
        return list(_array(state["numbers"], np.int64).tolist())
    data, ends = _array(state["text"], np.uint8).tobytes(), _array(state["ends"], np.int64)
    if (np.diff(ends, prepend=0) < 0).any() or (ends[-1] if len(ends) else 0) != len(data):
        raise ValueError("the ends of the names do not fit their text")
    stops = ends.tolist()
    starts = [0, *stops[:-1]]
    names: list[Name]
    if data.isascii():
        text = data.decode("ascii")
        names = [text[start:stop] for start, stop in zip(starts, stops, strict=False)]
    else:
        names = [
            data[start:stop].decode("utf-8", "surrogatepass")
            for start, stop in zip(starts, stops, strict=False)
        ]
    if "whole" in state:
        for row in np.flatnonzero(_array(state["whole"], np.uint8)):
            names[row] = int(str(names[row]), 16)
    return names


def _array(value: Any, dtype: type[np.generic]) -> npt.NDArray[Any]:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != 1:
        raise TypeError(f"an array of {np.dtype(dtype)} is missing")
    return value


def _fixed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.flags.writeable = False  # whoever is given the state must not change what is kept of it
    return array
