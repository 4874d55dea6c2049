"""`onward serve`: the server, its scheduler and its console in one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from onward.cli.options import json_option
from onward.errors import UsageError

PACKAGES = "pip install 'onward[server]'"


def server_option(*names: str, **more: Any) -> Callable[[Any], Any]:
    """An option that the environment may give as well, as ONWARD_SERVER_NAME."""
    variable = "ONWARD_SERVER_" + names[0].removeprefix("--").replace("-", "_").upper()
    return click.option(*names, envvar=variable, show_envvar=True, **more)


@click.command()
@server_option(
    "--folder", type=click.Path(path_type=Path), help="Where the server keeps its own files."
)
@server_option("--database", metavar="URL", help="postgresql://USER@HOST/NAME; by default SQLite.")
@server_option("--host", metavar="ADDRESS", help="Address to listen on; by default 127.0.0.1.")
@server_option("--port", type=click.IntRange(0, 65535), help="By default 8420; 0 takes a free one.")
@server_option("--allow-host", "hosts", multiple=True, metavar="NAME",
         help="A name by which browsers may ask for this server; may be repeated.")  # fmt: skip
@server_option("--tls-certificate", type=click.Path(path_type=Path), metavar="FILE", help="PEM.")
@server_option("--tls-key", type=click.Path(path_type=Path), metavar="FILE", help="PEM.")
@server_option("--insecure-without-tls", is_flag=True, default=None,
         help="Others may connect in clear text, as something before it speaks TLS.")  # fmt: skip
@server_option("--slots", type=click.IntRange(1), help="Attempts at the same time; by default 2.")
@server_option("--job-user", metavar="USER", help="Run jobs as this user; needs root.")
@server_option("--log-format", type=click.Choice(["text", "json"]), help="Of the server's own log.")
@json_option
def serve(as_json: bool, **given: Any) -> int:
    """Start the server: REST API, scheduler and console.

    The first start prints a token, and whoever has it is an administrator. Jobs that run go on
    when the server ends, however it ends; the next one finds them again.
    """
    try:
        from onward.server.running import run_server
        from onward.server.settings import Settings
    except ImportError as error:
        raise UsageError(
            "the server's packages are missing", why=str(error), do=PACKAGES
        ) from error
    chosen = {name: value for name, value in given.items() if value not in (None, ())}
    return run_server(Settings(**chosen), as_json=as_json)
