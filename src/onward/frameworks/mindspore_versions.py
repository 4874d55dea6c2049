"""Which MindSpore, and which NumPy beside it, Onward is tested with. Needs neither."""

from __future__ import annotations

import re

from onward.errors import UsageError

OLDEST, NEWEST = (2, 10), (2, 10)
"""The versions of `mindspore` whose inner names are known: from here, to here."""


def check_versions(mindspore: str, numpy: str) -> None:
    """Raises `UsageError` outside of the tested range, and for a NumPy that breaks MindSpore."""
    found = _numbers(mindspore)
    install = (
        f"pip install 'mindspore>={OLDEST[0]}.{OLDEST[1]},<{NEWEST[0]}.{NEWEST[1] + 1}' 'numpy<2'"
    )
    if not OLDEST <= found <= NEWEST:
        first, last = (f"{major}.{minor}" for major, minor in (OLDEST, NEWEST))
        tested = first if first == last else f"{first} to {last}"
        newer = found > NEWEST
        raise UsageError(
            f"mindspore {mindspore} is not what Onward is tested with, {tested}",
            why="an exact resume depends on how its optimizers, random generators and pipelines "
            f"keep their state, which {'is not known yet there' if newer else 'was another one'}",
            do=install + (", or a newer Onward" if newer else ""),
        )
    if _numbers(numpy) >= (2, 0):
        raise UsageError(
            f"mindspore {mindspore} does not work with numpy {numpy}",
            why="it calls what NumPy 2 has taken away: labels that are numbers and some operators "
            "fail in the middle of training",
            do=f"{install} (PyTorch works with that NumPy, too)",
        )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
