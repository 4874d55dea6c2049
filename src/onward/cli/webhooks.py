"""`onward webhooks`: where a server tells of moves of jobs."""

from __future__ import annotations

from typing import Any

import click

from onward.cli.options import json_option
from onward.cli.server_options import connect, moment, server_option, show_all, show_one


@click.group()
def webhooks() -> None:
    """List, add, test and remove the webhooks of a server; see what was delivered.

    A job asks for one with `notify = ["NAME"]`.
    """


@webhooks.command("list")
@server_option
@json_option
def list_(server: str, as_json: bool) -> None:
    """List them by name."""
    with connect(server) as client:
        found = client.all_of("webhooks")
    columns = [
        ("NAME", lambda each: each["name"]),
        ("SECRET", lambda each: each["secret"]),
        ("URL", lambda each: each["url"]),
    ]
    show_all(found, columns, as_json=as_json)


@webhooks.command()
@click.argument("name")
@click.argument("url")
@click.option(
    "--secret", required=True, metavar="SECRET",
    help="The name of the secret of the server that signs what is told.",
)  # fmt: skip
@click.option(
    "--allow-private", is_flag=True,
    help="It may be on the server's machine or in a private network, and http.",
)  # fmt: skip
@server_option
@json_option
def add(name: str, url: str, secret: str, allow_private: bool, server: str, as_json: bool) -> None:
    """Register a webhook called NAME, which is told at URL."""
    document = {"name": name, "url": url, "secret": secret, "allow_private": allow_private}
    with connect(server) as client:
        added = client.add("webhooks", document)
    show_one(added, f"{name} is {added['url']}; try it: onward webhooks test {name}",
             as_json=as_json)  # fmt: skip


@webhooks.command()
@click.argument("name")
@server_option
@json_option
def test(name: str, server: str, as_json: bool) -> None:
    """Send NAME a message of the type `webhook.test`."""
    with connect(server) as client:
        sent = client.ask("webhooks", name, "test")
    line = f"{sent['id']} is on its way; how it went: onward webhooks deliveries {name}"
    show_one(sent, line, as_json=as_json)


@webhooks.command()
@click.argument("name")
@click.option("-n", "--most", type=click.IntRange(1), default=20, show_default=True)
@server_option
@json_option
def deliveries(name: str, most: int, server: str, as_json: bool) -> None:
    """List messages to NAME, the latest first: sent, waiting or given up."""
    with connect(server) as client:
        found = client.deliveries(name, most=most)
    columns = [
        ("MESSAGE", lambda each: each["id"]),
        ("TYPE", lambda each: each["body"].get("type", "")),
        ("TRIES", lambda each: each["tries"]),
        ("STATE", _state),
    ]
    show_all(found, columns, as_json=as_json)


@webhooks.command()
@click.argument("name")
@server_option
@json_option
def remove(name: str, server: str, as_json: bool) -> None:
    """Forget the webhook NAME; what waits to be sent to it is not sent."""
    with connect(server) as client:
        gone = client.remove("webhooks", name)
    show_one(gone, f"{name} is forgotten", as_json=as_json)


def _state(delivery: dict[str, Any]) -> str:
    problem = f": {delivery['problem']}" if delivery["problem"] else ""
    if delivery["done_at"] is not None:
        return f"given up{problem}" if problem else f"received {moment(delivery['done_at'])}"
    return f"waits until {moment(delivery['next_at'])}{problem}"
