"""An audit: a full retrain on what another checkpoint learned, scored on the same holdouts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests, Items
from onward.data.ledger import Ledger
from onward.data.provenance import ledgers_of
from onward.errors import UsageError
from onward.learning.evidence import evidence_of
from onward.learning.holdouts import Holdout
from onward.repository import open_repository
from onward.stores import open_store


@dataclass(frozen=True)
class Audit:
    """What the audited checkpoint learned, and what it is examined on."""

    place: str
    """`<output>@<checkpoint id>`."""
    ledgers: Mapping[str, Ledger]
    holdouts: Mapping[str, Holdout]
    sample: float
    """The share of the items that the retrain is to see."""

    def about(self) -> dict[str, Any]:
        """What the record of the retrain says of it."""
        _, _, checkpoint = self.place.rpartition("@")
        return {"audit": {"of": checkpoint, "sample": self.sample}}

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
    return Audit(
        place=place,
        ledgers=ledgers_of(repository, commit),
        holdouts=evidence_of(repository, commit).holdouts,
        sample=sample,
    )
