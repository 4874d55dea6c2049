"""Whether there is anything to learn for a model that is finished."""

from __future__ import annotations

from collections.abc import Mapping

from onward.data.provenance import described_ledgers
from onward.errors import Damaged, NewerFormat, NothingNew
from onward.repository import Manifest, Repository
from onward.training.opening import Asked


def learned_snapshot(repository: Repository | None) -> str | None:
    """The data snapshot of which the newest checkpoint learned all, if it tells.

    Of a resumed increment the script saw data that came after it had begun, and a small budget may
    not have met every item: then there is something to learn, although the files are the same.
    """
    latest = repository.history.latest() if repository is not None else None
    if repository is None or latest is None:
        return None
    try:
        manifest = repository.manifest(latest)
    except (Damaged, NewerFormat):
        return None  # whoever decides how to begin will say so
    found = manifest.about.get("data_snapshot")
    return found if isinstance(found, str) and not has_left_items(manifest) else None


def has_left_items(manifest: Manifest) -> bool:
    """Whether a loader had, or may have had, items that are neither learned nor held out."""
    told = manifest.about.get("data")
    for name, ledger in described_ledgers(manifest).items():
        facts = told.get(name) if isinstance(told, Mapping) else None
        facts = facts if isinstance(facts, Mapping) else {}
        counts = [facts.get("items"), ledger.get("known"), facts.get("held_out", 0)]
        if not all(type(count) is int for count in counts):
            return True  # the script looks for itself
        items, known, held_out = counts
        pinned = ledger.get("pinned")
        if isinstance(pinned, Mapping) and not pinned.get("again"):
            known += pinned.get("count", 0)
        if items > known + held_out:
            return True
    return False


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
