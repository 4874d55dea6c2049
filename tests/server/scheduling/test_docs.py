"""docs/server/jobs.md says what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from onward.engines import base
from onward.jobs.states import ATTEMPT_MOVES, CAUSES, JOB_MOVES
from onward.server.settings import Settings
from onward.server.spec import RetrySpec

TEXT = (Path(__file__).parents[3] / "docs/server/jobs.md").read_text()


def rows(header: str) -> dict[str, str]:
    """First and second column of the table with this header."""
    lines = TEXT[TEXT.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: row[1] for row in cells}


def moves(header: str) -> dict[str, frozenset[str]]:
    return {
        state: frozenset() if after == "–" else frozenset(after.split(", "))
        for state, after in rows(header).items()
    }


def test_the_tables_of_moves() -> None:
    assert moves("a job that is") == JOB_MOVES
    assert moves("an attempt that is") == ATTEMPT_MOVES


def test_the_table_of_causes_and_their_retries() -> None:
    lines = TEXT[TEXT.index("| cause |") :].split("\n\n")[0].splitlines()[2:]
    found = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in lines}
    defaults = {cause: str(RetrySpec().of(cause)) for cause in CAUSES}
    assert found == {**defaults, "fenced": "never"}


def test_the_files_of_an_attempt() -> None:
    names = [base.JOB, base.AGENT, base.LOCK, base.CONTROL, base.EVENTS, base.LOG, base.LOG_CUT,
             base.SCRIPT, f"{base.WORK}/", base.OUTCOME]  # fmt: skip
    assert list(rows("file")) == [f"`{name}`" for name in names]


def test_the_numbers() -> None:
    settings = Settings()
    assert re.search(rf"waits {settings.first_backoff_s:g} s", TEXT)
    assert re.search(rf"most {settings.longest_backoff_s / 60:g} min", TEXT)
    assert settings.longest_log == 1 << 30
