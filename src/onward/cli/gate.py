"""`onward gate`: may this checkpoint take the champion's place?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.outputs import find, label, open_output
from onward.cli.text import clean
from onward.errors import Regression, UnknownCheckpoint
from onward.learning.champion import CHAMPION
from onward.learning.evidence import evidence_of
from onward.learning.gate import MARGIN, Verdict, judge
from onward.repository import Commit, History, Repository
from onward.repository.asking import with_checkpoint

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


def candidate_in(history: History, name: str) -> Commit:
    """The checkpoint of that name; without one, the newest that ended an increment."""
    if name:
        return find(history, name)
    finished = next((commit for commit in history.newest_first() if commit.finished), None)
    if finished is None:
        raise UnknownCheckpoint(
            "no increment is finished yet",
            why="the gate compares what finished increments scored",
            do="let a run finish, or name a checkpoint",
        )
    return finished


def verdict_on(
    repository: Repository,
    candidate: Commit,
    champion: Commit,
    *,
    margin: float | None,
    relative_margin: float | None,
) -> Verdict:
    """The gate's verdict from what the two checkpoints hold.

    Without a margin, by the one that the candidate's script gave, as in the verdict of its run.
    """
    return judge(
        evidence_of(repository, champion),
        evidence_of(repository, candidate),
        margin=_margin_of(repository, candidate) if margin is None else margin,
        relative_margin=relative_margin,
    )


def _margin_of(repository: Repository, candidate: Commit) -> float:
    learning = with_checkpoint(
        repository,
        lambda history: history.resolve(candidate.checkpoint),
        lambda _, manifest: manifest.about.get("learning"),
    )
    found = learning.get("margin") if isinstance(learning, Mapping) else None
    return float(found) if isinstance(found, int | float) else MARGIN
