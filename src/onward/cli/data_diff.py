"""`onward data diff`: data, or a checkpoint, against what a checkpoint has learned."""

from __future__ import annotations

import importlib
from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import Any

import click
import numpy as np

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
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.outputs import open_output
from onward.cli.text import clean, count
from onward.data.delta import Delta
from onward.data.items import DIGEST_BYTES, Items
from onward.data.ledger import Ledger
from onward.errors import UsageError
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
@click.option("--key", "keys", multiple=True, metavar="COLUMN", help="Of a table: what is the key.")
@click.option("--format", "format_", default="", metavar="NAME", help="Of a table: csv, jsonl, …")
@click.option("--classes", is_flag=True, help="Of a folder: its folders are classes.")
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
    script does. A renamed or copied item is no difference.

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
        source = _source(first, keys=keys, format_=format_, classes=classes)
        compared = _data(repository, first, source, loader)
    limit = None if everything else SHOWN
    if as_json:
        write_json(_document(compared, limit))
    else:
        write_lines(_lines(compared, limit))


def _source(url: str, *, keys: tuple[str, ...], format_: str, classes: bool) -> Any:
    # Both only here: comparing checkpoints needs neither.
    if classes:
        return importlib.import_module("onward.data.folder").Folder(url, classes=True)
    sources = importlib.import_module("onward.data.sources")
    key = None if not keys else keys[0] if len(keys) == 1 else list(keys)
    return sources.open_source(url, key=key, format=format_ or None)


def _data(repository: Repository, url: str, source: Any, loader: str) -> _Compared:
    base = ledgers_in(repository, "latest", loader=loader)
    ledger = base.only()
    pinned = settled(ledger)
    snapshot = source.snapshot()
    items = snapshot.identified
    return _Compared(base, pinned, url, ledger.delta(items), snapshot.names, items)


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
    if delta.empty:
        return [*lines, f"no difference: {count(len(delta.known), 'item')}, all known"]
    counts: dict[str, Sized] = {
        "added": delta.added,
        "changed": delta.changed,
        "removed": delta.removed,
    }
    shown = [f"{len(what):,} {name}" for name, what in counts.items()]
    lines.append(", ".join([*shown, f"{len(delta.known):,} known"]))
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
        "added": compared.named(delta.added, limit),
        "changed": compared.named(delta.changed, limit),
        "removed": [] if counted else hexes(delta.removed, limit),
    }
