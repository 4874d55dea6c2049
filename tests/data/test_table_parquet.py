"""Parquet as it is met: every type, nulls, and files that are none."""

from __future__ import annotations

import datetime
import decimal
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.data import Table
from onward.data.content import canonical, digest_of_content
from onward.errors import DataError, UsageError


def write(path: Path, **columns: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table(columns), path, row_group_size=2)
    return path


def test_every_type_has_a_content_that_is_that_of_the_row(data: Path) -> None:
    """Numbers, text, bytes, times, decimals, nested and null values."""
    pa = pytest.importorskip("pyarrow")
    moment = datetime.datetime(2026, 1, 2, 3, 4, 5, 600)
    path = write(
        data / "t.parquet",
        key=pa.array([1, 2**62, -3], pa.int64()),
        small=pa.array([1, None, 255], pa.uint8()),
        huge=pa.array([2**64 - 1, 0, 1], pa.uint64()),
        half=pa.array(np.array([1, np.nan, -np.inf], np.float16)),
        single=pa.array([0.1, math.nan, None], pa.float32()),
        flag=pa.array([True, False, None]),
        sure=pa.array([True, False, True]),
        text=pa.array(["a", None, "é"], pa.large_string()),
        word=pa.array(["x", "y", "x"]).dictionary_encode(),
        raw=pa.array([b"", b"\xff", None]),
        when=pa.array([1, None, 3], pa.timestamp("ns")),
        zoned=pa.array([moment, moment, None], pa.timestamp("us", tz="Europe/Berlin")),
        day=pa.array([moment.date(), None, moment.date()]),
        day64=pa.array([moment.date(), None, moment.date()], pa.date64()),
        hour=pa.array([moment.time(), None, moment.time()], pa.time64("us")),
        second=pa.array([5, 6, None], pa.time32("s")),
        span=pa.array([1, 2, None], pa.duration("ms")),
        price=pa.array([decimal.Decimal("1.10"), None, decimal.Decimal("0.00")]),
        many=pa.array([[1, None], [], None], pa.list_(pa.int32())),
        record=pa.array([{"x": 1, "y": "a"}, None, {"x": None, "y": "b"}]),
        nothing=pa.nulls(3),
    )
    table = Table(path, key="key")
    rows = [*table]
    assert rows[0]["huge"] == 2**64 - 1
    assert rows[0]["when"] == np.datetime64(1, "ns")
    assert rows[0]["hour"] == np.timedelta64(((3 * 60 + 4) * 60 + 5) * 10**6 + 600, "us")
    assert rows[0]["day"] == np.datetime64("2026-01-02")
    assert rows[1]["when"] is None
    assert rows[1]["text"] is None
    assert rows[2]["text"] == "é"
    assert rows[0]["many"] == [1, None]
    assert rows[2]["word"] == "x"
    assert type(rows[0]["small"]) is int
    assert type(rows[0]["sure"]) is bool
    digests = table.snapshot().identified.digests
    assert digests is not None
    for row, digest in zip(rows, digests, strict=True):
        assert digest[8:].tobytes() == digest_of_content(canonical(row))[:8]
    assert [*table.snapshot().names] == ["1", str(2**62), "-3"]


def test_how_values_are_stored_is_nothing(data: Path) -> None:
    """Row groups, compression, dictionaries, and the width of whole numbers."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    one = write(data / "a.parquet", id=pa.array(["a", "b", "c"]), n=pa.array([1, 2, 3], pa.int8()))
    other = data / "b.parquet"
    columns = {
        "n": pa.array([1, 2, 3], pa.int64()),
        "id": pa.array(["a", "b", "c"], pa.large_string()).dictionary_encode(),
    }
    parquet.write_table(pa.table(columns), other, compression="zstd")
    first, second = (Table(path, key="id").snapshot() for path in (one, other))
    assert first.digest == second.digest


def test_a_column_that_nobody_chose_need_not_have_a_content(data: Path) -> None:
    """Others are not even read."""
    pa = pytest.importorskip("pyarrow")
    nested = pa.array([{"at": datetime.datetime(2026, 1, 1)}, None])
    path = write(data / "t.parquet", id=["a", "b"], odd=nested)
    assert [*Table(path, columns=["id"])] == [{"id": "a"}, {"id": "b"}]
    with pytest.raises(
        DataError,
        match=r"row 1 of .*: the row\['odd'\]\['at'\] is a datetime.datetime",
    ):
        len(Table(path))


def test_a_file_that_is_not_parquet_is_an_error(data: Path) -> None:
    """Empty, torn, or something else."""
    path = write(data / "t.parquet", id=["a", "b"])
    whole = path.read_bytes()
    for content in (b"", whole[:-5], b"id\na\n" * 10, whole[:20] + b"\xff" * 8 + whole[28:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"t\.parquet cannot be read"):
            len(Table(path))


def test_two_columns_of_one_name_are_an_error(data: Path) -> None:
    """A row could show only one of them."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"])
    parquet.write_table(table, data / "t.parquet")
    with pytest.raises(DataError, match="two columns of one name: 'a'"):
        len(Table(data / "t.parquet"))


def test_a_file_without_columns_is_an_error(data: Path) -> None:
    """However many rows it claims."""
    with pytest.raises(DataError, match="has no columns"):
        len(Table(write(data / "t.parquet")))


@pytest.mark.parametrize("value", [1.5, True])
def test_a_key_is_text_or_a_whole_number(data: Path, value: Any) -> None:
    """As in all formats; the place is told by the row."""
    path = write(data / "t.parquet", id=[value])
    with pytest.raises(DataError, match=r"the key in row 1 of .*t\.parquet is a (float|bool)"):
        len(Table(path, key="id"))


def test_without_pyarrow_the_error_says_what_to_install(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else works without it."""
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (data / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(UsageError, match=r"pip install 'onward\[tables\]'"):
        Table(data / "t.parquet")


def test_pyarrow_is_imported_only_for_parquet(data: Path) -> None:
    """Nor is it with the names of `onward.data`."""
    (data / "t.csv").write_text("a\n1\n")
    code = (
        "import sys, onward.data as d; d.Folder, d.identify, d.open_source\n"
        "len(d.Table(sys.argv[1])); sys.exit('pyarrow' in sys.modules or 'torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(data / "t.csv")], check=True)
