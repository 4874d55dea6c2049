"""`onward data seen`: whether a model has learned from an item."""

from __future__ import annotations

import click

from onward.cli.data_ledgers import loader_option
from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    write_json,
    write_lines,
)
from onward.cli.text import clean, table
from onward.errors import UsageError
from onward.facts.ledgers import ledgers_in
from onward.facts.outputs import open_output
from onward.facts.seen import Asked, answer_of


@click.command()
@output_argument
@click.argument("files", metavar="[ITEM]...", nargs=-1)
@click.option("--key", "keys", multiple=True, metavar="KEY", help="An item by its key, or path.")
@click.option("--id", "ids", multiple=True, metavar="ID", help="An item by its id, or number.")
@click.option("--checkpoint", default="latest", metavar="CHECKPOINT", help="By default the latest.")
@loader_option
@best_options
@json_option
def seen(
    output: str,
    files: tuple[str, ...],
    keys: tuple[str, ...],
    ids: tuple[str, ...],
    checkpoint: str,
    loader: str,
    metric: str,
    lowest: bool,
    as_json: bool,
) -> int:
    """Ask whether a model has learned from an item, wherever that is now.

    ITEM is a file, which is known by its content whatever its name. By --key, an item counts as
    seen if any content under its key was. Items of an unfinished increment count as seen; they are
    told apart.

    Exit status: 0 if every item was seen, 1 if one was not.
    """
    asked = [
        *(Asked("file", name) for name in files),
        *(Asked("key", name) for name in keys),
        *(Asked("id", name) for name in ids),
    ]
    if not asked:
        raise UsageError("no item is named", do="give a file, --key KEY or --id ID")
    held = ledgers_in(open_output(output), checkpoint, loader=loader, metric=metric, lowest=lowest)
    answers = [answer_of(one, list(held.ledgers.values())) for one in asked]
    if as_json:
        items = [
            {"item": one.name, "by": one.by, "seen": any(answer), "learned": answer[0]}
            for one, answer in zip(asked, answers, strict=True)
        ]
        found = held.found.commit.checkpoint
        write_json({"checkpoint": found, "seen": all(map(any, answers)), "items": items})
    else:
        rows = [
            [_text(answer), clean(one.name)] for one, answer in zip(asked, answers, strict=True)
        ]
        write_lines(table(rows))
    return 0 if all(map(any, answers)) else 1


def _text(answer: tuple[bool, bool]) -> str:
    learned, learning = answer
    return "seen" if learned else "seen by the unfinished increment" if learning else "not seen"
