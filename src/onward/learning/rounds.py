"""The rounds of learning in a history: which checkpoints belong to one increment. Pure.

Two rounds may have one number: whoever goes on twice from the same finished checkpoint begins the
next increment twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from onward.repository import Commit, History


@dataclass(slots=True)
class Round:
    """One increment: its checkpoints in the order of the log, dropped ones among them."""

    increment: int
    parent: str | None
    """The checkpoint that it went on from."""
    start_step: int
    commits: list[Commit] = field(default_factory=list)

    @property
    def finished(self) -> bool:
        return any(commit.finished for commit in self.commits)

    @property
    def tip(self) -> Commit:
        """What came of it: its newest finished checkpoint, else its newest one."""
        finished = [commit for commit in self.commits if commit.finished]
        return (finished or self.commits)[-1]

    def path(self) -> list[Commit]:
        """From its first checkpoint to its tip, without what was begun and given up on the way."""
        by_id = {commit.checkpoint: commit for commit in self.commits}
        path: list[Commit] = []
        at: Commit | None = self.tip
        while at is not None:
            path.append(at)
            at = by_id.get(at.parent) if at.parent is not None else None
        return path[::-1]

    def edges(self) -> Iterator[tuple[Commit, int]]:
        """Each checkpoint, and the optimizer steps since the one that it was made from."""
        steps = {commit.checkpoint: commit.step for commit in self.commits}
        for commit in self.commits:
            before = self.start_step if commit.parent is None else None
            if commit.parent is not None:
                before = steps.get(commit.parent, self.start_step)
            yield commit, max(0, commit.step - (before or 0))


def rounds(history: History) -> list[Round]:
    """Every round, in the order in which they began.

    A checkpoint belongs to the round of its parent unless that was finished.
    """
    found: list[Round] = []
    of: dict[str, Round] = {}
    for commit in history.commits.values():
        parent = history.commits.get(commit.parent) if commit.parent is not None else None
        goes_on = (
            parent is not None and not parent.finished and parent.increment == commit.increment
        )
        if parent is not None and goes_on:
            its = of[parent.checkpoint]
        else:
            its = Round(
                commit.increment,
                parent.checkpoint if parent else None,
                parent.step if parent else 0,
            )
            found.append(its)
        its.commits.append(commit)
        of[commit.checkpoint] = its
    return found


def telling(found: list[Round], history: History) -> list[Commit]:
    """The checkpoints whose manifests say what the rounds cost: those that others do not include.

    What a manifest tells is cumulative over its round. So these are the last live ones of each
    line, those where lines part, and the first of a model's life, which says how that began.
    """
    wanted: list[Commit] = []
    for its in found:
        children: dict[str, int] = {}
        live_below: set[str] = set()
        by_id = {commit.checkpoint: commit for commit in its.commits}
        for commit in its.commits:
            if commit.parent in by_id:
                children[commit.parent] = children.get(commit.parent, 0) + 1
        for commit in reversed(its.commits):  # children come after their parents
            live = commit.checkpoint not in history.dropped
            first = its.parent is None and commit is its.commits[0]
            forks = children.get(commit.checkpoint, 0) > 1
            if live and (
                forks or first or commit is its.tip or commit.checkpoint not in live_below
            ):
                wanted.append(commit)
            if commit.parent is not None and (live or commit.checkpoint in live_below):
                live_below.add(commit.parent)
    return sorted(wanted, key=lambda commit: commit.seq)
