"""`onward drop`: checkpoints are forgotten, and what only they needed is deleted."""

from __future__ import annotations

import sys
import time

import click

from onward.cli.options import (
    grace_option,
    json_option,
    output_argument,
    single_writer_option,
    write_json,
)
from onward.cli.text import count, size, waiting_text
from onward.errors import UsageError
from onward.facts.outputs import find, label, open_for_change
from onward.repository import Commit, Repository
from onward.repository.collecting import Collector, Reach, check_droppable, usual_grace_s


@click.command()
@output_argument
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped and freed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@grace_option
@single_writer_option
@json_option
def drop(
    output: str,
    checkpoints: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    grace_s: float | None,
    single_writer: bool,
    as_json: bool,
) -> int:
    """Forget checkpoints and free the space that only they need.

    The newest checkpoint and those with an alias or a pin are kept: name others. This cannot be
    undone.
    """
    repository = open_for_change(output, single_writer=single_writer)
    history = repository.history
    named = (find(history, name) for name in checkpoints)
    commits = list({commit.checkpoint: commit for commit in named}.values())
    ids = [commit.checkpoint for commit in commits]
    waiting_bytes = 0
    if dry_run:
        freed_bytes = _would_free(repository, commits)
    elif not yes and not _agreed(repository, commits):
        click.echo("nothing was dropped", err=True)
        return 1
    else:
        collector = Collector(repository)
        collector.drop(ids)
        kept_s = usual_grace_s(repository.store) if grace_s is None else grace_s
        swept = collector.sweep(grace_s=kept_s, now_s=time.time())
        freed_bytes, waiting_bytes = swept.freed_bytes, swept.waiting_bytes
    if as_json:
        write_json(
            {
                "dropped": ids,
                "freed_bytes": freed_bytes,
                "waiting_bytes": waiting_bytes,
                "dry_run": dry_run,
            }
        )
        return 0
    for commit in commits:
        word = "would drop" if dry_run else "dropped"
        click.echo(f"{word} {label(history, commit)}  step {commit.step:,}")
    click.echo(f"{'would free' if dry_run else 'freed'} {size(freed_bytes)}")
    if waiting_bytes:
        click.echo(waiting_text(waiting_bytes))
    return 0


def _would_free(repository: Repository, commits: list[Commit]) -> int:
    """The bytes that only these need; raises what a drop would raise."""
    wanted = [commit.checkpoint for commit in commits]
    check_droppable(repository.history, wanted)
    return sum(Reach(repository).only(repository.history, wanted).values())


def _agreed(repository: Repository, commits: list[Commit]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{count(len(commits), 'checkpoint')} would be dropped for good",
            why="nobody can be asked: standard input is not a terminal",
            do="say --yes, or look first with --dry-run",
        )
    freed = size(_would_free(repository, commits))
    for commit in commits:
        click.echo(f"  {label(repository.history, commit)}  step {commit.step:,}", err=True)
    question = f"Drop {count(len(commits), 'checkpoint')} for good, freeing {freed}?"
    return click.confirm(question, err=True)
