"""`onward data withdrawn`: who learned from what is gone from the data."""

from __future__ import annotations

from typing import Any

import click

from onward.cli.data_ledgers import SHOWN, loader_option, some
from onward.cli.data_source import snapshot_of, source_options
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.text import clean, count, table
from onward.data.items import Digests, Items
from onward.data.provenance import Learners, who_learned
from onward.facts.ledgers import hexes, ledgers_in, settled
from onward.facts.outputs import label, open_output
from onward.repository import History


@click.command()
@output_argument
@click.argument("data", metavar="[DATA]", default="")
@source_options
@loader_option
@click.option("--all", "everything", is_flag=True, help="Every item, not the first 20.")
@json_option
def withdrawn(
    output: str,
    data: str,
    keys: tuple[str, ...],
    format_: str,
    classes: bool,
    loader: str,
    everything: bool,
    as_json: bool,
) -> None:
    """Find the checkpoints that learned what is gone from the data.

    Withdrawn are items that the newest checkpoint's model learned from and that were missing when
    its increment began; with DATA, those that are missing there now. A model cannot unlearn them:
    the newest ancestor that never met them is where training without them can begin.
    """
    repository = open_output(output)
    held = ledgers_in(repository, "latest", loader=loader)
    ledger = held.only()
    present = None
    if data:
        settled(ledger)
        present = snapshot_of(data, keys=keys, format_=format_, classes=classes).identified
    items = ledger.withdrawn_items(present)
    learners = who_learned(repository, items) if items.count else Learners()
    digests = items.digests
    history = repository.history
    limit = None if everything else SHOWN
    if as_json:
        write_json(_document(history, items, learners, limit))
    elif digests is None or not items.count:
        write_lines([f"nothing is withdrawn: checkpoint {held.found.label} knows of no item gone"])
    else:
        write_lines(_lines(history, digests, learners, limit))


def _lines(history: History, digests: Digests, learners: Learners, limit: int | None) -> list[str]:
    versions = history.versions()
    total = len(digests)
    lines = [f"{count(total, 'item')} learned and gone from the data since"]
    lines += some("withdrawn (by id)", hexes(digests, limit), total, sign="-")
    rows = [
        [
            f"v{versions[commit.checkpoint]}", commit.checkpoint, f"step {commit.step:,}",
            f"increment {commit.increment:,}", f"{met:,} of {total:,}",
            ", ".join(map(clean, history.names_of(commit.checkpoint))),
        ]
        for commit, met in learners.learned
    ]  # fmt: skip
    lines += ["", "checkpoints that learned from them", *table(rows, right=[4], indent="  ")]
    if learners.unknown:
        lines += ["", "checkpoints that cannot say"]
        lines += [f"  {label(history, commit)}" for commit in learners.unknown]
    for origin in learners.origins:
        where = f"{origin.get('url', '')}@{origin.get('checkpoint', '')}"
        lines += ["", f"weights came from {clean(where)}: ask there too"]
    clean_one = learners.clean
    if clean_one is None:
        lines += ["", "no ancestor is clean: begin a new output on the data as it is now"]
    else:
        lines += ["", f"newest clean ancestor: {label(history, clean_one)}"]
    return lines


def _document(
    history: History, items: Items, learners: Learners, limit: int | None
) -> dict[str, Any]:
    return {
        "count": items.count,
        "withdrawn": [] if items.digests is None else hexes(items.digests, limit),
        "learned": [
            {"checkpoint": commit.checkpoint, "step": commit.step, "items": met,
             "aliases": history.names_of(commit.checkpoint)}
            for commit, met in learners.learned
        ],
        "unknown": [commit.checkpoint for commit in learners.unknown],
        "origins": [dict(origin) for origin in learners.origins],
        "clean_ancestor": learners.clean.checkpoint if learners.clean else None,
    }  # fmt: skip
