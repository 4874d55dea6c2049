"""How processes get killed, and how what they leave is compared: the same for every framework."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.errors import NotAnOutput
from onward.repository import Commit, Repository, open_repository
from onward.stores import open_store


@dataclass(frozen=True)
class Kill:
    """Where a process kills itself; `at` counts from the start of the process."""

    event: str = ""  # "step", "before-first-batch", "epoch-end", "file-operation"
    at: int = 0
    by: signal.Signals = signal.SIGKILL


class Executioner:
    """Kills its own process where a `Kill` says."""

    def __init__(self, kill: Kill) -> None:
        self._kill = kill
        self._counts: dict[str, int] = {}

    def reached(self, event: str) -> None:
        self._counts[event] = self._counts.get(event, 0) + 1
        if event == self._kill.event and self._counts[event] == self._kill.at:
            os.kill(os.getpid(), self._kill.by)

    def watch_file_operations(self) -> None:
        """Counts every operation of the local store from here on, opening and saving alike."""
        if self._kill.event != "file-operation":
            return
        from onward.stores import RealFileSystem

        for name in [n for n in vars(RealFileSystem) if not n.startswith("_")]:
            setattr(RealFileSystem, name, self._counted(getattr(RealFileSystem, name)))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.reached("file-operation")
            return method(*arguments, **options)

        return counted


class SampleLog:
    """What the optimizer consumed, in order; part of the state."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    def state_dict(self) -> dict[str, Any]:
        return {"ids": list(self.ids)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.ids = list(state["ids"])


def append(path: str, text: str) -> None:
    """Adds to a file that outlives this process, whenever that ends."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, text.encode())
    os.close(file)


def newest(output: Path) -> tuple[Repository, Commit]:
    repository = open_repository(open_store(output))
    latest = repository.history.latest()
    assert latest is not None
    return repository, latest


def next_increment(output: str) -> int:
    """The increment that a run on this output will be about."""
    try:
        latest = open_repository(open_store(output)).history.latest()
    except NotAnOutput:
        return 1
    return 1 if latest is None else latest.increment + latest.finished


def scores(output: Path) -> list[object]:
    """The rows of the matrix, as the log has them."""
    history = open_repository(open_store(output)).history
    return [commit.scores for commit in history.live() if commit.finished]


def final_state(output: Path) -> dict[str, Any]:
    """Every bit of the finished state: tensors by digest, everything else as it is stored."""
    repository, latest = newest(output)
    assert latest.finished
    manifest = repository.manifest(latest)
    found: dict[str, Any] = {t.path: (t.dtype, t.shape, t.digest) for t in manifest.tensors}
    assert len(found) == len(manifest.tensors)
    return {**found, "state": manifest.state}


def differing(one: dict[str, Any], two: dict[str, Any]) -> Iterator[str]:
    """Paths of everything that is not the same bits."""
    for path in sorted(one.keys() | two.keys(), key=str):
        here, there = one.get(path), two.get(path)
        if isinstance(here, dict) and isinstance(there, dict):
            yield from (f"{path}/{below}" for below in differing(here, there))
        elif here != there:
            yield f"{path}: {str(here)[:60]}, {str(there)[:60]}"
