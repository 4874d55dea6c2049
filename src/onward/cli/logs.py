"""`onward logs`: what a job printed, and prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onward.cli.options import json_option, size_bytes, write_json, write_lines
from onward.cli.server_options import connect, server_option, show_one
from onward.cli.text import clean, size
from onward.errors import UsageError

if TYPE_CHECKING:
    from onward.client import Client


@click.command()
@click.argument("job")
@click.option("-f", "--follow", "following", is_flag=True, help="Go on until the job has ended.")
@click.option("--attempt", type=click.IntRange(1), help="Which try; by default the newest.")
@click.option("--tail", type=click.IntRange(1, 10_000), metavar="N", help="The last N lines only.")
@click.option(
    "--cut", "keep_bytes", callback=size_bytes, metavar="SIZE",
    help="Show nothing, but free the space of all but the newest SIZE, such as 0, 500kB or 10MB.",
)  # fmt: skip
@server_option
@json_option
def logs(
    job: str, following: bool, attempt: int | None, tail: int | None, keep_bytes: int | None,
    server: str, as_json: bool,
) -> None:  # fmt: skip
    """Show what a JOB printed.

    With --follow and --json: one JSON object for each piece, in its own line.
    """
    if keep_bytes is not None and (following or tail):
        raise UsageError("--cut shows nothing", do="leave --follow and --tail away")
    with connect(server) as client:
        if keep_bytes is not None:
            cut = client.cut_log(job, keep_bytes=keep_bytes, attempt=attempt)
            line = f"the log of attempt {cut['attempt']} of {job} begins at byte {cut['begin']:,}"
            show_one(cut, line, as_json=as_json)
            return
        if following:
            follow(client, job, as_json=as_json, attempt=attempt, tail=tail)
            return
        offset, lines = 0, []
        while True:
            query = {"tail": tail} if tail else {"offset": offset, "limit": 1 << 20}
            part = client.log(job, attempt=attempt, **query)
            if as_json:
                lines += part["lines"]
            else:
                write_lines([text for line in part["lines"] for text in _shown(line)])
            is_open = bool(part["lines"]) and part["lines"][-1].get("open", False)
            if tail or is_open or part["next"] >= part["size"] or part["next"] == offset:
                break
            offset = part["next"]
        if as_json:
            write_json({"job": job, "attempt": part["attempt"], "lines": lines})


def follow(
    client: Client, job: str, *, as_json: bool, attempt: int | None = None, tail: int | None = None
) -> str:
    """Shows the log until the job has ended; returns the state in which it did, or ''."""
    waiting: dict[str, Any] | None = None
    for each in client.follow_log(job, attempt=attempt, tail=tail):
        if as_json:
            write_json({"event": each.event, **each.data})
        if each.event == "end":
            return str(each.data.get("state") or "")
        if as_json:
            continue
        if each.event == "lines":
            # A line without its end comes again: it is shown when it is whole.
            whole = [line for line in each.data["lines"] if not line.get("open")]
            still_open = [line for line in each.data["lines"] if line.get("open")]
            waiting = still_open[-1] if still_open else None
            write_lines([text for line in whole for text in _shown(line)])
        elif each.event == "attempt-ended" and waiting is not None:
            write_lines(_shown(waiting))
            waiting = None
    return ""


def _shown(line: dict[str, Any]) -> list[str]:
    text = clean(str(line["text"]).expandtabs())
    if line.get("cut"):
        text += f" … {size(line['cut'])} more in this line"
    return [text]
