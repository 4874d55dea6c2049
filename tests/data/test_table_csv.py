"""CSV as it is met: marks, line ends, blank lines, and mistakes that are named by their line."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onward.data import Table
from onward.data.content import canonical, digest_of_content
from onward.errors import DataError


@pytest.fixture
def table(data: Path) -> Callable[..., Table]:
    """The table of a file with this content."""

    def made(content: bytes, **options: str) -> Table:
        path = data / "t.csv"
        path.write_bytes(content)
        return Table(path, **options)  # type: ignore[arg-type]

    return made


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,x\n2,y\n",
        b"a,b\r\n1,x\r\n2,y\r\n",
        b"\xef\xbb\xbfa,b\n1,x\n2,y",
        b'\xef\xbb\xbf"a","b"\n"1","x"\n"2","y"\n',
        b"\n\na,b\n\n1,x\r\n\r\n2,y\n\n\n",
    ],
)
def test_the_way_it_is_written_is_nothing(table: Callable[..., Table], content: bytes) -> None:
    """Byte order marks, line ends, quotes and blank lines do not change a row."""
    found = table(content, key="a")
    assert [*found] == [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]
    first = found.snapshot().digest
    assert table(b"a,b\n1,x\n2,y\n", key="a").snapshot().digest == first


def test_values_are_text_as_they_are_written(table: Callable[..., Table]) -> None:
    """Nothing is guessed: zeros, NaN, huge numbers and spaces stay."""
    values = ["007", "NaN", "1e400", "9" * 50, " x ", "-0", "\x00", "a\tb", "\u2028", "\x85"]
    content = "v\n" + "".join(f"{value}\n" for value in values)
    assert [row["v"] for row in table(content.encode())] == values
    assert len(set(map(repr, table(content.encode()).snapshot().names))) == len(values)


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b"a,b\n1,2\n3\n4,5\n", 3, "it has 1 values, the header names 2 columns"),
        (b"a,b\n1,2\n3,4,\n", 3, "it has 3 values"),
        (b'a,b\n"1\n\n2",2\n\n3\n', 6, "it has 1 values"),
        (b'a,b\n1,"2\n3,4\n', 3, "unexpected end of data"),
        (b'a,b\n1,"2"3\n', 2, "expected after"),
        (b"a,b\n1,2\n3,caf\xe9\n", 3, "not UTF-8 text: .*0xe9"),
        (b"\xff\xfea\x00,\x00b\x00\n\x00", 1, "not UTF-8 text"),
        (b"a,b\n1\r2,3\n", 2, "new-line character"),
        (b"a\n" + b"x" * 200_000 + b"\n", 2, "field limit"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(
    table: Callable[..., Table], content: bytes, line: int, why: str
) -> None:
    """The file, the line and the reason."""
    with pytest.raises(DataError, match=rf"line {line} of .*t.csv cannot be read: .*{why}"):
        len(table(content))


def test_a_mistake_far_behind_is_named_by_its_line(table: Callable[..., Table]) -> None:
    """Across the pieces in which a file is read."""
    good = b"".join(b'%d,"two\nlines"\n' % number for number in range(100_000))
    with pytest.raises(DataError, match="line 200002 of"):
        len(table(b"a,b\n" + good + b"1\n"))
    with pytest.raises(DataError, match="line 200002 of"):
        len(table(b"a,b\n" + good + b"1,\xff\n"))
    found = table(b"a,b\n" + good)
    assert len(found) == 100_000
    assert found[99_999] == {"a": "99999", "b": "two\nlines"}


def test_a_header_that_is_missing_or_ambiguous_is_an_error(table: Callable[..., Table]) -> None:
    """Without names there are no columns."""
    with pytest.raises(DataError, match="has no header: the file is empty"):
        len(table(b""))
    with pytest.raises(DataError, match="two columns of one name: 'a'"):
        len(table(b"a,b,a\n1,2,3\n"))
    with pytest.raises(DataError, match="no column 'id': its first row names '1', 'x'"):
        len(table(b"1,x\n2,y\n", key="id"))
    assert table(b",b\n0,2\n")[0] == {"": "0", "b": "2"}


def test_tabs_separate_as_well(data: Path) -> None:
    """In files that say so by their names."""
    (data / "t.tsv").write_text("a\tb\n1,5\t2\n")
    assert Table(data / "t.tsv")[0] == {"a": "1,5", "b": "2"}


CELLS = st.text(st.characters(exclude_categories=["Cs"])) | st.sampled_from(
    ['"', ",", "\r\n", "\n"]
)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1), end=st.sampled_from(["\n", "\r\n"]))
def test_what_python_writes_is_what_the_table_gives(
    data: Path, rows: list[tuple[str, str]], end: str
) -> None:
    """Whatever is in the values, and however lines end."""
    path = data / "t.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        # With "\n" as the end, older Pythons leave a "\r" bare, which nobody can then tell apart.
        quoting = csv.QUOTE_ALL if end == "\n" else csv.QUOTE_MINIMAL
        writer = csv.writer(file, lineterminator=end, quoting=quoting)
        writer.writerows([("a", "b"), *rows])
    table = Table(path, cache=data)
    assert [(row["a"], row["b"]) for row in table] == rows
    digests = table.snapshot().identified.digests
    assert digests is not None
    firsts = {row: index for index, row in reversed([*enumerate(rows)])}
    for (first, second), index in firsts.items():
        expected = digest_of_content(canonical({"a": first, "b": second}))
        assert digests[index].tobytes() == expected
