"""A table is a dataset of rows, whatever the format and the number of its files."""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Sequence
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest

from onward.data import Table
from onward.data.content import canonical, digest_of_content
from onward.data.items import digest_of_id
from onward.errors import DataChanged, DataError, UsageError
from tests.data.opening import opened_below

Row = dict[str, Any]
ROWS: list[Row] = [
    {"id": "a", "text": "one", "more": ""},
    {"id": "é", "text": 'with "quotes", commas', "more": "x"},
    {"id": "c", "text": "two\nlines\r\nor three", "more": " kept "},
    {"id": "d", "text": "日本語", "more": "0.10"},
]


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)


def write_jsonl(path: Path, rows: Sequence[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=bool(number % 2)) for number, row in enumerate(rows)]
    path.write_text("\n".join(lines), encoding="utf-8")


def write_parquet(path: Path, rows: Sequence[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


WRITERS = {"csv": write_csv, "jsonl": write_jsonl, "parquet": write_parquet}
FORMATS = [
    "csv",
    "jsonl",
    pytest.param(
        "parquet",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("pyarrow") is None, reason="pyarrow is not installed"
        ),
    ),
]
every_format = pytest.mark.parametrize("suffix", FORMATS)


@pytest.fixture
def written(data: Path) -> Callable[..., Path]:
    """Writes rows to a file of the format of its suffix."""

    def write(rows: Sequence[Row], name: str) -> Path:
        path = data / name
        WRITERS[name.rpartition(".")[2]](path, rows)
        return path

    return write


def known(table: Table) -> list[bytes]:
    digests = table.snapshot().identified.digests
    assert digests is not None
    return [row.tobytes() for row in digests]


@every_format
def test_rows_are_dicts_and_their_content_is_what_the_table_gives(
    written: Callable[..., Path], suffix: str
) -> None:
    """The one law of all formats: a row is known by its key's name and by its canonical form."""
    table = Table(written(ROWS, f"t.{suffix}"), key="id")
    assert [*table] == ROWS
    assert table[-1] == ROWS[-1]
    with pytest.raises(IndexError):
        table[4]
    with pytest.raises(TypeError):
        table[1:2]  # type: ignore[misc]
    found = table.snapshot()
    assert (found.items, found.identified.kind, [*found.names]) == (
        4,
        "keyed",
        ["a", "é", "c", "d"],
    )
    assert found.names[1:3] == ["é", "c"]
    for index, row in enumerate(ROWS):
        expected = digest_of_id(row["id"], 0)[:8] + digest_of_content(canonical(row))[:8]
        assert known(table)[index] == expected


@every_format
def test_without_a_key_equal_rows_are_items_of_their_own(
    written: Callable[..., Path], suffix: str
) -> None:
    """Rows may well be equal; the order of all does not matter to any."""
    rows = [ROWS[0], ROWS[1], ROWS[0], ROWS[0]]
    first = Table(written(rows, f"t.{suffix}"))
    again = Table(written([ROWS[0], ROWS[0], ROWS[1], ROWS[0]], f"u.{suffix}"))
    assert len(set(known(first))) == 4
    assert set(known(first)) == set(known(again))
    assert known(first)[0] == digest_of_content(canonical(ROWS[0]))
    assert first.snapshot().identified.kind == "identified"
    assert first.snapshot().names[2] == f"t.{suffix} row 3"


@every_format
def test_files_are_one_table_and_their_names_do_not_matter(
    written: Callable[..., Path], data: Path, suffix: str
) -> None:
    """Split, or renamed: the same rows in the same order are the same data."""
    whole = Table(written(ROWS, f"z.{suffix}"), key="id").snapshot()
    (data / f"z.{suffix}").unlink()
    written(ROWS[:3], f"part-1.{suffix}")
    written(ROWS[3:], f"part-2.{suffix}")
    (data / "notes.md").write_text("not a table")
    for where in (data, data / "part-*", [data / f"part-1.{suffix}", data / f"part-2.{suffix}"]):
        parts = Table(where, key="id")
        assert [*parts] == ROWS
        assert parts.snapshot().digest == whole.digest
        assert known(parts) == [row.tobytes() for row in whole.identified.digests]  # type: ignore[union-attr]


@every_format
def test_chosen_columns_are_all_there_is(written: Callable[..., Path], suffix: str) -> None:
    """What is not chosen may change: to the model it is nothing. The key need not be chosen."""
    table = Table(written(ROWS, f"t.{suffix}"), key="id", columns=["text"])
    assert table[3] == {"text": "日本語"}
    before = known(table)
    changed = [{**row, "more": "changed"} for row in ROWS]
    assert known(Table(written(changed, f"t.{suffix}"), key="id", columns=["text"])) == before
    assert known(Table(written(changed, f"t.{suffix}"), key="id")) != before


@every_format
def test_the_order_of_columns_is_nothing(written: Callable[..., Path], suffix: str) -> None:
    """Whoever writes the file again may write it otherwise."""
    table = Table(written(ROWS, f"t.{suffix}"), key="id")
    turned = [dict(reversed(row.items())) for row in ROWS]
    assert known(Table(written(turned, f"u.{suffix}"), key="id")) == known(table)


@every_format
def test_rows_with_one_key_are_named(written: Callable[..., Path], suffix: str) -> None:
    """Up to five of them; a key of several columns tells them apart."""
    rows = [{"id": f"k{number % 9}", "n": str(number)} for number in range(18)]
    path = written(rows, f"t.{suffix}")
    message = "9 of 18 rows have a key that another row has: 'k0', 'k1', 'k2', 'k3', 'k4', …"
    with pytest.raises(DataError, match=message):
        Table(path, key="id").snapshot()
    names = Table(path, key=["id", "n"]).snapshot().names
    assert names[9] == '["k0","9"]'
    twice = [path, written(rows[:1], f"u.{suffix}")]
    with pytest.raises(DataError, match=r"1 of 19 .*: '\[\"k0\",\"0\"\]'"):
        Table(twice, key=["id", "n"]).snapshot()


@every_format
@pytest.mark.usefixtures("settled")
def test_unchanged_files_are_not_read_again(
    written: Callable[..., Path], data: Path, suffix: str
) -> None:
    """Nor are rows parsed that are known from another name or an earlier time of their file."""
    for number, row in enumerate(ROWS):
        written([row], f"{number}.{suffix}")

    def snapshot() -> tuple[Any, list[str]]:
        with opened_below(data) as opened:
            found = Table(data, key="id").snapshot()
        return found, opened

    first, read = snapshot()
    assert set(read) == {f"{number}.{suffix}" for number in range(4)}
    assert snapshot() == (first, [])
    written([{**ROWS[2], "text": "changed"}], f"2.{suffix}")
    (data / f"3.{suffix}").rename(data / f"3b.{suffix}")
    second, read = snapshot()
    assert set(read) == {f"2.{suffix}", f"3b.{suffix}"}
    assert read.count(f"3b.{suffix}") == 1  # for its digest; its rows are known
    before, after = first.identified.digests, second.identified.digests
    assert [(a == b).all() for a, b in zip(before, after, strict=True)] == [True, True, False, True]


@every_format
@pytest.mark.usefixtures("settled")
def test_files_of_one_name_are_kept_apart(
    written: Callable[..., Path], data: Path, suffix: str
) -> None:
    """As days in folders of their own have them."""
    for number in range(2):
        (data / str(number)).mkdir()
        written([ROWS[number]], f"{number}/t.{suffix}")
    files = [data / "0" / f"t.{suffix}", data / "1" / f"t.{suffix}"]
    for _ in range(2):
        with opened_below(data) as opened:
            found = Table(files, key="id").snapshot()
        assert found.items == 2
    assert opened == []
    assert [*Table(files)] == ROWS[:2]


@every_format
def test_a_table_that_changes_after_it_was_scanned_gives_no_other_rows(
    written: Callable[..., Path], suffix: str
) -> None:
    """Garbage is never learned from, nor rows that the snapshot does not tell of."""
    path = written(ROWS, f"t.{suffix}")
    table = Table(path, key="id")
    assert len(table) == 4
    written([{**row, "text": "other"} for row in ROWS], f"t.{suffix}")
    with pytest.raises(DataChanged, match="changed while it was read"):
        table[0]


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("reads_before", [True, False])
def test_a_table_may_be_appended_to_while_it_is_learned(
    written: Callable[..., Path], suffix: str, reads_before: bool
) -> None:
    """Its rows stay those it had; only a row that is no longer itself is an error."""
    path = written(ROWS, f"t.{suffix}")
    with path.open("ab") as file:
        file.write(b"\n")
    table = Table(path, key="id")
    assert len(table) == 4
    assert not reads_before or table[0] == ROWS[0]
    with path.open("ab") as file:
        file.write(b'{"id": "new"}\n' if suffix == "jsonl" else b"new,2,3\n")
    assert [*table] == ROWS
    path.write_bytes(path.read_bytes().replace(b"one", b"two"))
    with pytest.raises(DataChanged, match="its row 1 is another than at first"):
        table[0]
    assert table[1] == ROWS[1]
    path.write_bytes(path.read_bytes()[:70])
    with pytest.raises(DataChanged, match="its row 3 is another than at first"):
        table[2]


@every_format
def test_a_table_without_rows_is_empty(written: Callable[..., Path], suffix: str) -> None:
    """An empty file among others is none."""
    whole = written(ROWS, f"t.{suffix}")
    content = whole.read_bytes()
    if suffix == "parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(whole)
        pyarrow.parquet.write_table(table.slice(0, 0), whole)
    else:
        whole.write_bytes(content[: content.index(b"\n") + 1] if suffix == "csv" else b"\n")
    with pytest.raises(DataError, match="the data is empty"):
        len(Table(whole))
    both = Table([whole, written(ROWS, f"u.{suffix}")], key="id")
    assert [*both] == ROWS
    assert both.snapshot().items == 4


@every_format
def test_a_key_that_is_missing_is_named_by_its_place(
    written: Callable[..., Path], suffix: str
) -> None:
    """A row without a key cannot be known."""
    rows = [{"id": "a", "n": "1"}, {"id": "", "n": "2"}]
    with pytest.raises(DataError, match=r"(line|row) [23] of .* has no key"):
        len(Table(written(rows, f"t.{suffix}"), key="id"))
    with pytest.raises(DataError, match=r"no column 'key'|no 'key'"):
        len(Table(written(rows, f"t.{suffix}"), key="key"))
    with pytest.raises(DataError, match=r"no column 'x'|no 'x'"):
        len(Table(written(rows, f"t.{suffix}"), columns=["n", "x"]))


def test_every_row_may_be_made_into_a_sample(written: Callable[..., Path]) -> None:
    """`read` makes of a row what the model learns from; the content stays that of the row."""
    path = written(ROWS, "t.csv")
    table = Table(path, key="id", read=lambda row: len(row["text"]))
    assert [*table] == [3, 21, 19, 3]
    assert known(table) == known(Table(path, key="id"))


def test_files_with_other_columns_are_no_one_table(written: Callable[..., Path]) -> None:
    """Unless the chosen ones are in all of them."""
    files = [written(ROWS, "t.csv"), written([{"id": "z", "text": "y"}], "u.csv")]
    with pytest.raises(DataError, match=r"u.csv has other columns than .*t.csv: .*\['more'\]"):
        len(Table(files))
    assert Table(files, columns=["id", "text"])[4] == {"id": "z", "text": "y"}


def test_the_format_must_be_clear(written: Callable[..., Path], data: Path) -> None:
    """By the files' names, or by `format`."""
    plain = written(ROWS, "t.csv").rename(data / "rows.txt")
    with pytest.raises(DataError, match=r"is not clear: .*rows.txt: its name does not tell"):
        Table(plain)
    assert len(Table(plain, format="csv")) == 4
    written(ROWS, "u.csv").rename(data / "more.txt")
    with pytest.raises(DataError, match="there is no table in"):
        Table(data)
    (data / "x.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="compressed tables are not read"):
        Table(data / "x.csv.gz")
    written(ROWS, "u.csv")
    written(ROWS, "u.jsonl")
    with pytest.raises(DataError, match="there are csv, jsonl"):
        Table(data)
    assert len(Table(data, format="csv")) == 4
    with pytest.raises(DataError, match="the data is empty"):
        Table(data / "none-*.csv")
    with pytest.raises(UsageError, match="format is 'xml'"):
        Table(plain, format="xml")
    with pytest.raises(DataError, match="the data is empty"):
        Table([])
    for bad in ([], ["id", "id"], [1]):
        with pytest.raises(UsageError, match="names of columns"):
            Table(plain, format="csv", key=bad)  # type: ignore[arg-type]


@every_format
def test_a_table_goes_to_other_processes(written: Callable[..., Path], suffix: str) -> None:
    """As workers of a loader need it: before and after rows were read."""
    table = Table(written(ROWS, f"t.{suffix}"), key="id")
    for _ in range(2):
        other = ForkingPickler.loads(ForkingPickler.dumps(table))
        assert [*other] == ROWS
        assert [*table] == ROWS
