"""What the commands that talk to a server share: which server, how a job's end is a status, how
things are listed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onward.cli.options import write_json, write_lines
from onward.cli.text import clean, table
from onward.errors import UsageError

if TYPE_CHECKING:
    from onward.client import Client

F = TypeVar("F", bound=Callable[..., Any])
Columns = Sequence[tuple[str, Callable[[dict[str, Any]], object]]]
"""Each column's head, and what it shows of an item."""

ENDED = ("succeeded", "failed", "cancelled")
STOPPED_SAFELY = 75
_DATA = "data_url"
"""As in `onward.jobs.spec`, whose import would take longer than most commands here."""


def server_option(function: F) -> F:
    """--server, which every command has that talks to one."""
    return click.option(
        "--server", default="", metavar="URL",
        help="The server; else ONWARD_SERVER, else the one of `onward login`.",
    )(function)  # fmt: skip


def connect(server: str) -> Client:
    """To be used in a `with`. Raises `UsageError` where no server or no token is known."""
    try:
        from onward.client import Client, find_login
    except ImportError as error:
        raise UsageError(
            "the client's packages are missing", why=str(error), do="pip install 'onward[client]'"
        ) from error
    return Client(find_login(server))


def show_all(items: list[dict[str, Any]], columns: Columns, *, as_json: bool) -> None:
    """What a list holds: a line for each, in these columns."""
    if as_json:
        write_json({"items": items})
        return
    rows = [[name for name, _ in columns]]
    rows += [[clean(shown(item)) for _, shown in columns] for item in items]
    write_lines(table(rows) if items else ["there are none"])


def show_one(item: dict[str, Any], line: str, *, as_json: bool) -> None:
    """What became of one thing: the server's document, or a line for people."""
    if as_json:
        write_json(item)
    else:
        write_lines([clean(line)])


def moment(at: float | None) -> str:
    """A time of the server in the time zone of this machine; `-` for none."""
    return "-" if at is None else f"{datetime.fromtimestamp(at).astimezone():%Y-%m-%d %H:%M}"


def data_input(inputs: Mapping[str, Any]) -> str:
    """The name of the input that --data is about: `data_url`, or the only one that there is."""
    return next(iter(inputs)) if len(inputs) == 1 else _DATA


def status_of(state: str) -> int:
    """The exit status that a job's state stands for."""
    return {"succeeded": 0, "failed": 1}.get(state, STOPPED_SAFELY)


def job_line(job: dict[str, Any]) -> str:
    """A job in one line: its id, its state, why."""
    reason = f": {job['reason']}" if job["reason"] else ""
    verb = "has" if job["state"] in ("succeeded", "failed") else "is"
    return clean(f"{job['id']} {job['name']} {verb} {shown_state(job)}{reason}")


def shown_state(job: dict[str, Any]) -> str:
    """Its state, and what it is about to become."""
    about = {"pause": "pausing", "stop": "stopping", "cancel": "being cancelled"}
    wanted = about.get(job["wanted"], "")
    return f"{job['state']}, {wanted}" if job["state"] == "running" and wanted else job["state"]
