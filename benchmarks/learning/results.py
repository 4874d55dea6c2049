"""The lines that a run writes, one for each thing measured; a run that was stopped reads them."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

Key = tuple[str, str, float, int, str]


@dataclass(frozen=True)
class Line:
    """One method on one scenario with one seed. `share` is of a full retrain's steps."""

    scenario: str
    method: str
    share: float
    seed: int
    metrics: dict[str, float]
    steps: int
    seconds: float
    """CPU time of training: steadier than the clock where a machine is shared."""
    framework: str = "torch"

    @property
    def key(self) -> Key:
        """What makes a second measurement of the same thing needless."""
        return (self.scenario, self.method, self.share, self.seed, self.framework)


def append(file: Path, line: Line) -> None:
    """Adds a line to `file`, in one write, so that processes may share the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(line)) + "\n"
    target = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(target, text.encode())
    finally:
        os.close(target)


def mend(file: Path) -> None:
    """Cuts off a last line that a kill left unfinished, so that the next one begins afresh."""
    if file.exists() and (content := file.read_bytes()) and not content.endswith(b"\n"):
        with file.open("r+b") as opened:
            opened.truncate(content.rfind(b"\n") + 1)


def read(file: Path) -> list[Line]:
    """All whole lines of `file`; none where it is not there."""
    if not file.exists():
        return []
    whole, _, _ = file.read_text().rpartition("\n")
    return [Line(**json.loads(text)) for text in whole.splitlines()]


def by_method(lines: Iterable[Line]) -> dict[tuple[str, float], dict[int, Line]]:
    """For each method and share, in the order of `lines`, the line of each seed.

    All lines are of one scenario and one framework.
    """
    found: dict[tuple[str, float], dict[int, Line]] = defaultdict(dict)
    for line in lines:
        found[line.method, line.share][line.seed] = line
    return dict(found)
