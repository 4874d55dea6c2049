"""A server from its start to its end."""

from __future__ import annotations

import json
import signal
import socket
import sys
import threading
from types import FrameType

import uvicorn

from onward.engines.machine import ThisMachine
from onward.server.alone import Alone, alone_in
from onward.server.app import Parts, make_app
from onward.server.connections import Connection
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.listening import check_exposure, listen
from onward.server.logging import set_up_logging
from onward.server.scheduling.launching import check_user
from onward.server.security.first import first_token
from onward.server.settings import Settings

_KEEP_ALIVE_S = 20
_LAST_REQUESTS_S = 2
_LOOK_EVERY_S = 5.0


def run_server(settings: Settings, *, as_json: bool = False) -> int:
    """Serves until it is told to stop; returns the exit status. With `as_json` the address, and the
    first token where one was made, go to stdout as one JSON object.

    What runs goes on without it: the next server finds its agents again. Raises `UsageError` for
    settings that cannot be, among them a folder or a database that another server uses.
    """
    check_exposure(settings)
    check_user(settings)
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    set_up_logging(settings.log_format)
    with alone_in(settings.folder):
        database = open_database(settings.database_url)
        try:
            return _serve(settings, database, as_json=as_json)
        finally:
            database.close()


def _serve(settings: Settings, database: Database, *, as_json: bool) -> int:
    alone = Alone(database)
    try:
        migrate(database)
        with listen(settings) as listening:
            _greet(settings, database, listening, as_json=as_json)
            server = _Server(_config(settings, database))
            watch = threading.Thread(
                target=server.watch, args=(alone,), name="onward-alone", daemon=True
            )
            watch.start()
            server.run(sockets=[listening])
        return server.status
    finally:
        alone.release()


def _config(settings: Settings, database: Database) -> uvicorn.Config:
    return uvicorn.Config(
        make_app(Parts(settings, database, ThisMachine())),
        loop="uvloop", http=Connection, ws="none", lifespan="on",
        log_config=None, access_log=False, server_header=False, proxy_headers=False,
        limit_concurrency=settings.connections, timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=_LAST_REQUESTS_S,
        ssl_certfile=settings.tls_certificate, ssl_keyfile=settings.tls_key,
    )  # fmt: skip


def _greet(
    settings: Settings, database: Database, listening: socket.socket, *, as_json: bool
) -> None:
    scheme = "https" if settings.tls_certificate else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    address = f"{scheme}://{host}:{listening.getsockname()[1]}/"
    with first_token(database) as token:
        if as_json:
            print(json.dumps({"url": address, "token": token}), flush=True)
            return
        lines = [f"serving {address}"]
        if token is not None:
            lines.append(f"the first token, an administrator's; it is shown only now: {token}")
        for line in lines:
            print(f"onward: {line}", file=sys.stderr, flush=True)


class _Server(uvicorn.Server):
    """Ends with status 0 when it is asked to end, and stops where it lost the database's lock."""

    status = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # The base class remembers signals, to raise them again at the end.
        if self.should_exit and sig == signal.SIGINT:
            self.force_exit = True
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Streams end by themselves only when there is no more to come.
        await self.config.app.state.streams.close()  # type: ignore[union-attr]
        await super().shutdown(sockets)

    def watch(self, alone: Alone) -> None:
        tick = threading.Event()
        while not self.should_exit:
            tick.wait(_LOOK_EVERY_S)
            if not alone.still():
                print(
                    "onward: the connection that kept other servers away broke; stopping, so that "
                    "nothing is started twice. Start the server again",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
                self.status, self.should_exit = 1, True
