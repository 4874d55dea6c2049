"""`onward login`: the server that the next commands talk to."""

from __future__ import annotations

import os
import sys

import click

from onward.cli.options import json_option, write_json, write_lines
from onward.errors import UsageError


@click.command()
@click.argument("url")
@click.option(
    "--plain-http", is_flag=True, help="The network is safe: send the token without encryption."
)
@json_option
def login(url: str, plain_http: bool, as_json: bool) -> None:
    """Keep the address and the token of a server for the next commands.

    The token is asked for, or read from standard input or from ONWARD_TOKEN; it is tried, and kept
    in a file that only you can read.
    """
    try:
        from onward.client import Client, Login, save_login
        from onward.client.login import TOKEN, check_secrecy, checked_address
    except ImportError as error:
        raise UsageError(
            "the client's packages are missing", why=str(error), do="pip install 'onward[client]'"
        ) from error
    address = checked_address(url)
    check_secrecy(Login(address, "", plain_http))
    token = os.environ.get(TOKEN, "")
    if not token and sys.stdin.isatty():
        token = str(click.prompt("Token", hide_input=True, err=True))
    elif not token:
        token = sys.stdin.readline()
    found = Login(address, token.strip(), plain_http)
    if not found.token.isascii() or not found.token.isprintable() or not found.token:
        raise UsageError("this is no token", do="paste the text that the server showed once")
    with Client(found) as client:
        client.jobs(most=1)
    path = save_login(found)
    if as_json:
        write_json({"server": found.server, "file": str(path)})
    else:
        write_lines([f"logged in to {found.server}; kept in {path}"])
