"""The ledgers of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from onward.data.items import Digests
from onward.data.ledger import Ledger
from onward.data.provenance import read_ledgers
from onward.errors import DataError, UsageError
from onward.facts.outputs import Found, using
from onward.repository import Repository

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FoundLedgers:
    """A checkpoint and its ledgers by their loaders' names."""

    found: Found
    ledgers: dict[str, Ledger]

    def only(self) -> Ledger:
        """The one ledger. Raises `UsageError` naming the loaders if there are several."""
        if len(self.ledgers) > 1:
            raise UsageError(
                f"checkpoint {self.found.commit.checkpoint} has {len(self.ledgers)} loaders",
                do=f"give --loader one of: {', '.join(sorted(self.ledgers)[:12])}",
            )
        return next(iter(self.ledgers.values()))


def ledgers_in(
    repository: Repository, checkpoint: str, *, loader: str = "", **best: Any
) -> FoundLedgers:
    """The ledgers of the checkpoint of this name, or only the one of the loader that is named.

    What a finished increment was about is learned, although the ledger says so only in the next.
    Raises `DataError` if there are none, `UsageError` if there is none of this name.
    """

    def read(found: Found) -> FoundLedgers:
        ledgers = read_ledgers(repository.store, found.manifest)
        if found.commit.finished:
            for ledger in ledgers.values():
                settled(ledger)
        return FoundLedgers(found, ledgers)

    held = using(repository, checkpoint, read, **best)
    if not held.ledgers:
        raise no_ledger(held.found.commit.checkpoint)
    return FoundLedgers(held.found, chosen(held.ledgers, loader))


def chosen(ledgers: Mapping[str, T], loader: str) -> dict[str, T]:
    """All of them, or the one that is named. Raises `UsageError` if there is none of this name."""
    if loader and loader not in ledgers:
        raise UsageError(
            f"there is no loader {loader!r}",
            do=f"give --loader one of: {', '.join(sorted(ledgers)[:12])}",
        )
    return {loader: ledgers[loader]} if loader else dict(ledgers)


def no_ledger(checkpoint: str) -> DataError:
    """The error for a checkpoint that cannot say what it learned from."""
    return DataError(
        f"checkpoint {checkpoint} has no ledger",
        why="its data came through run.batches, or it was imported",
        do="give the data by run.loader, which keeps a ledger from then on",
    )


def settled(ledger: Ledger) -> int | None:
    """Takes an unfinished increment's items for learned; tells how many these were."""
    pinned = ledger.pinned
    if pinned is not None:
        ledger.learn_pinned()
    return pinned


def hexes(digests: Digests, limit: int | None) -> list[str]:
    """Each digest as 32 hexadecimal digits, as many as are wanted."""
    return [bytes(digest).hex() for digest in digests[:limit]]
