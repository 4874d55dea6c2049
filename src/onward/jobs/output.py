"""What a job asks of its output, whether that is a folder or an object store."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from onward.errors import NotAnOutput, UsageError
from onward.jobs.display import counted
from onward.jobs.open_files import FileId
from onward.jobs.selection import Selection
from onward.jobs.spec import JobSpec
from onward.repository import History, Repository, Writer, open_repository
from onward.repository.retention import Retention
from onward.repository.working import Lag
from onward.stores import Store, parse
from onward.training.opening import Asked, Beginning
from onward.training.places import WorkingFolder


@dataclass(slots=True)
class Pushed:
    """What went to the output so far: bytes to its store, commits to its store, plain files."""

    size_bytes: int = 0
    commits: list[str] = field(default_factory=list)
    files: int = 0


class JobOutput(Protocol):
    """Where a job's checkpoints and files go. `folder` is what the script sees as its output.

    `selection` tells which plain files were predownloaded; None where they need not be.
    """

    folder: Path
    working: WorkingFolder | None
    pushed: Pushed
    selection: Selection | None

    def look(self) -> History:
        """Every checkpoint that exists on this machine, those not pushed yet among them."""

    def catch_up(self) -> Repository:
        """Settles what an earlier job left, and returns the repository that decides."""

    def bytes_to_fetch(self) -> int:
        """What `prepare` would fetch at the first attempt."""

    def prepare(self, asked: Asked) -> Beginning:
        """Decides how to begin and has everything that this needs in `folder`, verified."""

    def claim(self, who: str) -> Writer:
        """Takes over as the one writer."""

    def push(self, open_files: Callable[[], set[FileId]]) -> None:
        """While the script runs: pushes commits and whole files. Raises `Fenced`, `StoreError`."""

    def push_rest(self, *, in_order: bool) -> None:
        """The script has ended, in good order or not: the last push. Raises as `push` does."""

    def keep(self, retention: Retention) -> None:
        """Checkpoints that these rules do not keep go, after each push from here on."""

    def crown(self, checkpoint: str, expected: str | None) -> None:
        """This checkpoint becomes the champion in the place of `expected`, when it is pushed."""

    def unpushed(self) -> list[str]:
        """What is not at the store, in words."""

    def lag(self) -> Lag:
        """How far pushing is behind; from any one thread, whatever the others wait for."""

    def release(self) -> None:
        """Lets others on this machine have `folder`."""


def existing_repository(store: Store) -> Repository | None:
    """The repository at a store; None where there is none yet. Changes nothing."""
    try:
        return open_repository(store)
    except NotAnOutput:
        return None


def refuse_start_over(spec: JobSpec, history: History | None) -> None:
    """`--predownload no` cannot go on from checkpoints, nor start over beside them."""
    if spec.predownload == "no" and history is not None and history.latest() is not None:
        raise UsageError(
            f"{parse(spec.output).display} holds {counted(len(history.live()), 'checkpoint')}",
            why="with --predownload no none of them is fetched, and a fresh start in the same "
            "output would bury them",
            do="leave --predownload away to go on from the newest, or give another --output "
            f"(with --branch {spec.output} it begins with their weights)",
        )
