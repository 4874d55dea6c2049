"""Reading a checkpoint while others drop and repack: what moved is read where it is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from onward.errors import Damaged, Dropped, UnknownCheckpoint
from onward.repository.history import History
from onward.repository.manifest import Manifest
from onward.repository.records import Commit
from onward.repository.repository import Repository

T = TypeVar("T")


def with_checkpoint(
    repository: Repository,
    choose: Callable[[History], Commit],
    act: Callable[[Commit, Manifest], T],
) -> T:
    """What `act` makes of the checkpoint that `choose` names; it may be called more than once.

    If the checkpoint was repacked meanwhile, it is read again; if it was dropped, one is chosen
    anew: a newer `latest`, or an error. Raises `Dropped` where what was chosen is gone, `Damaged`
    where it is there and damaged, and what `choose` and `act` raise.
    """
    commit = choose(repository.history)
    while True:
        place = repository.history.manifest_place(commit)
        try:
            return act(commit, repository.manifest(commit))
        except Damaged as error:
            history = repository.refresh()
            if commit.checkpoint in history.dropped:
                try:
                    commit = choose(history)
                except UnknownCheckpoint:
                    raise was_dropped(commit) from error
            elif history.manifest_place(commit) == place:
                raise


def was_dropped(commit: Commit) -> Dropped:
    """The error for a reader that came too late."""
    return Dropped(
        f"checkpoint {commit.checkpoint} was dropped while it was read",
        why="a drop or a prune forgot it, and what only it needed is deleted",
        do="choose one that `onward log` lists; `onward pin` keeps one from being dropped",
    )
