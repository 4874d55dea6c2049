"""`onward data diff`: data, or a checkpoint, against what a checkpoint has learned."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, replace
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from onward.cli.data_ledgers import (
    SHOWN,
    FoundLedgers,
    hexes,
    ledgers_in,
    loader_option,
    settled,
    some,
    unfinished_text,
)
from onward.cli.data_source import snapshot_of, source_options
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.outputs import open_output
from onward.cli.text import clean, count
from onward.data.delta import Delta
from onward.data.items import DIGEST_BYTES, Items
from onward.data.ledger import Ledger
from onward.errors import UsageError
from onward.learning.evidence import evidence_of
from onward.learning.holdouts import Holdouts
from onward.repository import Repository


@dataclass(frozen=True, slots=True)
class _Compared:
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


@click.command()
@output_argument
@click.argument("first", metavar="DATA|CHECKPOINT")
@click.argument("second", metavar="[CHECKPOINT]", default="")
@source_options
@loader_option
@click.option("--all", "everything", is_flag=True, help="Every name, not the first 20.")
@json_option
def diff(
    output: str,
    first: str,
    second: str,
    keys: tuple[str, ...],
    format_: str,
    classes: bool,
    loader: str,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare data, or a checkpoint, with what a checkpoint has learned.

    With DATA, a folder or tables: what the next increment would find added, changed and removed
    since the newest checkpoint. Say how a table is keyed, and that folders are classes, as the
    script does. A renamed or copied item is no difference, nor is one that is held out.

    With two checkpoints: how the data of the second differs from that of the first. What is removed
    is known by its id alone.
    """
    repository = open_output(output)
    if second:
        if keys or format_ or classes:
            raise UsageError(
                "--key, --format and --classes say how data is read",
                do="leave them out where two checkpoints are compared",
            )
        compared = _checkpoints(repository, first, second, loader)
    else:
        # The ledger first: without one, there is no need to read the data.
        base = ledgers_in(repository, "latest", loader=loader)
        ledger = base.only()
        pinned = settled(ledger)
        snapshot = snapshot_of(first, keys=keys, format_=format_, classes=classes)
        items = snapshot.identified
        delta, held_out = _without(_held_out(base, items), ledger.delta(items))
        compared = _Compared(base, pinned, first, delta, snapshot.names, items, held_out)
    limit = None if everything else SHOWN
    if as_json:
        write_json(_document(compared, limit))
    else:
        write_lines(_lines(compared, limit))


def _held_out(base: FoundLedgers, items: Items) -> npt.NDArray[np.bool_]:
    """Which items are in holdouts that the checkpoint knows."""
    holdouts = Holdouts()
    frozen = evidence_of(base.found.repository, base.found.commit).holdouts
    for name, holdout in frozen.items():
        holdouts.freeze(
            name, digests=holdout.digests, count=holdout.count, increment=holdout.increment,
            metric=holdout.metric, higher_is_better=holdout.higher_is_better,
            clusters=holdout.clusters, kind=holdout.kind,
        )  # fmt: skip
    if items.digests is None:
        return np.zeros(items.count, np.bool_)
    return holdouts.contains(items.digests)


def _without(held: npt.NDArray[np.bool_], delta: Delta) -> tuple[Delta, int]:
    """The delta without what is held out, and how many items that is."""
    added, changed = (which[~held[which]] for which in (delta.added, delta.changed))
    left_out = len(delta.added) + len(delta.changed) - len(added) - len(changed)
    return replace(delta, added=added, changed=changed), left_out


def _checkpoints(repository: Repository, first: str, second: str, loader: str) -> _Compared:
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
    return _Compared(base, pinned, f"checkpoint {other.found.label}", delta, None, items)


def _counted(ledger: Ledger, items: Items) -> Delta:
    """Between checkpoints, unlike in data, there may be fewer: the second may be the older one."""
    fewer = ledger.current_items().count - items.count
    if fewer <= 0:
        return ledger.delta(items)
    nothing = np.empty(0, np.int64)
    gone = np.broadcast_to(np.zeros(DIGEST_BYTES, np.uint8), (fewer, DIGEST_BYTES))
    flags = np.zeros(0, np.uint8)
    return Delta(nothing, nothing, np.arange(items.count), gone, gone[:0], nothing, flags)


def _lines(compared: _Compared, limit: int | None) -> list[str]:
    delta, base = compared.delta, compared.base.found
    label = f"checkpoint {base.label}"
    lines = [f"{clean(compared.what)} against {label}, step {base.commit.step:,}"]
    lines += unfinished_text(compared.pinned, label)
    held_out = [f"{compared.held_out:,} held out"] if compared.held_out else []
    if delta.empty:
        rest = ", ".join(["all known", *held_out])
        return [*lines, f"no difference: {count(len(delta.known), 'item')}, {rest}"]
    counts: dict[str, Sized] = {
        "added": delta.added,
        "changed": delta.changed,
        "removed": delta.removed,
    }
    shown = [f"{len(what):,} {name}" for name, what in counts.items()]
    lines.append(", ".join([*shown, f"{len(delta.known):,} known", *held_out]))
    if not len(delta.known) and compared.base.only().known:
        lines.append(
            "no item is known: is the data read as the script reads it (--key, --classes)?"
        )
    for title, indices, sign in (("added", delta.added, "+"), ("changed", delta.changed, "~")):
        names = map(clean, compared.named(indices, limit))
        lines += some(title, names, len(indices), sign=sign)
    if compared.items.digests is not None:
        removed = hexes(delta.removed, limit)
        lines += some("removed (by id)", removed, len(delta.removed), sign="-")
    return lines


def _document(compared: _Compared, limit: int | None) -> dict[str, Any]:
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
