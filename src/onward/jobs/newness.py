"""Whether there is anything to learn for a model that is finished."""

from __future__ import annotations

from onward.errors import Damaged, NewerFormat, NothingNew
from onward.repository import Repository
from onward.training.opening import Asked


def learned_snapshot(repository: Repository | None) -> str | None:
    """The data snapshot that the newest checkpoint was trained on, if it tells."""
    latest = repository.history.latest() if repository is not None else None
    if repository is None or latest is None:
        return None
    try:
        found = repository.manifest(latest).about.get("data_snapshot")
    except (Damaged, NewerFormat):
        return None  # whoever decides how to begin will say so
    return found if isinstance(found, str) else None


def nothing_new(asked: Asked, repository: Repository | None, snapshot: str) -> NothingNew | None:
    """The reason not to start, if the newest checkpoint is finished and has learned this very data.

    Whoever insists on a verb or names a checkpoint wants to train all the same.
    """
    latest = repository.history.latest() if repository is not None else None
    if latest is None or not latest.finished or asked.verb != "auto" or asked.checkpoint:
        return None
    if not snapshot or learned_snapshot(repository) != snapshot:
        return None
    return NothingNew(
        "nothing new to learn",
        why=f"checkpoint {latest.checkpoint} is finished and has learned this very data",
        do="add data and run the same command, or train again on the same with --continue",
    )
