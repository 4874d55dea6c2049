"""`onward pin` and `onward unpin`: protection without a name."""

from __future__ import annotations

import click

from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    single_writer_option,
    write_json,
)
from onward.facts.outputs import find, label, open_for_change


@click.command()
@output_argument
@click.argument("checkpoint", metavar="CHECKPOINT")
@best_options
@single_writer_option
@json_option
def pin(
    output: str, checkpoint: str, metric: str, lowest: bool, single_writer: bool, as_json: bool
) -> None:
    """Keep a checkpoint, whatever the rules of a prune or of a training run say.

    A pinned checkpoint cannot be dropped until it is unpinned.
    """
    repository = open_for_change(output, single_writer=single_writer)
    found = find(repository.history, checkpoint, metric=metric, lowest=lowest)
    repository.pin(found.checkpoint)
    if as_json:
        write_json({"checkpoint": found.checkpoint, "pinned": True})
    else:
        click.echo(f"pinned {label(repository.history, found)}")


@click.command()
@output_argument
@click.argument("checkpoint", metavar="CHECKPOINT")
@single_writer_option
@json_option
def unpin(output: str, checkpoint: str, single_writer: bool, as_json: bool) -> None:
    """Take the pin of a checkpoint away: rules may drop it again."""
    repository = open_for_change(output, single_writer=single_writer)
    found = find(repository.history, checkpoint)
    repository.unpin(found.checkpoint)
    if as_json:
        write_json({"checkpoint": found.checkpoint, "pinned": False})
    else:
        click.echo(f"unpinned {label(repository.history, found)}")
