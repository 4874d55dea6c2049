"""A server from its start to its end."""

from __future__ import annotations

import sys

import uvicorn

from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import open_database
from onward.server.database.migrating import migrate
from onward.server.security.first import first_token
from onward.server.settings import Settings


def run_server(settings: Settings) -> int:
    """Serves until it is told to stop; returns the exit status."""
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    database = open_database(settings.database_url)
    migrate(database)
    token = first_token(database)
    if token is not None:
        print(f"onward: the first token (shown once): {token}", file=sys.stderr)
    app = make_app(Parts(settings, database, ThisMachine()))
    print(f"onward: http://{settings.host}:{settings.port}/", file=sys.stderr, flush=True)
    uvicorn.run(app, host=settings.host, port=settings.port, log_level="warning")
    return 0
