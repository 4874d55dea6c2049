"""`onward ps`: the jobs of a server."""

from __future__ import annotations

import time
from typing import Any

import click

from onward.cli.options import json_option, write_json, write_lines
from onward.cli.server_options import connect, server_option, shown_state
from onward.cli.text import clean, number, table

_ACTIVE = ("queued", "running", "backoff", "paused")
_STATES = (*_ACTIVE, "succeeded", "failed", "cancelled")
_NOT_TRAINING = ("queued", "backoff", "failed")
_LONGEST_REASON = 72


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Those that have ended, too.")
@click.option("--state", multiple=True, type=click.Choice(_STATES), help="Only these; repeatable.")
@click.option("--name", default="", help="What the name contains.")
@click.option("--output", default="", metavar="LOCATION", help="Of the output; `team:*` begins so.")
@click.option("-n", "--most", type=click.IntRange(1), default=50, show_default=True)
@server_option
@json_option
def ps(
    everything: bool, state: tuple[str, ...], name: str, output: str, most: int, server: str,
    as_json: bool,
) -> None:  # fmt: skip
    """List jobs that run or wait, the newest first."""
    states = state or (() if everything else _ACTIVE)
    with connect(server) as client:
        jobs = client.jobs(most=most, state=list(states), name=name, output=output)
    if as_json:
        write_json({"jobs": jobs})
        return
    if not jobs:
        write_lines(["no jobs" if everything or state else "no jobs run or wait; --all lists all"])
        return
    now = time.time()
    rows = [("JOB", "STATE", "PROGRESS", "AGE", "OUTPUT", "NAME")]
    rows += [
        (job["id"], shown_state(job), _progress(job), _age(now - job["created_at"]),
         clean(job["output"]), clean(job["name"]))
        for job in jobs
    ]  # fmt: skip
    write_lines(table(rows))


def _progress(job: dict[str, Any]) -> str:
    """Where training is; of a job that does not train, why."""
    progress, reason = job["progress"], clean(job["reason"])
    if reason and (job["state"] in _NOT_TRAINING or "step" not in progress):
        return reason if len(reason) <= _LONGEST_REASON else reason[: _LONGEST_REASON - 1] + "…"
    parts = []
    if isinstance(progress.get("step"), int):
        parts.append(f"step {progress['step']:,}")
    metrics = progress.get("metrics")
    for name, value in list((metrics if isinstance(metrics, dict) else {}).items())[:1]:
        if isinstance(value, int | float):
            parts.append(f"{clean(name)} {number(value)}")
    return ", ".join(parts)


def _age(seconds: float) -> str:
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
