"""`onward secrets`: values that a server keeps for jobs, storages and webhooks, and never shows."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onward.cli.options import json_option
from onward.cli.server_options import connect, moment, server_option, show_all, show_one
from onward.errors import UsageError


@click.group()
def secrets() -> None:
    """List, set and remove the secrets of a server.

    A job names one (`--secret VARIABLE=NAME`), a storage or a webhook too. No command, page or
    answer shows its value again.
    """


@secrets.command("list")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List their names."""
    with connect(server) as client:
        found = client.all_of("secrets")
    columns = [
        ("NAME", lambda each: each["name"]),
        ("SET", lambda each: moment(each["created_at"])),
        ("BY", lambda each: each["created_by"]),
    ]
    show_all(found, columns, as_json=as_json)


@secrets.command("set")
@click.argument("name")
@click.argument(
    "file", required=False, type=click.Path(path_type=Path, exists=True, dir_okay=False)
)
@server_option
@json_option
def set_(name: str, file: Path | None, server: str, as_json: bool) -> None:
    """Keep a value under NAME, in the place of what it was.

    The value is asked for, or read from standard input without its last line end, or is what FILE
    holds, as it stands. It is no argument: the arguments of a process are for all to see.
    """
    value = _from_file(file) if file is not None else _from_input()
    if not value:
        raise UsageError(f"the secret {name} would be empty", do="give its value")
    with connect(server) as client:
        kept = client.put("secrets", name, {"value": value})
    show_one(kept, f"{name} is kept", as_json=as_json)


@secrets.command()
@click.argument("name")
@server_option
@json_option
def remove(name: str, server: str, as_json: bool) -> None:
    """Forget the secret NAME. Jobs that name it cannot start any more."""
    with connect(server) as client:
        gone = client.remove("secrets", name)
    show_one(gone, f"{name} is forgotten", as_json=as_json)


def _from_file(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as text", why=str(error)) from error


def _from_input() -> str:
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, err=True))
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise UsageError("standard input is no text", why=str(error)) from error
    return text.removesuffix("\n").removesuffix("\r")
