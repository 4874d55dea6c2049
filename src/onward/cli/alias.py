"""`onward alias`: names of your own for checkpoints."""

from __future__ import annotations

import click

from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    single_writer_option,
    write_json,
)
from onward.errors import UsageError
from onward.facts.outputs import find, label, open_for_change


@click.command()
@output_argument
@click.argument("name", metavar="NAME")
@click.argument("checkpoint", metavar="[CHECKPOINT]", default="")
@click.option("--remove", is_flag=True, help="Take the name away instead.")
@best_options
@single_writer_option
@json_option
def alias(
    output: str,
    name: str,
    checkpoint: str,
    remove: bool,
    metric: str,
    lowest: bool,
    single_writer: bool,
    as_json: bool,
) -> None:
    """Give a checkpoint a name of your own, move that name, or --remove it.

    A checkpoint with a name cannot be dropped.
    """
    if remove == bool(checkpoint):
        raise UsageError(
            "an alias needs either a checkpoint or --remove",
            do=f"onward alias OUTPUT {name} CHECKPOINT, or onward alias OUTPUT {name} --remove",
        )
    repository = open_for_change(output, single_writer=single_writer)
    history = repository.history
    before = history.aliases.get(name)
    target = None
    if checkpoint:
        target = find(history, checkpoint, metric=metric, lowest=lowest)
    repository.set_alias(name, target.checkpoint if target else None)
    if as_json:
        id_ = target.checkpoint if target else None
        write_json({"alias": name, "checkpoint": id_, "before": before})
    elif target is None:
        click.echo(f"{name} is no name any more")
    else:
        moved = f" (before: {label(history, history.commits[before])})" if before else ""
        click.echo(f"{name} → {label(history, target)}{moved}")
