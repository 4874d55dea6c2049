"""JSONL as it is met: free objects, numbers of all sizes, and mistakes named by their line."""

from __future__ import annotations

import json
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
        path = data / "t.jsonl"
        path.write_bytes(content)
        return Table(path, **options)  # type: ignore[arg-type]

    return made


@pytest.mark.parametrize(
    "content",
    [
        b'{"a": 1, "b": [1.5, null]}\n{"a": 2, "b": {}}\n',
        b'\xef\xbb\xbf{"b":[15e-1,null],"a":1}\r\n\r\n{"b": {},"a":2}',
        b'\n  \n{"\\u0061": 1, "b": [1.50, null] }\n\n{"a": 2, "b": {}}\n\n',
    ],
)
def test_the_way_it_is_written_is_nothing(table: Callable[..., Table], content: bytes) -> None:
    """Order, spaces, escapes, line ends and blank lines do not change a row."""
    found = table(content, key="a")
    rows = [{"a": 1, "b": [1.5, None]}, {"a": 2, "b": {}}]
    assert [*found] == rows
    assert [*found.snapshot().names] == ["1", "2"]
    digests = found.snapshot().identified.digests
    assert digests is not None
    for row, digest in zip(rows, digests, strict=True):
        assert digest[8:].tobytes() == digest_of_content(canonical(row))[:8]


def test_rows_may_have_other_names(table: Callable[..., Table]) -> None:
    """What a row lacks is not what it has as null."""
    found = table(b'{"a": 1}\n{"a": 1, "b": null}\n{}\n{"a": true}\n{"a": 1.0}\n{"a": "1"}\n')
    assert [*found] == [{"a": 1}, {"a": 1, "b": None}, {}, {"a": True}, {"a": 1.0}, {"a": "1"}]
    digests = found.snapshot().identified.digests
    assert digests is not None
    assert len({row.tobytes() for row in digests}) == 6
    assert table(b"{}\n{}\n").snapshot().items == 2


def test_whole_numbers_are_exact_however_large(table: Callable[..., Table]) -> None:
    """Two that a float could not tell apart are two keys."""
    found = table(b'{"a": %d}\n{"a": %d}\n' % (2**80, 2**80 + 1), key="a")
    assert found[1] == {"a": 2**80 + 1}
    assert found.snapshot().names[0] == str(2**80)


@pytest.mark.parametrize(
    ("content", "line", "why"),
    [
        (b'{"a": 1}\n\n{"a": 2\n', 3, "truncated"),
        (b'{"a": 1}\n{"a": NaN}\n', 2, "malformed"),
        (b'{"a": 1}\n{"a": 1e999}\n', 2, "out of range"),
        (b'{"a": 1}\n[1]\n', 2, "it holds a list"),
        (b'{"a": "\\ud800"}\n', 1, ""),
        (b'{"a": "\xe9"}\n', 1, "not UTF-8 text"),
        (b'{"a": 1} {"a": 2}\n', 1, "trailing"),
        (b"[" * 100_000 + b"\n", 1, ""),
        (b'{"a": ' + b"[" * 500 + b"]" * 500 + b"}\n", 1, ""),
    ],
)
def test_what_cannot_be_read_is_named_by_its_line(
    table: Callable[..., Table], content: bytes, line: int, why: str
) -> None:
    """The file, the line and the reason."""
    with pytest.raises(DataError, match=rf"line {line} of .*t.jsonl(?s:.*){why}"):
        len(table(content))


@pytest.mark.parametrize("value", [b"1.5", b"true", b"null", b"[1]", b'""'])
def test_a_key_is_text_or_a_whole_number(table: Callable[..., Table], value: bytes) -> None:
    """1 and 1.0 and true are too easily confused."""
    with pytest.raises(DataError, match=r"line 3 of .*t.jsonl"):
        len(table(b'{"a": 1}\n\n{"a": %s}\n' % value, key="a"))
    with pytest.raises(DataError, match=r"line 1 of .*t.jsonl.* has no 'k'"):
        len(table(b'{"a": 1}\n', key="k"))


def test_a_key_is_known_by_its_text(table: Callable[..., Table]) -> None:
    """So that `onward data seen 1` is clear: 1 and "1" in one table are one key."""
    with pytest.raises(DataError, match="1 of 2 rows have a key that another row has: '1'"):
        table(b'{"a": 1}\n{"a": "1"}\n', key="a").snapshot()


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abé"), inner),
)


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rows=st.lists(st.dictionaries(st.sampled_from("abé"), VALUES), min_size=1, unique_by=repr),
    escapes=st.booleans(),
)
def test_what_python_writes_is_what_the_table_gives(
    data: Path, rows: list[dict[str, object]], escapes: bool
) -> None:
    """Whatever is in the values."""
    path = data / "t.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=escapes) for row in rows))
    table = Table(path, cache=data)
    assert repr([*table]) == repr(rows)
    digests = table.snapshot().identified.digests
    assert digests is not None
    known = {digest.tobytes() for digest in digests}
    assert all(digest_of_content(canonical(row)) in known for row in rows)
