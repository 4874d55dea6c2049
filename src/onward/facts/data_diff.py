"""How data, or a checkpoint's data, differs from what a checkpoint has learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onward.data.delta import Delta
from onward.data.items import DIGEST_BYTES, Items
from onward.data.ledger import Ledger
from onward.facts.ledgers import FoundLedgers, hexes, ledgers_in, settled
from onward.repository import Repository


@dataclass(frozen=True, slots=True)
class Compared:
    """What is different in `what` against the ledger of a checkpoint."""

    base: FoundLedgers
    pinned: int | None
    what: str
    delta: Delta
    names: Sequence[str] | None
    items: Items
    held_out: int = 0
    """How many items no increment will learn, since they are in frozen holdouts."""

    def named(self, indices: Any, limit: int | None) -> list[str]:
        """The items' names as they are known: else their ids, or their numbers."""
        chosen = indices[:limit].tolist()
        if self.names is not None:
            return [str(self.names[index]) for index in chosen]
        if self.items.digests is not None:
            return hexes(self.items.digests[chosen], None)
        return [f"item {index}" for index in chosen]


def compared_checkpoints(repository: Repository, first: str, second: str, loader: str) -> Compared:
    """How the data of the second checkpoint differs from that of the first."""
    base = ledgers_in(repository, first, loader=loader)
    other = ledgers_in(repository, second, loader=loader)
    ledger, newer = base.only(), other.only()
    pinned = settled(ledger)
    settled(newer)
    items = newer.current_items()
    if items.digests is None and ledger.kind in ("counted", None):
        delta = _counted(ledger, items)
    else:
        delta = ledger.delta(items)
    return Compared(base, pinned, f"checkpoint {other.found.label}", delta, None, items)


def _counted(ledger: Ledger, items: Items) -> Delta:
    """Between checkpoints, unlike in data, there may be fewer: the second may be the older one."""
    fewer = ledger.current_items().count - items.count
    if fewer <= 0:
        return ledger.delta(items)
    nothing = np.empty(0, np.int64)
    gone = np.broadcast_to(np.zeros(DIGEST_BYTES, np.uint8), (fewer, DIGEST_BYTES))
    flags = np.zeros(0, np.uint8)
    return Delta(nothing, nothing, np.arange(items.count), gone, gone[:0], nothing, flags)


def compared_document(compared: Compared, limit: int | None) -> dict[str, Any]:
    """As plain JSON values; of names, as many as wanted."""
    delta, base = compared.delta, compared.base.found
    counted = compared.items.digests is None
    return {
        "output": base.repository.store.url,
        "checkpoint": base.commit.checkpoint,
        "unfinished": compared.pinned,
        "against": compared.what,
        "counts": {
            "added": len(delta.added),
            "changed": len(delta.changed),
            "removed": len(delta.removed),
            "known": len(delta.known),
        },
        "held_out": compared.held_out,
        "added": compared.named(delta.added, limit),
        "changed": compared.named(delta.changed, limit),
        "removed": [] if counted else hexes(delta.removed, limit),
    }
