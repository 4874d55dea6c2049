"""`onward tokens`: who may use a server, and for what."""

from __future__ import annotations

import time
from typing import Any

import click

from onward.cli.options import json_option, write_json, write_lines
from onward.cli.server_options import connect, moment, server_option, show_all, show_one
from onward.cli.text import clean
from onward.errors import OnwardError


@click.group()
def tokens() -> None:
    """List, add and revoke the tokens of a server.

    Where all are lost: `onward server token`, where the server's folder is.
    """


@tokens.command("list")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List all there ever were, the newest first, without their texts."""
    with connect(server) as client:
        found = client.all_of("tokens")
    columns = [
        ("TOKEN", lambda each: each["id"]),
        ("SCOPE", lambda each: each["scope"]),
        ("STATE", _state),
        ("USED", lambda each: moment(each["used_at"])),
        ("NAME", lambda each: each["name"]),
    ]
    show_all(found, columns, as_json=as_json)


@tokens.command()
@click.argument("name")
@click.option("--scope", type=click.Choice(["read", "write", "admin"]), default="read",
              show_default=True, help="What whoever has it may do.")  # fmt: skip
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="How long it is good.")
@server_option
@json_option
def add(name: str, scope: str, days: float | None, server: str, as_json: bool) -> None:
    """Make a token called NAME; its text is shown now and never again."""
    document: dict[str, Any] = {"name": name, "scope": scope}
    if days is not None:
        document["lifetime_s"] = days * 86_400
    with connect(server) as client:
        made = client.add("tokens", document)
    if made["token"] is None:
        raise OnwardError(
            f"the text of the token {made['id']} was lost on its way",
            why="the connection broke when it was shown, and it is shown once",
            do=f"onward tokens revoke {made['id']}, then make another",
        )
    if as_json:
        write_json(made)
    else:
        write_lines([clean(made["token"])])


@tokens.command()
@click.argument("token")
@server_option
@json_option
def revoke(token: str, server: str, as_json: bool) -> None:
    """Let TOKEN, an id that `list` shows, be good for nothing from now on."""
    with connect(server) as client:
        gone = client.remove("tokens", token)
    show_one(gone, f"{gone['id']} {gone['name']} is revoked", as_json=as_json)


def _state(token: dict[str, Any]) -> str:
    if token["revoked_at"] is not None:
        return "revoked"
    until = token["expires_at"]
    if until is None:
        return "good"
    return f"good until {moment(until)}" if until > time.time() else "expired"
