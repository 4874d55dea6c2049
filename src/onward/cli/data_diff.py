"""`onward data diff`: data, or a checkpoint, against what a checkpoint has learned."""

from __future__ import annotations

from collections.abc import Sized

import click

from onward.cli.data_ledgers import SHOWN, loader_option, some, unfinished_text
from onward.cli.data_source import snapshot_of, source_options
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.text import clean, count
from onward.errors import UsageError
from onward.facts.data_diff import Compared, compared_checkpoints, compared_document
from onward.facts.ledgers import hexes, ledgers_in, settled
from onward.facts.outputs import open_output
from onward.jobs.difference import HeldOut


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
        compared = compared_checkpoints(repository, first, second, loader)
    else:
        # The ledger first: without one, there is no need to read the data.
        base = ledgers_in(repository, "latest", loader=loader)
        ledger = base.only()
        pinned = settled(ledger)
        snapshot = snapshot_of(first, keys=keys, format_=format_, classes=classes)
        items = snapshot.identified
        known = HeldOut(base.found.repository, base.found.commit)
        delta, held_out = known.without(items, ledger.delta(items))
        compared = Compared(base, pinned, first, delta, snapshot.names, items, held_out)
    limit = None if everything else SHOWN
    if as_json:
        write_json(compared_document(compared, limit))
    else:
        write_lines(_lines(compared, limit))


def _lines(compared: Compared, limit: int | None) -> list[str]:
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
