"""The rows of one table file: where each begins, its key and its content, 16 bytes each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Protocol

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.data.content import ENCODERS, canonical, digest_of_content
from onward.data.files import DataFile, Stamp
from onward.data.items import DIGEST_BYTES, Digests, digest_of_id
from onward.errors import DataError

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """What is known of a table file's rows without reading it again.

    `contents`, and `keys` where the table has one, hold 16 bytes a row. `starts` is int64 of shape
    [count + 1]: where each row begins in bytes, or nothing where the format needs no such thing.
    """

    contents: Digests
    keys: Digests | None
    starts: npt.NDArray[np.int64]
    columns: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.contents)

    def stored(self) -> bytes:
        """As bytes, for `Rows.loaded`."""
        about = [self.count, self.keys is not None, len(self.starts), list(self.columns)]
        head = msgspec.msgpack.encode(about)
        keys = b"" if self.keys is None else self.keys.tobytes()
        parts = [len(head).to_bytes(4, "little"), head]
        return b"".join([*parts, self.contents.tobytes(), keys, self.starts.tobytes()])

    @classmethod
    def loaded(cls, stored: memoryview) -> Rows | None:
        """The rows that `stored` describes; `None` where it cannot be understood."""
        try:
            size = int.from_bytes(stored[:4], "little")
            about = msgspec.msgpack.decode(stored[4:][:size], type=tuple[int, bool, int, list[str]])
            count, keyed, starts, columns = about
            body = np.frombuffer(stored[4 + size :], np.uint8)
            ends = np.cumsum([count * DIGEST_BYTES, keyed * count * DIGEST_BYTES, starts * 8])
            contents, keys, offsets, rest = np.split(body, ends)
            if len(rest) or len(offsets) != starts * 8:
                return None
            return cls(
                contents.reshape(count, DIGEST_BYTES),
                keys.reshape(count, DIGEST_BYTES) if keyed else None,
                np.frombuffer(offsets.tobytes(), "<i8"),
                tuple(columns),
            )
        except (msgspec.MsgspecError, ValueError):
            return None


class Format(Protocol):
    """How one kind of table file is read.

    `rereads` says that a row is read from the file each time, which may have changed meanwhile.
    """

    rereads: bool

    def scan(self, file: DataFile, stamp: Stamp) -> Rows:
        """Reads all of a file. Raises `DataError` with the file, the line and the reason."""

    def row(self, file: DataFile, stamp: Stamp, rows: Rows, index: int) -> Row:
        """One row, all its columns."""


@dataclass(frozen=True)
class Chosen:
    """The columns that make up the key, and those that make up the content (`None`: all)."""

    key: tuple[str, ...] = ()
    columns: tuple[str, ...] | None = None

    def check(self, present: Sequence[str], where: str) -> None:
        """Raises `DataError` where a file lacks columns, or has two of one name."""
        twice = sorted(name for name, count in Counter(present).items() if count > 1)
        if twice:
            raise DataError(
                f"{where} has two columns of one name: {', '.join(map(repr, twice))}",
                do="give every column its own name",
            )
        there = set(present)
        lacking = [name for name in (*self.key, *(self.columns or ())) if name not in there]
        if lacking:
            raise DataError(
                f"{where} has no column {', '.join(map(repr, lacking))}",
                why=f"its first row names {', '.join(map(repr, present[:20]))}",
                do="check key= and columns=, and that the file begins with the columns' names",
            )

    def of(self, row: Mapping[str, Any]) -> Row:
        """The chosen columns of a row, in the order they were chosen."""
        if self.columns is None:
            return dict(row)
        return {name: row[name] for name in self.columns if name in row}


class Digester:
    """Collects the digests of rows, in the order in which they are in the file.

    A row's content is the canonical form of what the table returns for it, so that formats and the
    order of columns do not matter. Keys are known by their names, as text.
    """

    def __init__(self, file: DataFile, chosen: Chosen, *, unit: str = "line") -> None:
        self._where = file.where
        self._unit = unit
        self._chosen = chosen
        self._contents = bytearray()
        self._keys = bytearray()

    def add_values(
        self, columns: Mapping[str, Sequence[Any]], keys: Sequence[Any], places: Sequence[int]
    ) -> None:
        """Rows whose values are given by column."""
        try:
            encoded = {
                name: [
                    ENCODERS.get(value.__class__, canonical)(value).decode("latin-1")
                    for value in values
                ]
                for name, values in columns.items()
            }
        except DataError:
            for values, place in zip(zip(*columns.values(), strict=True), places, strict=True):
                canonical(
                    dict(zip(columns, values, strict=True)),
                    f"{self._unit} {place} of {self._where}: the row",
                )
            raise
        self.add_columns(encoded, keys, places)

    def add_columns(
        self,
        columns: Mapping[str, Iterable[str]],
        keys: Sequence[Sequence[Any]],
        places: Iterable[int],
    ) -> None:
        """Rows whose values are given by column, in canonical form, as text of Latin-1.

        `keys` are the values of the key's columns; `places` are the numbers of the rows' lines.
        """
        parts: list[Iterable[str]] = [repeat(f"m{len(columns)}:")]
        for head, name in sorted((canonical(name), name) for name in columns):
            parts += [repeat(head.decode("latin-1")), columns[name]]
        self._contents += b"".join(
            [
                blake3(content.encode("latin-1")).digest(length=DIGEST_BYTES)
                for content in map("".join, zip(*parts, strict=False))
            ]
        )
        self._add_keys(zip(*keys, strict=True), places)

    def add_rows(self, rows: Sequence[Row], places: Sequence[int]) -> None:
        """Rows one by one, whose columns may differ."""
        for row, place in zip(rows, places, strict=True):
            content = canonical(
                self._chosen.of(row), f"{self._unit} {place} of {self._where}: the row"
            )
            self._contents += digest_of_content(content)
        self._add_keys(([row.get(name) for name in self._chosen.key] for row in rows), places)

    def rows(self, starts: npt.NDArray[np.int64], columns: Sequence[str]) -> Rows:
        keys = _digests(self._keys) if self._chosen.key else None
        return Rows(_digests(self._contents), keys, starts, tuple(columns))

    def _add_keys(self, keys: Iterable[Sequence[Any]], places: Iterable[int]) -> None:
        if not self._chosen.key:
            return
        digests = []
        for values, place in zip(keys, places, strict=True):
            value = values[0]
            if len(values) > 1 or value.__class__ is not str or not value:
                value = key_name(values, f"{self._unit} {place} of {self._where}")
            digests.append(digest_of_id(value, place))
        self._keys += b"".join(digests)


def key_name(values: Sequence[Any], where: str) -> str:
    """The name of a row's key: itself as text, or several as a list in JSON.

    Raises `DataError` where a value is missing or is neither text, bytes nor a whole number.
    """
    plain = [value.hex() if isinstance(value, bytes) else value for value in values]
    for value in plain:
        if value is None or value == "":
            raise DataError(f"{where} has no key", do="give every row a value in the key column")
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(
                f"the key in {where} is a {type(value).__name__}",
                do="choose a column of text or whole numbers",
            )
    return str(plain[0]) if len(plain) == 1 else json.dumps(plain, separators=(",", ":"))


class Lines:
    """A text file in batches of whole lines, with where each begins.

    Counts lines from 1. Raises `DataError` where the text is not UTF-8; a mark of byte order at the
    beginning is passed over.
    """

    def __init__(self, file: DataFile, stamp: Stamp) -> None:
        self._file, self._stamp = file, stamp
        self.before = 0
        """Lines before this batch."""
        self._found: list[npt.NDArray[np.int64]] = []
        self._end = 0

    def batches(self) -> Iterator[bytes]:
        """Whole lines; the last may lack its newline."""
        carried: list[bytes] = []
        for chunk in self._file.chunks(self._stamp):
            whole, newline, rest = chunk.rpartition(b"\n")
            if not newline:
                carried.append(chunk)
                continue
            yield from self._take(b"".join([*carried, whole, newline]))
            carried = [rest]
        yield from self._take(b"".join(carried))

    def starts(self) -> npt.NDArray[np.int64]:
        """Where each line of the batches so far begins, and where the last one ends."""
        return np.concatenate([*self._found, np.array([self._end], np.int64)])

    def _take(self, batch: bytes) -> Iterator[bytes]:
        if not batch:
            return
        if not batch.isascii():
            self._check_text(batch)
        ends = np.flatnonzero(np.frombuffer(batch, np.uint8) == 10) + 1
        if not len(ends) or ends[-1] != len(batch):
            ends = np.append(ends, len(batch))
        begins = np.concatenate([[0], ends[:-1]]) + self._end
        self._found.append(begins.astype(np.int64))
        first = not self._end
        self._end += len(batch)
        yield batch.removeprefix(b"\xef\xbb\xbf") if first else batch
        self.before += len(ends)

    def _check_text(self, batch: bytes) -> None:
        try:
            batch.decode("utf-8")
        except UnicodeDecodeError as error:
            line = self.before + batch.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"line {line} of {self._file.where} cannot be read",
                why=f"it is not UTF-8 text: {error.reason} ({batch[error.start]:#04x})",
                do="save the table as UTF-8, or mend the line",
            ) from error


def _digests(joined: bytearray) -> Digests:
    return np.frombuffer(bytes(joined), np.uint8).reshape(-1, DIGEST_BYTES)
