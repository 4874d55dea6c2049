"""An audit: a full retrain on what another checkpoint learned, scored on the same holdouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests, Items
from onward.data.ledger import Ledger
from onward.errors import UsageError
from onward.repository import open_repository, read_state
from onward.stores import open_store


@dataclass(frozen=True)
class Audit:
    """What the audited checkpoint learned, and what it is examined on."""

    ledgers: Mapping[str, Ledger]
    holdouts: Mapping[str, Any]
    """The state of its holdouts."""
    sample: float
    """The share of the items that the retrain is to see."""

    def left_out(self, name: str, items: Items, digests: Digests) -> npt.NDArray[np.bool_]:
        """Which of a dataset's items the audited checkpoint never learned, or the sample lacks."""
        ledger = self.ledgers.get(name)
        if ledger is None:
            raise UsageError(
                f"the audited checkpoint has no loader {name!r}",
                why="an audit runs the very script that made it",
                do="audit with the script that trains this output",
            )
        out: npt.NDArray[np.bool_] = ~ledger.seen(items)
        if self.sample < 1.0:
            # Of an item's 16 bytes, some that nothing else is decided by.
            chance = np.ascontiguousarray(digests[:, 8:16]).view("<u8")[:, 0] / 2.0**64
            out |= chance >= self.sample
        return out


def audit_of(place: str, sample: float) -> Audit:
    """The audit of `<output>@<checkpoint id>`, read without any framework."""
    url, _, checkpoint = place.rpartition("@")
    repository = open_repository(open_store(url))
    commit = repository.history.resolve(checkpoint)
    own = read_state(repository.store, repository.manifest(commit), keys=["onward"])["onward"]
    ledgers = {}
    for name, loader in own["loaders"]["loaders"].items():
        if loader["ledger"] is not None:
            ledger = Ledger()
            ledger.load_state_dict(plain(loader["ledger"]))
            ledgers[name] = ledger
    learning = own.get("learning") or {}
    return Audit(ledgers, plain(learning.get("holdouts") or {}), sample)


def plain(tree: Any) -> Any:
    """A state tree with NumPy arrays for its leaves."""
    return tree
