"""`onward drop`: checkpoints are forgotten, and what only they needed is deleted."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from onward.cli.options import json_option, output_argument, write_json
from onward.cli.outputs import find, label, open_output
from onward.cli.text import count, size
from onward.errors import Damaged, UsageError
from onward.repository import Commit, Repository


@dataclass(frozen=True, slots=True)
class _Plan:
    commits: list[Commit]
    packs: int
    freed_bytes: int


@click.command()
@output_argument
@click.argument("checkpoints", metavar="CHECKPOINT...", nargs=-1, required=True)
@click.option("--dry-run", is_flag=True, help="Only say what would be dropped and freed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def drop(output: str, checkpoints: tuple[str, ...], dry_run: bool, yes: bool, as_json: bool) -> int:
    """Forget checkpoints and free the space that only they need.

    The newest checkpoint and those with an alias are kept: name others. This cannot be undone.
    """
    repository = open_output(output)
    plan = _plan(repository, checkpoints)
    if dry_run:
        _say(repository, plan, plan.freed_bytes, dry_run=True, as_json=as_json)
        return 0
    if not yes and not _agreed(repository, plan):
        click.echo("nothing was dropped", err=True)
        return 1
    freed = repository.drop([commit.checkpoint for commit in plan.commits])
    _say(repository, plan, freed, dry_run=False, as_json=as_json)
    return 0


def _plan(repository: Repository, names: tuple[str, ...]) -> _Plan:
    """What a drop would do; raises what a drop would raise."""
    history = repository.history
    commits = list({c.checkpoint: c for c in (find(history, name) for name in names)}.values())
    wanted = [commit.checkpoint for commit in commits]
    repository._check_droppable(history, wanted)
    kept = [c for c in history.live() if c.checkpoint not in wanted]
    reached = {pack for commit in kept for pack in repository.manifest(commit).packs}
    condemned: dict[str, int] = {}
    for commit in commits:
        try:
            packs = repository.manifest(commit).packs
        except Damaged:
            continue  # what it needed cannot be told; `verify` lists it as a leftover afterwards
        condemned.update({p: ref.size for p, ref in packs.items() if p not in reached})
    return _Plan(commits, len(condemned), sum(condemned.values()))


def _agreed(repository: Repository, plan: _Plan) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"{count(len(plan.commits), 'checkpoint')} would be dropped for good",
            why="nobody can be asked: standard input is not a terminal",
            do="say --yes, or look first with --dry-run",
        )
    for commit in plan.commits:
        click.echo(f"  {label(repository.history, commit)}  step {commit.step:,}", err=True)
    question = f"Drop {count(len(plan.commits), 'checkpoint')} for good"
    return click.confirm(f"{question}, freeing {size(plan.freed_bytes)}?", err=True)


def _say(
    repository: Repository, plan: _Plan, freed_bytes: int, *, dry_run: bool, as_json: bool
) -> None:
    if as_json:
        write_json(
            {
                "dropped": [commit.checkpoint for commit in plan.commits],
                "packs": plan.packs,
                "freed_bytes": freed_bytes,
                "dry_run": dry_run,
            }
        )
        return
    for commit in plan.commits:
        word = "would drop" if dry_run else "dropped"
        click.echo(f"{word} {label(repository.history, commit)}  step {commit.step:,}")
    word = "would free" if dry_run else "freed"
    click.echo(f"{word} {size(freed_bytes)} in {count(plan.packs, 'pack')}")
