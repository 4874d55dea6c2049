"""Rows of JSONL files: one object of JSON in each line."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from onward.data.files import DataFile, Stamp
from onward.data.rows import Chosen, Digester, Lines, Row, Rows
from onward.errors import DataError

_decode = msgspec.json.Decoder().decode


class Jsonl:
    """Objects, whose order of names does not matter; blank lines are passed over.

    NaN and infinities are not JSON. Of a name that an object has twice the last value counts.
    """

    rereads = True

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen

    def scan(self, file: DataFile, stamp: Stamp) -> Rows:
        lines = Lines(file, stamp)
        digester = Digester(file, self._chosen)
        rows_at: list[int] = []  # for each row, how many lines are before it
        for batch in lines.batches():
            texts = [
                (lines.before + index, text)
                for index, text in enumerate(batch.split(b"\n"))
                if text and not text.isspace()
            ]
            self._digest(digester, self._parsed(texts, file), texts)
            rows_at += [number for number, _ in texts]
        starts = lines.starts()
        return digester.rows(np.append(starts[rows_at], starts[-1]).astype(np.int64), ())

    def row(self, file: DataFile, stamp: Stamp, rows: Rows, index: int) -> Row:
        start, end = rows.starts[index : index + 2].tolist()
        row: Row = _decode(file.read_at(start, end - start).removeprefix(b"\xef\xbb\xbf"))
        return row

    def _parsed(self, texts: list[tuple[int, bytes]], file: DataFile) -> list[Row]:
        rows: list[Any] = []
        try:
            for _, text in texts:
                rows.append(_decode(text))
        except (msgspec.MsgspecError, RecursionError) as error:
            raise _unreadable(file, texts[len(rows)][0] + 1, str(error)) from error
        for (number, _), row in zip(texts, rows, strict=True):
            if row.__class__ is not dict:
                why = f'it holds a {type(row).__name__}, not an object such as {{"x": 1}}'
                raise _unreadable(file, number + 1, why)
        for name in (*self._chosen.key, *(self._chosen.columns or ())):
            for (number, _), row in zip(texts, rows, strict=True):
                if name not in row:
                    raise _unreadable(file, number + 1, f"it has no {name!r}")
        return rows

    def _digest(self, digester: Digester, rows: list[Row], texts: list[tuple[int, bytes]]) -> None:
        if not rows:
            return
        names = rows[0].keys()
        places = [number + 1 for number, _ in texts]
        chosen = self._chosen.columns
        if chosen is None and (not names or any(row.keys() != names for row in rows)):
            digester.add_rows(rows, places)
            return
        digester.add_values(
            {name: [row[name] for row in rows] for name in (names if chosen is None else chosen)},
            [[row[name] for row in rows] for name in self._chosen.key],
            places,
        )


def _unreadable(file: DataFile, line: int, why: str) -> DataError:
    return DataError(f"line {line} of {file.where} cannot be read", why=why, do="mend the line")
