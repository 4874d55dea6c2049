"""`onward serve`: the server, its scheduler and its console in one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onward.errors import UsageError


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where the server keeps its own.")
@click.option("--database", default="", metavar="URL", help="postgresql://…; by default SQLite.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8420, show_default=True)
@click.option("--slots", type=click.IntRange(1), default=2, show_default=True, help="Jobs at once.")
def serve(**given: Any) -> int:
    """Start the server: REST API, scheduler and console.

    The first start prints a token; whoever has it is an administrator.
    """
    try:
        from onward.server.running import run_server
        from onward.server.settings import Settings
    except ImportError as error:
        raise UsageError(
            "the server's packages are missing",
            why=str(error),
            do="pip install 'onward[server]'",
        ) from error
    return run_server(Settings(**{name: value for name, value in given.items() if value}))
