"""Rows of Parquet files, through pyarrow."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from onward.data.files import DataFile, Stamp
from onward.data.rows import Chosen, Digester, Row, Rows
from onward.errors import DataError, UsageError

_BATCH = 65536
_NO_STARTS = np.empty(0, np.int64)


class Parquet:
    """Numbers, text, bytes, lists and structs as Python's own, times as NumPy's.

    Those are `datetime64`, and `timedelta64` for times of day, in the resolution of the file.
    To give rows, the wanted columns of a file are kept in memory from the first on.
    """

    rereads = False

    def __init__(self, chosen: Chosen) -> None:
        self._chosen = chosen
        self._arrow, self._parquet = _imported("pyarrow"), _imported("pyarrow.parquet")
        self._read: dict[tuple[str, Stamp], dict[str, Callable[[int], Any]]] = {}

    def __reduce__(self) -> tuple[type[Parquet], tuple[Chosen]]:
        return Parquet, (self._chosen,)  # every process reads for itself

    def scan(self, file: DataFile, stamp: Stamp) -> Rows:
        digester = Digester(file, self._chosen, unit="row")
        with self._opened(file, stamp) as opened:
            names = opened.schema_arrow.names
            self._chosen.check(names, file.where)
            columns = names if self._chosen.columns is None else self._chosen.columns
            wanted = [name for name in names if name in (*columns, *self._chosen.key)]
            if not wanted:
                raise DataError(f"{file.where} has no columns", do="remove it from the data")
            first = 1
            for batch in opened.iter_batches(batch_size=_BATCH, columns=wanted):
                if not batch.num_rows:
                    continue
                values = {name: self._values(batch.column(name)) for name in wanted}
                digester.add_values(
                    {name: values[name] for name in columns},
                    [values[name] for name in self._chosen.key],
                    range(first, first + batch.num_rows),
                )
                first += batch.num_rows
        file.open(stamp).close()  # still the same
        return digester.rows(_NO_STARTS, names)

    def row(self, file: DataFile, stamp: Stamp, rows: Rows, index: int) -> Row:
        columns = self._read.get((file.where, stamp))
        if columns is None:
            wanted = rows.columns if self._chosen.columns is None else self._chosen.columns
            wanted = tuple(dict.fromkeys([*wanted, *self._chosen.key]))
            with self._opened(file, stamp) as opened:
                table = opened.read(columns=list(wanted))
                columns = {name: self._getter(table.column(name)) for name in wanted}
            self._read[file.where, stamp] = columns
        return {name: at(index) for name, at in columns.items()}

    def _values(self, column: Any) -> Any:
        """A column's values as the table returns them; NumPy arrays only of times."""
        types = self._arrow.types
        column = self._plain(column)
        kind = column.type
        if types.is_temporal(kind):
            values = column.to_numpy(zero_copy_only=False)
            if not column.null_count:
                return values
            nulls = column.is_null().to_numpy(zero_copy_only=False).tolist()
            return [None if gone else value for value, gone in zip(values, nulls, strict=True)]
        simple = types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind)
        if simple and not column.null_count:
            return column.to_numpy(zero_copy_only=False).tolist()
        return column.to_pylist()

    def _getter(self, column: Any) -> Callable[[int], Any]:
        whole = self._plain(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0))
        types = self._arrow.types
        if not types.is_temporal(whole.type) and not types.is_nested(whole.type):
            if whole.null_count or not (
                types.is_integer(whole.type) or types.is_floating(whole.type)
            ):
                return lambda index: whole[index].as_py()
            values = whole.to_numpy(zero_copy_only=False)
            return lambda index: values[index].item()
        if types.is_nested(whole.type):
            return lambda index: whole[index].as_py()
        values = self._values(whole)
        return lambda index: values[index]

    def _plain(self, column: Any) -> Any:
        """Without what only says how values are stored; times of day as time since midnight."""
        types = self._arrow.types
        if isinstance(column, self._arrow.ExtensionArray):
            column = column.storage
        if types.is_dictionary(column.type):
            column = column.dictionary_decode()
        if types.is_time(column.type):
            unit = column.type.unit
            whole = self._arrow.int32() if types.is_time32(column.type) else self._arrow.int64()
            column = column.cast(whole).cast(self._arrow.int64())
            column = column.cast(self._arrow.duration(unit))
        if types.is_date64(column.type):
            column = column.cast(self._arrow.timestamp("ms"))
        return column

    @contextmanager
    def _opened(self, file: DataFile, stamp: Stamp) -> Iterator[Any]:
        try:
            with file.open(stamp) as bytes_, self._parquet.ParquetFile(bytes_) as opened:
                yield opened
        except (self._arrow.ArrowException, OSError, EOFError) as error:
            raise DataError(
                f"{file.where} cannot be read",
                why=str(error),
                do="check that it is a whole Parquet file",
            ) from error


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            "Parquet tables cannot be read here",
            why="the package pyarrow is not installed",
            do="pip install 'onward[tables]'",
        ) from error
