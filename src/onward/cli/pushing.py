"""What this machine holds of an output that the object store does not have yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.cli.text import clean
from onward.errors import OnwardError
from onward.repository import History
from onward.repository.working import Lag, LagWatch, lag_of
from onward.stores import LocalStore, parse
from onward.training.lag import lag_text
from onward.training.places import working_copies


@dataclass(frozen=True, slots=True)
class Behind:
    """A working copy, and how far pushing from it is behind."""

    folder: Path
    lag: Lag


def unpushed_here(output: str, history: History) -> list[Behind]:
    """For a working copy, itself; for a URL, the working copies of it on this machine."""
    location = parse(output)
    folders = [Path(location.prefix)] if location.is_local else working_copies(output)
    found = []
    for folder in folders:
        try:
            left = LagWatch(LocalStore(folder)).unpushed()
        except OnwardError:
            continue
        if not location.is_local:
            # The store knows best: its own log may be ahead of what the copy noted last.
            left = [commit for commit in left if commit.checkpoint not in history.commits]
        lag = lag_of(left)
        if lag.checkpoints:
            found.append(Behind(folder, lag))
    return found


def unpushed_lines(behind: list[Behind]) -> list[str]:
    """A line for each."""
    return [f"{lag_text(each.lag)}: in {clean(each.folder)}" for each in behind]


def unpushed_document(behind: list[Behind]) -> dict[str, Any]:
    """The same for programs."""
    return {
        "unpushed": [
            {
                "folder": str(each.folder),
                "checkpoints": each.lag.checkpoints,
                "bytes": each.lag.size_bytes,
                "oldest_seconds": round(each.lag.oldest_s, 3),
            }
            for each in behind
        ]
    }
