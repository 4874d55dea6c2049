"""`onward storages`: the places that jobs of a server may name."""

from __future__ import annotations

import click

from onward.cli.options import json_option
from onward.cli.server_options import connect, server_option, show_all, show_one
from onward.errors import UsageError


@click.group()
def storages() -> None:
    """List, add and remove the storages of a server, which jobs name as `alias:path`."""


@storages.command("list")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List them by alias."""
    with connect(server) as client:
        found = client.all_of("storages")
    columns = [("ALIAS", lambda each: each["alias"]), ("URL", lambda each: each["url"])]
    show_all(found, columns, as_json=as_json)


@storages.command()
@click.argument("alias")
@click.argument("url")
@click.option(
    "--secret", "secrets", multiple=True, metavar="VARIABLE=NAME",
    help="A variable that the store's client reads, and the secret of the server that it gets, "
    "such as AWS_SECRET_ACCESS_KEY=team-key; repeatable.",
)  # fmt: skip
@click.option(
    "--single-writer", is_flag=True,
    help="Promise that nothing else writes there, for stores that cannot keep two apart.",
)  # fmt: skip
@server_option
@json_option
def add(
    alias: str, url: str, secrets: tuple[str, ...], single_writer: bool, server: str, as_json: bool
) -> None:
    """Register a place as ALIAS: a folder of the server's machine, or a bucket's prefix.

    Keys are no part of URL: they are secrets, and named by --secret.
    """
    environment = {}
    for pair in secrets:
        variable, equals, name = pair.partition("=")
        if not (variable and equals and name):
            raise UsageError(f"--secret {pair} is not understood", do="--secret VARIABLE=NAME")
        environment[variable] = name
    document = {
        "alias": alias, "url": url, "single_writer": single_writer, "environment": environment,
    }  # fmt: skip
    with connect(server) as client:
        added = client.add("storages", document)
    show_one(added, f"{added['alias']} is {added['url']}", as_json=as_json)


@storages.command()
@click.argument("alias")
@server_option
@json_option
def remove(alias: str, server: str, as_json: bool) -> None:
    """Forget the storage ALIAS; nothing in it is touched."""
    with connect(server) as client:
        gone = client.remove("storages", alias)
    show_one(gone, f"{alias} is forgotten; {gone['url']} is as it was", as_json=as_json)
