"""The gate over what checkpoints hold: which candidate, against whom, by which margin."""

from __future__ import annotations

from collections.abc import Mapping

from onward.errors import UnknownCheckpoint
from onward.facts.outputs import find
from onward.learning.evidence import evidence_of
from onward.learning.gate import MARGIN, Verdict, judge
from onward.repository import Commit, History, Repository
from onward.repository.asking import with_checkpoint


def candidate_in(history: History, name: str) -> Commit:
    """The checkpoint of that name; without one, the newest that ended an increment."""
    if name:
        return find(history, name)
    finished = next((commit for commit in history.newest_first() if commit.finished), None)
    if finished is None:
        raise UnknownCheckpoint(
            "no increment is finished yet",
            why="the gate compares what finished increments scored",
            do="let a run finish, or name a checkpoint",
        )
    return finished


def verdict_on(
    repository: Repository,
    candidate: Commit,
    champion: Commit,
    *,
    margin: float | None,
    relative_margin: float | None,
) -> Verdict:
    """The gate's verdict from what the two checkpoints hold.

    Without a margin, by the one that the candidate's script gave, as in the verdict of its run.
    """
    return judge(
        evidence_of(repository, champion),
        evidence_of(repository, candidate),
        margin=_margin_of(repository, candidate) if margin is None else margin,
        relative_margin=relative_margin,
    )


def _margin_of(repository: Repository, candidate: Commit) -> float:
    learning = with_checkpoint(
        repository,
        lambda history: history.resolve(candidate.checkpoint),
        lambda _, manifest: manifest.about.get("learning"),
    )
    found = learning.get("margin") if isinstance(learning, Mapping) else None
    return float(found) if isinstance(found, int | float) else MARGIN
