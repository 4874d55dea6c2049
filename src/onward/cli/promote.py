"""`onward promote` and `onward rollback`: which checkpoint is the champion."""

from __future__ import annotations

import click

from onward.cli.gate import margin_options
from onward.cli.options import json_option, output_argument, single_writer_option, write_json
from onward.facts.outputs import label, open_for_change
from onward.facts.promoting import promote as make_champion
from onward.facts.promoting import roll_back
from onward.learning.champion import CHAMPION


@click.command()
@output_argument
@click.argument("checkpoint", metavar="[CHECKPOINT]", default="")
@click.option("--force", is_flag=True, help="Without asking the gate.")
@margin_options
@single_writer_option
@json_option
def promote(
    output: str, checkpoint: str, force: bool, margin: float | None, relative_margin: float | None,
    single_writer: bool, as_json: bool,
) -> None:  # fmt: skip
    """Make a checkpoint (by default the newest finished one) the champion.

    Only if the gate shows that it lost nothing: see onward gate. Refuses a regression with exit
    status 3, and with 1 what the evidence does not decide. The first champion needs no opponent.
    The champion cannot be dropped, and the one before it can come back: onward rollback.
    """
    repository = open_for_change(output, single_writer=single_writer)
    history = repository.history
    done = make_champion(
        repository, checkpoint, force=force, margin=margin, relative_margin=relative_margin
    )
    found, before, verdict = done.champion, done.before, done.verdict
    if as_json:
        write_json(done.document())
    elif before == found.checkpoint:
        click.echo(f"{label(history, found)} is the champion already")
    else:
        what = "forced" if force else verdict.verdict if verdict else "the first"
        was = f" (before: {label(history, history.commits[before])})" if before else ""
        click.echo(f"{CHAMPION} → {label(history, found)}, {what}{was}")


@click.command()
@output_argument
@single_writer_option
@json_option
def rollback(output: str, single_writer: bool, as_json: bool) -> None:
    """Make the champion before the present one the champion again.

    Again and again, back to the first one. Checkpoints and their evidence stay as they are.
    """
    repository = open_for_change(output, single_writer=single_writer)
    done = roll_back(
        repository, again=f"name another one: onward promote {output} CHECKPOINT --force"
    )
    history = repository.history
    now = label(history, done.champion)
    was = label(history, history.commits[done.before]) if done.before else None
    if as_json:
        write_json({"champion": done.champion.checkpoint, "before": done.before})
    else:
        click.echo(f"{CHAMPION} → {now}" + (f" (before: {was})" if was else ""))
