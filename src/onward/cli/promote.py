"""`onward promote` and `onward rollback`: which checkpoint is the champion."""

from __future__ import annotations

from typing import Any

import click

from onward.cli.gate import candidate_in, margin_options, verdict_on
from onward.cli.options import json_option, output_argument, single_writer_option, write_json
from onward.cli.outputs import label, open_for_change
from onward.errors import Damaged, GateRefused, Regression, UnknownCheckpoint, Unproven
from onward.learning.champion import CHAMPION, champions, move_champion
from onward.learning.gate import Verdict
from onward.repository import Commit, Repository


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
    found = candidate_in(history, checkpoint)
    before = history.aliases.get(CHAMPION)
    verdict: Verdict | None = None
    if before != found.checkpoint:
        if not force:
            _check_whole(repository, found)
        if before is not None and not force:
            verdict = verdict_on(
                repository, found, history.commits[before],
                margin=margin, relative_margin=relative_margin,
            )  # fmt: skip
            if not verdict.passed:
                raise _refusal(verdict)
        move_champion(repository, found.checkpoint, expected=before)
    if as_json:
        document: dict[str, Any] = {"champion": found.checkpoint, "before": before}
        write_json({**document, "verdict": verdict.document() if verdict else None})
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
    present = repository.history.aliases.get(CHAMPION)
    stack = champions(repository)
    history = repository.history
    earlier = stack[:-1] if stack[-1:] == [present] else stack
    live = [id_ for id_ in earlier if id_ not in history.dropped]
    if not live:
        gone = ", ".join(f"v{history.versions()[id_]}" for id_ in earlier)
        raise UnknownCheckpoint(
            "there is no champion to go back to",
            why=f"dropped since: {gone}" if gone else "nothing was champion before",
            do=f"name another one: onward promote {output} CHECKPOINT --force",
        )
    move_champion(repository, live[-1], expected=present)
    now = label(history, history.commits[live[-1]])
    was = label(history, history.commits[present]) if present else None
    if as_json:
        write_json({"champion": live[-1], "before": present})
    else:
        click.echo(f"{CHAMPION} → {now}" + (f" (before: {was})" if was else ""))


def _check_whole(repository: Repository, commit: Commit) -> None:
    damage = repository.damage(commit)
    if damage:
        raise Damaged(
            f"checkpoint {label(repository.history, commit)} cannot be restored",
            why=damage,
            do="promote another one; `onward verify` says which are intact",
        )


def _refusal(verdict: Verdict) -> GateRefused:
    kind = Regression if verdict.verdict == "regression" else Unproven
    reasons = [
        f"{judged.name!r}: {judged.why}"
        for judged in verdict.holdouts
        if judged.verdict not in ("better", "no change")
    ]
    return kind(
        f"{verdict.candidate} is not promoted over {verdict.champion}, {verdict.verdict}",
        why="\n".join(reasons) or "nothing was scored that both models know",
        do="`onward gate` shows the numbers; --force promotes it all the same",
    )
