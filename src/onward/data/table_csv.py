"""Rows of CSV files. Every value is text, as it is in the file: nothing is guessed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import numpy as np

from onward.data.files import DataFile, Stamp
from onward.data.rows import Chosen, Digester, Lines, Row, Rows
from onward.errors import DataError

_BATCH = 8192


class Csv:
    """Comma- or tab-separated values after RFC 4180, with a header; blank lines are passed over."""

    rereads = True

    def __init__(self, chosen: Chosen, *, delimiter: str = ",") -> None:
        self._chosen = chosen
        self._delimiter = delimiter

    def scan(self, file: DataFile, stamp: Stamp) -> Rows:
        lines = Lines(file, stamp)
        # As Latin-1, one character for one byte, which every value keeps; UTF-8 has been checked.
        reader = csv.reader(_texts(lines), delimiter=self._delimiter, strict=True)
        digester = Digester(file, self._chosen)
        firsts: list[int] = []  # for each row, how many lines are before it
        try:
            header = _in_utf8(next((row for row in reader if row), []))
            if not header:
                raise DataError(
                    f"{file.where} has no header",
                    why="the file is empty",
                    do="begin it with the columns' names",
                )
            self._chosen.check(header, file.where)
            batch: list[list[str]] = []
            before = reader.line_num
            for row in reader:
                if row:
                    batch.append(row)
                    firsts.append(before)
                    if len(batch) == _BATCH:
                        self._digest(digester, header, batch, firsts, file)
                        batch = []
                before = reader.line_num
            self._digest(digester, header, batch, firsts, file)
        except csv.Error as error:
            raise DataError(
                f"line {reader.line_num} of {file.where} cannot be read",
                why=str(error),
                do="call csv.field_size_limit with a larger number first"
                if "field limit" in str(error)
                else "mend the line: quotes go around a whole value, those within it are doubled",
            ) from error
        starts = lines.starts()
        return digester.rows(np.append(starts[firsts], starts[-1]).astype(np.int64), header)

    def row(self, file: DataFile, stamp: Stamp, rows: Rows, index: int) -> Row:
        start, end = rows.starts[index : index + 2].tolist()
        text = file.read_at(start, end - start).decode("utf-8")
        if '"' in text:
            lines = io.StringIO(text, newline="\n")
            values = next(csv.reader(lines, delimiter=self._delimiter, strict=True))
        else:
            values = text.rstrip("\r\n").split(self._delimiter)
        return dict(zip(rows.columns, values, strict=True))

    def _digest(
        self,
        digester: Digester,
        header: list[str],
        batch: list[list[str]],
        firsts: list[int],
        file: DataFile,
    ) -> None:
        if not batch:
            return
        if set(map(len, batch)) != {len(header)}:
            index = next(index for index, row in enumerate(batch) if len(row) != len(header))
            raise DataError(
                f"line {firsts[index - len(batch)] + 1} of {file.where} cannot be read",
                why=f"it has {len(batch[index])} values, the header names {len(header)} columns",
                do="mend the line",
            )
        columns = dict(zip(header, zip(*batch, strict=True), strict=True))
        wanted = header if self._chosen.columns is None else self._chosen.columns
        digester.add_columns(
            {name: [f"s{len(value)}:{value}" for value in columns[name]] for name in wanted},
            [_in_utf8(columns[name]) for name in self._chosen.key],
            [first + 1 for first in firsts[-len(batch) :]],
        )


def _texts(lines: Lines) -> Iterator[str]:
    for batch in lines.batches():
        yield from io.StringIO(batch.decode("latin-1"), newline="\n")


def _in_utf8(values: list[str] | tuple[str, ...]) -> list[str]:
    return [
        value if value.isascii() else value.encode("latin-1").decode("utf-8") for value in values
    ]
