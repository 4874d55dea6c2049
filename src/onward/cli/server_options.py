"""What the commands that talk to a server share: which server, and how a job's end is a status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

from onward.cli.text import clean
from onward.errors import UsageError

if TYPE_CHECKING:
    from onward.client import Client

F = TypeVar("F", bound=Callable[..., Any])

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
