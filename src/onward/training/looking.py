"""The repository that opening an output will go on from, looked at and not touched."""

from __future__ import annotations

from onward.errors import OnwardError, UnknownCheckpoint
from onward.repository import Repository, exists, open_repository
from onward.stores import LocalStore, open_store
from onward.training.opening import Asked
from onward.training.places import WorkingFolder, working_copies


def to_go_on_from(place: str, asked: Asked) -> Repository | None:
    """What `asked.decide` is to be asked about; None for an output that does not exist yet.

    For an output on an object store that is its working copy, if checkpoints were left behind
    there that opening will push first, and go on from.
    """
    store = open_store(place)
    found = open_repository(store) if exists(store) else None
    if isinstance(store, LocalStore) or found is None or not working_copies(place):
        return found
    folder = WorkingFolder(place)  # the one that opening will take
    try:
        left = Repository(LocalStore(folder.output))
        left.log.load()
        return left if _will_be_pushed(left, found, asked.checkpoint) else found
    except OnwardError:
        return found  # opening sets aside what cannot be read
    finally:
        folder.release()


def _will_be_pushed(left: Repository, remote: Repository, checkpoint: str) -> bool:
    here, there = left.history, remote.history
    if (here.repository, here.generation) != (there.repository, there.generation):
        return False  # another writer came: what was left behind can never be pushed
    try:
        commit = here.resolve(checkpoint) if checkpoint else here.latest()
    except UnknownCheckpoint:
        return False
    if commit is None or commit.checkpoint in there.commits:
        return False
    return left.damage(commit) == ""
