"""Finding what a command is about: the repository of an output, a checkpoint in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from onward.errors import UnknownCheckpoint
from onward.repository import Commit, History, Manifest, Repository, open_or_create, open_repository
from onward.repository.asking import with_checkpoint
from onward.stores import open_store

T = TypeVar("T")


def open_output(url: str) -> Repository:
    """The repository at `url`. Raises `BadURL`, `NotAnOutput`, `Damaged`, `StoreError`."""
    return open_repository(open_store(url))


def find(history: History, name: str, *, metric: str = "", lowest: bool = False) -> Commit:
    """The checkpoint called `name`. Raises `UnknownCheckpoint`, saying what there is."""
    if name == "best" and history.live() and history.best(metric, lowest=lowest) is None:
        known = sorted({key for commit in history.live() for key in commit.metrics})
        raise UnknownCheckpoint(
            "there is no best checkpoint",
            why=f"none has the metric {metric!r}" if metric else "no metric was named",
            do=f"give --metric one of: {', '.join(known[:12])}"
            if known
            else "choose one that `onward log` lists: these checkpoints have no metrics",
        )
    return history.resolve(name, metric=metric, lowest=lowest)


def open_for_change(url: str, *, single_writer: bool) -> Repository:
    """The repository at `url`, for names to be moved in; never makes one."""
    repository = open_output(url)
    return open_or_create(repository.store, single_writer=True) if single_writer else repository


@dataclass(frozen=True, slots=True)
class Found:
    """One checkpoint with everything around it."""

    repository: Repository
    commit: Commit
    manifest: Manifest

    @property
    def label(self) -> str:
        """`v12 3f9a1c2e4b5d6f70`."""
        return label(self.repository.history, self.commit)


def find_in(repository: Repository, name: str, *, metric: str = "", lowest: bool = False) -> Found:
    """The checkpoint and its manifest, verified."""
    return using(repository, name, lambda found: found, metric=metric, lowest=lowest)


def using(
    repository: Repository,
    name: str,
    act: Callable[[Found], T],
    *,
    metric: str = "",
    lowest: bool = False,
) -> T:
    """What `act` makes of a checkpoint; again where it was repacked or dropped meanwhile.

    Raises `Dropped` if what the name said is gone.
    """
    return with_checkpoint(
        repository,
        lambda history: find(history, name, metric=metric, lowest=lowest),
        lambda commit, manifest: act(Found(repository, commit, manifest)),
    )


def label(history: History, commit: Commit) -> str:
    """How text names a checkpoint: its version and its id."""
    return f"v{history.versions()[commit.checkpoint]} {commit.checkpoint}"
