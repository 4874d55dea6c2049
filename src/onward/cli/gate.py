"""`onward gate`: may this checkpoint take the champion's place?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.text import clean
from onward.errors import Regression
from onward.facts.gate import candidate_in, verdict_on
from onward.facts.outputs import find, label, open_output
from onward.learning.champion import CHAMPION
from onward.learning.gate import MARGIN

F = TypeVar("F", bound=Callable[..., Any])


def margin_options(function: F) -> F:
    """How much worse is still no loss."""
    margin = click.option(
        "--margin", type=float, metavar="M",
        help="How much worse is still no loss, in the unit of the score: 0.01 is one point. "
        f"By default what the script that trained the candidate said, else {MARGIN}.",
    )  # fmt: skip
    relative = click.option(
        "--relative-margin", type=float, metavar="SHARE",
        help="For scores that are not right or wrong: this share of the champion's instead.",
    )  # fmt: skip
    return margin(relative(function))


@click.command()
@output_argument
@click.argument("candidate", metavar="[CANDIDATE]", default="")
@click.option(
    "--against", default=CHAMPION, show_default=True, metavar="CHECKPOINT",
    help="Compare with this one.",
)  # fmt: skip
@margin_options
@json_option
def gate(
    output: str, candidate: str, against: str, margin: float | None,
    relative_margin: float | None, as_json: bool,
) -> int:  # fmt: skip
    """Compare a checkpoint (by default the newest finished one) with the champion.

    On every frozen holdout, item by item, from the outcomes that both checkpoints hold; nothing is
    computed anew. Says better, no change, worse within noise, regression, or insufficient (fewer
    than 300 items pass nothing). Exits with 3 for a regression, else with 0.
    """
    repository = open_output(output)
    history = repository.history
    found = candidate_in(history, candidate)
    if against == CHAMPION and CHAMPION not in history.aliases:
        if as_json:
            write_json({"verdict": None, "champion": None, "candidate": found.checkpoint})
        else:
            click.echo(f"there is no champion yet to compare {label(history, found)} with")
            click.echo("`onward promote` makes it the first one")
        return 0
    verdict = verdict_on(
        repository, found, find(history, against), margin=margin, relative_margin=relative_margin
    )
    if as_json:
        write_json(verdict.document())
    else:
        write_lines([clean(line) for line in verdict.lines()])
    return Regression.exit_code if verdict.verdict == "regression" else 0
