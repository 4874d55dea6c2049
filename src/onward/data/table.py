"""Tables as datasets: every row of CSV, JSONL or Parquet files is an item."""

from __future__ import annotations

import csv
import operator
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt
from blake3 import blake3

from onward.data.content import canonical, digest_of_content, has_equal, no_items, with_occurrences
from onward.data.files import DataFile, LocalFile, Stamp, below, changed, files_at
from onward.data.items import Digests, Items, halves
from onward.data.listing import Listing, cache_folder, keep, read_kept
from onward.data.rows import Chosen, Format, Row, Rows, key_name
from onward.data.snapshot import DataSnapshot
from onward.data.table_csv import Csv
from onward.data.table_jsonl import Jsonl
from onward.errors import DataError, UsageError
from onward.stores import parse

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""The formats of tables by the ends of their files' names."""

_VERSION = 1
_HELD_OPEN = 128

Where = str | os.PathLike[str]


class Table:
    """The rows of table files, in the order of the files: `table[i]` is row i as a dict.

    `where` is a file, a folder, a glob such as `data/part-*.csv`, or several of them, on this
    machine or in an object store. `key` names the column, or columns, that tell rows apart;
    without, rows are known by their content, and the n-th of equal rows is an item of its own.
    `columns` are those that a row has and that its content consists of. `read` makes of a row what
    `table[i]` gives.

    All values of CSV are text. Rows of local CSV and JSONL files are read where they lie when they
    are asked for; only where they begin is in memory (8 bytes a row, and 32 for the snapshot).
    Parquet files, and objects in a store, are in memory as a whole from the first row on.

    Raises `DataError` if there is nothing, the format is unclear, and, when rows are first asked
    for, where a file cannot be read, with the line and the reason.
    """

    def __init__(
        self,
        where: Where | Sequence[Where],
        *,
        key: str | Sequence[str] | None = None,
        format: str | None = None,
        columns: Sequence[str] | None = None,
        read: Callable[[Row], Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        places = [where] if isinstance(where, str | os.PathLike) else [*where]
        urls = [parse(place).url for place in places]
        files = [file for place in places for file in _tables_at(place, format)]
        if not files:
            raise no_items("an empty list of tables")
        self._open(urls, files, key=key, format=format, columns=columns, read=read, cache=cache)

    def _open(
        self,
        urls: Sequence[str],
        files: Sequence[DataFile],
        *,
        key: str | Sequence[str] | None,
        format: str | None,
        columns: Sequence[str] | None,
        read: Callable[[Row], Any] | None,
        cache: str | os.PathLike[str] | None,
    ) -> None:
        self._urls = urls
        self._reading = {"key": key, "format": format, "columns": columns}
        self._files = [_holding(file) for file in files[:_HELD_OPEN]] + [*files[_HELD_OPEN:]]
        self._chosen = Chosen(_names(key, "key") or (), _names(columns, "columns"))
        self._read = read
        name = format or _format_of(files)
        self._format = _format(name, self._chosen)
        self._cache = cache_folder(
            cache, "rows", _VERSION, *urls, name, self._chosen.key, self._chosen.columns
        )

    def __len__(self) -> int:
        return int(self._scanned.ends[-1])

    def __getitem__(self, index: int) -> Any:
        row = self._chosen.of(self._row(index))
        return row if self._read is None else self._read(row)

    def snapshot(self) -> DataSnapshot:
        """The rows as they are when they are first asked for; later calls return the same.

        The digest is BLAKE3 over the keys and contents of all rows in their order, whatever the
        names of the files. Files that have not changed since an earlier snapshot are not read.
        Raises `DataError` that names the keys which several rows have.
        """
        return self._snapshot

    def how_read(self, base: str | os.PathLike[str]) -> dict[str, Any] | None:
        """As `Folder.how_read`."""
        places = [parse(url) for url in self._urls]
        at = [below(place.prefix, base) if place.is_local else None for place in places]
        names = {
            name: [*value] if value is not None and not isinstance(value, str) else value
            for name, value in self._reading.items()
        }
        return None if None in at else {"kind": "table", "at": at, **names}

    def unread_bytes(self) -> int:
        """As `Folder.unread_bytes`."""
        return Listing(self._cache).unread_bytes(self._files)

    @cached_property
    def _scanned(self) -> _Scanned:
        listing = Listing(self._cache)
        found: list[tuple[Stamp, Rows]] = []
        wanted = set()
        for file in self._files:
            stamp, digest = listing.digest(file)
            name = digest.hex()
            kept = read_kept(self._cache / name)
            rows = Rows.loaded(kept) if kept is not None else None
            if rows is None:
                rows = self._format.scan(file, stamp)
                keep(self._cache / name, rows.stored())
            wanted.add(name)
            self._check_columns(found[0][1] if found else rows, rows, file)
            found.append((stamp, rows))
        listing.save(beside=wanted)
        scanned = _Scanned(found)
        if not scanned.ends[-1]:
            raise no_items(", ".join(file.where for file in self._files[:5]))
        return scanned

    @cached_property
    def _snapshot(self) -> DataSnapshot:
        scanned = self._scanned
        contents, keys = scanned.contents, scanned.keys
        whole = blake3(b"onward rows 1, %d\n" % len(contents))
        for digests in (keys, contents):
            if digests is not None:
                whole.update(np.ascontiguousarray(digests).data)
        if keys is None:
            identified = Items(len(contents), with_occurrences(contents), "identified")
        else:
            self._refuse_duplicates(keys)
            known = np.concatenate([keys[:, :8], contents[:, :8]], axis=1)
            identified = Items(len(contents), known, "keyed")
        return DataSnapshot(
            items=len(contents),
            size_bytes=sum(stamp.size_bytes for stamp, _ in scanned.found),
            digest=whole.hexdigest(),
            identified=identified,
            names=_Names(self),
        )

    def _name(self, index: int) -> str:
        """A row's key; without keys, where it is."""
        if self._chosen.key:
            row = self._row(index)
            return key_name([row[name] for name in self._chosen.key], f"row {index}")
        file, place = self._scanned.place(range(len(self))[index])
        return f"{self._files[file].name} row {place + 1}"

    def _row(self, index: int) -> Row:
        number, place = self._scanned.place(range(len(self))[operator.index(index)])
        file, (stamp, rows) = self._files[number], self._scanned.found[number]
        try:
            row = self._format.row(file, stamp, rows, place)
            # Files may be appended to while their rows are learned; rows may not change.
            same = not self._format.rereads or file.is_still(stamp)
            if not same:
                content = digest_of_content(canonical(self._chosen.of(row)))
                same = content == rows.contents[place].tobytes()
        except (ValueError, LookupError, StopIteration, csv.Error, msgspec.MsgspecError):
            same = False
        if not same:
            raise changed(file.where, f"its row {place + 1} is another than at first")
        return row

    def _check_columns(self, first: Rows, rows: Rows, file: DataFile) -> None:
        if self._chosen.columns is None and set(rows.columns) != set(first.columns):
            raise DataError(
                f"{file.where} has other columns than {self._files[0].where}",
                why=f"only one of them has {sorted(set(rows.columns) ^ set(first.columns))}",
                do="choose by columns= what all files have, or give every file the same columns",
            )

    def _refuse_duplicates(self, keys: Digests) -> None:
        high, _ = halves(keys)
        if not has_equal(high):
            return
        order = np.argsort(high, kind="stable")
        again = np.sort(order[1:][high[order][1:] == high[order][:-1]])
        names = dict.fromkeys(repr(self._name(index)) for index in again[:5].tolist())
        raise DataError(
            f"{len(again)} of {len(keys)} rows have a key that another row has: "
            + ", ".join(names)
            + (", …" if len(again) > 5 else ""),
            do="give every row its own key, or choose more columns by key=[…]",
        )


@dataclass(frozen=True, eq=False)
class _Scanned:
    """What is known of the files' rows."""

    found: list[tuple[Stamp, Rows]]

    @cached_property
    def ends(self) -> npt.NDArray[np.int64]:
        return np.cumsum([rows.count for _, rows in self.found], dtype=np.int64)

    @cached_property
    def contents(self) -> Digests:
        return np.concatenate([rows.contents for _, rows in self.found])

    @cached_property
    def keys(self) -> Digests | None:
        keys = [rows.keys for _, rows in self.found if rows.keys is not None]
        return np.concatenate(keys) if keys else None

    def place(self, index: int) -> tuple[int, int]:
        """The number of the file, and of the row in it."""
        if len(self.found) == 1:
            return 0, index
        file = int(np.searchsorted(self.ends, index, side="right"))
        return file, index - (int(self.ends[file - 1]) if file else 0)


class _Names(Sequence[str]):
    """The rows' names, read when they are asked for."""

    def __init__(self, table: Table) -> None:
        self._table = table

    def __len__(self) -> int:
        return len(self._table)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> list[str]: ...

    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._table._name(each) for each in range(len(self))[index]]
        return self._table._name(index)

    def __iter__(self) -> Iterator[str]:
        return (self._table._name(index) for index in range(len(self)))


def format_of(name: str) -> str | None:
    """The format of a table file by its name; `None` if it tells none."""
    return FORMATS.get(os.path.splitext(name)[1].lower())


def _tables_at(where: Where, format: str | None) -> list[DataFile]:
    files = files_at(where)
    if not files:
        raise no_items(parse(where).display)
    if format is None and len(files) > 1:
        tables = [file for file in files if format_of(file.name)]
        if not tables:
            raise DataError(
                f"there is no table in {parse(where).display}",
                why=f"no name there ends in {', '.join(FORMATS)}",
                do='say which format they have, such as format="csv"',
            )
        return tables
    if len(files) > 1:
        return [file for file in files if format_of(file.name) == format] or files
    return files


def _format_of(files: Sequence[DataFile]) -> str:
    formats = sorted({format_of(file.name) or "" for file in files})
    if len(formats) == 1 and formats[0]:
        return formats[0]
    why = f"there are {', '.join(formats)}" if all(formats) else "its name does not tell"
    if any(file.name.endswith((".gz", ".bz2", ".xz", ".zst", ".zip")) for file in files):
        why = "compressed tables are not read"
    raise DataError(
        f"the format of the table is not clear: {files[0].where}",
        why=why,
        do='unpack it if it is compressed, choose files by a glob, or say format="csv", "tsv", '
        '"jsonl" or "parquet"',
    )


def _format(name: str, chosen: Chosen) -> Format:
    match name:
        case "csv":
            return Csv(chosen)
        case "tsv":
            return Csv(chosen, delimiter="\t")
        case "jsonl":
            return Jsonl(chosen)
        case "parquet":
            from onward.data.table_parquet import Parquet

            return Parquet(chosen)
    raise UsageError(f"format is {name!r}", do='use "csv", "tsv", "jsonl" or "parquet"')


def _names(given: str | Sequence[str] | None, option: str) -> tuple[str, ...] | None:
    if given is None:
        return None
    names = (given,) if isinstance(given, str) else tuple(given)
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) for n in names):
        raise UsageError(f"{option} is {given!r}", do="give the names of columns, each once")
    return names


def _holding(file: DataFile) -> DataFile:
    return LocalFile(file.path, file.name, holds=True) if isinstance(file, LocalFile) else file
