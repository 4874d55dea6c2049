"""Lines for people: sizes, counts, and nothing that acts on a terminal."""

from __future__ import annotations

import io

import pytest

from onward.jobs import display
from onward.jobs.display import Lines, counted, size


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_960, "1.0 MB"),
     (12_345_678, "12.3 MB"), (5 * 10**15, "5000.0 TB")],
)  # fmt: skip
def test_sizes_have_units_of_a_thousand(size_bytes: int, text: str) -> None:
    """And never four digits before the point, except at the end."""
    assert size(size_bytes) == text


def test_counts_agree_with_their_noun() -> None:
    """One file, two files."""
    assert [counted(n, "file") for n in (0, 1, 2000)] == ["0 files", "1 file", "2,000 files"]


def test_names_that_others_chose_do_not_act_on_a_terminal() -> None:
    """Escape sequences and line ends become visible text."""
    out = io.StringIO()
    Lines(out).say("who: \x1b[2Jevil\r \u202e ok é")
    assert out.getvalue() == "onward: who: \\x1b[2Jevil\\r \\u202e ok é\n"


def test_a_transfer_is_a_few_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One at its start, one now and then, one at its end."""
    now = iter([0.0, 1.0, 11.0, 12.0, 30.0, 31.0])
    monkeypatch.setattr(display.time, "monotonic", lambda: next(now))
    out = io.StringIO()
    with Lines(out).transfer("fetching x", 4000) as passed:
        for _ in range(4):
            passed(1000)
    assert out.getvalue().splitlines() == [
        "onward: fetching x: 4.0 kB",
        "onward: fetching x: 2.0 kB of 4.0 kB",
        "onward: fetching x: 4.0 kB of 4.0 kB",
        "onward: fetching x: done in 31.0 s",
    ]


def test_a_closed_stream_does_not_stop_a_job() -> None:
    """`onward run … 2>&1 | head` must not kill the training."""
    out = io.StringIO()
    lines = Lines(out)
    out.close()
    lines.say("nobody hears it")
