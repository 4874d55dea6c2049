"""`onward drop`: checkpoints are forgotten, and what only they needed is deleted."""

from __future__ import annotations

import sys

import click

from onward.cli.options import json_option, output_argument, single_writer_option, write_json
from onward.cli.outputs import find, label, open_for_change
from onward.cli.text import count, size
from onward.errors import Damaged, UsageError
from onward.repository import Commit, Repository


@click.command()
@output_argument
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped and freed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@single_writer_option
@json_option
def drop(
    output: str,
    checkpoints: tuple[str, ...],
    dry_run: bool,
    yes: bool,
    single_writer: bool,
    as_json: bool,
) -> int:
    """Forget checkpoints and free the space that only they need.

    The newest checkpoint and those with an alias are kept: name others. This cannot be undone.
    """
    repository = open_for_change(output, single_writer=single_writer)
    history = repository.history
    named = (find(history, name) for name in checkpoints)
    commits = list({commit.checkpoint: commit for commit in named}.values())
    if dry_run:
        freed_bytes = _would_free(repository, commits)
    elif yes or _agreed(repository, commits):
        freed_bytes = repository.drop([commit.checkpoint for commit in commits])
    else:
        click.echo("nothing was dropped", err=True)
        return 1
    if as_json:
        ids = [commit.checkpoint for commit in commits]
        write_json({"dropped": ids, "freed_bytes": freed_bytes, "dry_run": dry_run})
        return 0
    for commit in commits:
        word = "would drop" if dry_run else "dropped"
        click.echo(f"{word} {label(history, commit)}  step {commit.step:,}")
    click.echo(f"{'would free' if dry_run else 'freed'} {size(freed_bytes)}")
    return 0


def _would_free(repository: Repository, commits: list[Commit]) -> int:
    """The bytes that a drop would free; raises what it would raise."""
    wanted = [commit.checkpoint for commit in commits]
    repository.check_droppable(repository.history, wanted)
    condemned: dict[str, int] = {}
    for commit in commits:
        try:
            packs = repository.manifest(commit).packs
        except Damaged:
            continue  # what it needs cannot be told: that becomes leftovers
        condemned.update({pack: ref.size for pack, ref in packs.items()})
    for commit in repository.history.live():
        if condemned and commit.checkpoint not in wanted:
            for pack in repository.manifest(commit).packs:
                condemned.pop(pack, None)
    return sum(condemned.values())


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
