"""How a job ended: for people in a few lines, for programs in one document."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from onward.errors import OnwardError
from onward.jobs.display import counted, size
from onward.jobs.selection import Selection
from onward.repository import Commit
from onward.training.opening import Beginning, Rejected


@dataclass(slots=True)
class Attempt:
    """One try: how it began, and the script's exit status (negative: the signal that ended it).

    `saves` counts new checkpoints and plain files.
    """

    number: int
    verb: str
    why: str
    checkpoint: str | None
    generation: int
    increment: int = 1
    rejected: list[Rejected] = field(default_factory=list)
    exit_status: int | None = None
    saves: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class Outcome:
    """Everything about a job that has ended. `exit_code` is that of `onward run`.

    `selection` tells which plain files were fetched before the script started first; `nothing_new`
    why there was nothing to train on, if agent or script found so.
    """

    command: str
    exit_code: int = 0
    message: str = ""
    nothing_new: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    commits: list[Commit] = field(default_factory=list)
    newest: Commit | None = None
    steps: int = 0
    stored_bytes: int = 0
    pushed_bytes: int = 0
    pushed_files: int = 0
    selection: Selection | None = None
    unpushed: list[str] = field(default_factory=list)
    seconds: float = 0.0
    error: OnwardError | None = None

    def lines(self) -> list[str]:
        """The summary, for people, and how to go on."""
        lines = self.summary()
        if self.attempts or self.unpushed or self.error is not None:
            done = self.newest is not None and self.newest.finished and not self.unpushed
            when = "when there is more data" if done else "to go on"
            lines.append(f"{when}: {self.command}")
        return lines

    def summary(self) -> list[str]:
        """What came of it, for people."""
        facts = []
        if self.commits or not self.pushed_files:
            facts.append(counted(len(self.commits), "checkpoint") + " committed")
        if self.commits:
            facts += [counted(self.steps, "step"), f"{size(self.stored_bytes)} stored"]
        if self.pushed_bytes:
            facts.append(f"{size(self.pushed_bytes)} pushed")
        if self.pushed_files:
            facts.append(counted(self.pushed_files, "plain file"))
        facts.append(f"{self.seconds:.1f} s")
        if self.newest is not None:
            state = "finished" if self.newest.finished else "not finished"
            facts.append(
                f"newest {self.newest.checkpoint} (step {self.newest.step:,}, increment "
                f"{self.newest.increment} {state})"
            )
        lines = [self.message] if self.message else []
        if self.attempts:
            lines.append(", ".join(facts))
        if self.unpushed:
            shown = ", ".join(self.unpushed[:5])
            more = len(self.unpushed) - 5
            lines.append(
                f"NOT pushed: {shown}" + (f" and {more} more" if more > 0 else "")
                + "; the same command pushes it later"
            )  # fmt: skip
        return lines

    def document(self) -> dict[str, Any]:
        """The same as one JSON document."""
        return {
            "exit_code": self.exit_code,
            "message": self.message,
            "nothing_new": self.nothing_new or None,
            "error": error_document(self.error),
            "attempts": [asdict(attempt) for attempt in self.attempts],
            "checkpoints": [commit_document(commit) for commit in self.commits],
            "newest": commit_document(self.newest) if self.newest is not None else None,
            "finished": self.newest.finished if self.newest is not None else None,
            "steps": self.steps,
            "stored_bytes": self.stored_bytes,
            "pushed_bytes": self.pushed_bytes,
            "pushed_files": self.pushed_files,
            "files": self.selection.document() if self.selection is not None else None,
            "unpushed": self.unpushed,
            "seconds": round(self.seconds, 3),
            "command": self.command,
        }


def commit_document(commit: Commit) -> dict[str, Any]:
    """A checkpoint for programs."""
    return {
        "checkpoint": commit.checkpoint,
        "step": commit.step,
        "epoch": commit.epoch,
        "increment": commit.increment,
        "parent": commit.parent,
        "finished": commit.finished,
        "reason": commit.reason,
        "stored_bytes": commit.stored,
        "metrics": dict(commit.metrics),
    }


def error_document(error: OnwardError | None) -> dict[str, Any] | None:
    """An error for programs."""
    if error is None:
        return None
    return {"type": type(error).__name__, "what": error.what, "why": error.why, "do": error.do}


def begun(number: int, beginning: Beginning, generation: int) -> Attempt:
    """The attempt that begins so."""
    commit = beginning.commit
    return Attempt(
        number, beginning.verb, beginning.why, commit.checkpoint if commit else None, generation,
        increment=beginning.increment, rejected=list(beginning.rejected),
    )  # fmt: skip
