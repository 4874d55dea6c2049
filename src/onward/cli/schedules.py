"""`onward schedules`: jobs that a server submits by the clock, or when data has something new."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from onward.cli.job_spec import job_options, read_job, send_code
from onward.cli.options import json_option, write_json, write_lines
from onward.cli.server_options import (
    connect,
    job_line,
    moment,
    server_option,
    show_all,
    show_one,
)
from onward.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@click.group()
def schedules() -> None:
    """Let a server submit jobs by the clock, or when data has something new."""


def _times(function: F) -> F:
    """When a schedule submits its job."""
    function = click.option(
        "--timezone", default="UTC", show_default=True, metavar="NAME",
        help="Of --cron, such as Asia/Shanghai.",
    )(function)  # fmt: skip
    function = click.option(
        "--watch", is_flag=True, help="When the job's data changed and has stayed the same since."
    )(function)
    return click.option(
        "--cron", default="", metavar="LINE",
        help="By the clock: minute, hour, day, month, weekday, such as '30 2 * * *'; or @daily.",
    )(function)  # fmt: skip


@schedules.command("list")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List them, the newest first."""
    with connect(server) as client:
        found = client.all_of("schedules")
    columns = [
        ("SCHEDULE", lambda each: each["id"]),
        ("STATE", lambda each: "on" if each["enabled"] else "paused"),
        ("WHEN", _when),
        ("NEXT", lambda each: moment(each["next_at"] if each["enabled"] else None)),
        ("LAST JOB", lambda each: each["last_job"] or "-"),
        ("NAME", lambda each: each["name"]),
        ("REASON", lambda each: each["reason"]),
    ]
    show_all(found, columns, as_json=as_json)


@schedules.command()
@click.argument("what", metavar="SPEC|SCRIPT")
@_times
@job_options
@server_option
@json_option
def add(what: str, server: str, as_json: bool, **given: Any) -> None:
    """Make a schedule of a job, which is told as `onward submit` is told it.

    It has the job's name. The code is pinned now: every job of it runs the same.
    """
    with connect(server) as client:
        made = client.add("schedules", _document(client, what, given))
    show_one(made, _line(made), as_json=as_json)


@schedules.command()
@click.argument("schedule")
@click.argument("what", metavar="SPEC|SCRIPT")
@_times
@job_options
@server_option
@json_option
def change(schedule: str, what: str, server: str, as_json: bool, **given: Any) -> None:
    """Put another job and other times in the place of what SCHEDULE had, as a whole.

    The code is pinned anew. On or paused it stays, and jobs that it submitted go on.
    """
    with connect(server) as client:
        made = client.put("schedules", schedule, _document(client, what, given))
    show_one(made, _line(made), as_json=as_json)


@schedules.command()
@click.argument("schedule")
@server_option
@json_option
def pause(schedule: str, server: str, as_json: bool) -> None:
    """Let SCHEDULE submit no more jobs; those that it submitted go on."""
    with connect(server) as client:
        found = client.ask("schedules", schedule, "disable")
    show_one(found, _line(found), as_json=as_json)


@schedules.command()
@click.argument("schedule")
@server_option
@json_option
def resume(schedule: str, server: str, as_json: bool) -> None:
    """Let SCHEDULE submit jobs again; what was missed is not made up for."""
    with connect(server) as client:
        found = client.ask("schedules", schedule, "enable")
    show_one(found, _line(found), as_json=as_json)


@schedules.command()
@click.argument("schedule")
@server_option
@json_option
def run(schedule: str, server: str, as_json: bool) -> None:
    """Submit a job of SCHEDULE now, beside its times."""
    with connect(server) as client:
        job = client.ask("schedules", schedule, "run")
    if as_json:
        write_json(job)
    else:
        write_lines([job_line(job), f"follow it: onward logs -f {job['id']}"])


@schedules.command()
@click.argument("schedule")
@server_option
@json_option
def remove(schedule: str, server: str, as_json: bool) -> None:
    """Forget SCHEDULE. Its jobs stay, and go on."""
    with connect(server) as client:
        gone = client.remove("schedules", schedule)
    show_one(gone, f"{gone['id']} {gone['name']} is forgotten", as_json=as_json)


def _document(client: Any, what: str, given: dict[str, Any]) -> dict[str, Any]:
    """What the server is told of a schedule; sends the code of its job."""
    if bool(given["cron"]) == given["watch"]:
        raise UsageError(
            "a schedule is by the clock, or watches data",
            do="give either --cron LINE or --watch",
        )
    spec, folder = read_job(what, given)
    send_code(client, spec, folder)
    when = (
        {"kind": "watch"}
        if given["watch"]
        else {"kind": "cron", "cron": given["cron"], "timezone": given["timezone"]}
    )
    return {"name": spec.get("name", ""), **when, "job": spec}


def _when(schedule: dict[str, Any]) -> str:
    if schedule["kind"] == "watch":
        return "when data changes"
    return f"{schedule['cron']} ({schedule['timezone']})"


def _line(schedule: dict[str, Any]) -> str:
    state = "on" if schedule["enabled"] else "paused"
    following = (
        f"; next at {moment(schedule['next_at'])}"
        if schedule["enabled"] and schedule["next_at"] is not None
        else ""
    )
    return f"{schedule['id']} {schedule['name']} is {state}: {_when(schedule)}{following}"
