"""A server that dies where it is told to, again and again: `python -m tests.server.kills.mortal`.

Reads orders, one JSON object a line. `open` makes everything for servers of one database and
folder, and answers with their port; each other order up to `close` starts a server in a process of
its own (a fork of this one, which has imported everything), and is answered by its number, and when
it has ended by its status.

The server is the real one: the product knows nothing of this. It ends itself by SIGKILL at its
point: right before or right after a commit, or a call of the engine that changes something. A point
is meant by its side and place, or by its number among those of the scheduler or of a request. Or
it does so some time after it began to listen, wherever it is.

All servers of one `open` listen on one port, each with a socket of its own: whoever waits for an
answer hears at once that a server died.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import event, select
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from onward.engines.base import Launch
from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Token
from onward.server.logging import set_up_logging
from onward.server.models import librarian
from onward.server.models.rebuilding import rebuild
from onward.server.running import _greet
from onward.server.security.first import token_from_folder
from onward.server.settings import Settings
from tests.server.api.house import NoEngine
from tests.server.kills.boundaries import boundaries, here

START, TOKEN, REBUILD, WHOLE, ROUTES = "start", "token", "rebuild", "whole", "routes"
"""What is opened: the first seconds of a server; `onward server token` and `rebuild`; a whole
server; its routes alone, without the threads that would change what tests made."""

USE_IS_NOTED = "security/principals.py Principals._note_use"
"""Of a token, at the first request to every server: not counted among what a request does."""


class Points:
    """Notes each point that is passed, and dies at the chosen one."""

    def __init__(self, log: Path) -> None:
        self._log = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._left = 0
        self._in_s: float | None = None
        self._of = ""

    def choose(self, order: dict[str, Any]) -> None:
        self._of, self._left = order.get("at", ""), order.get("nth", 1)
        self._in_s = order.get("in_s")

    def listens(self) -> None:
        """From here on the server's time runs, if it is given one."""
        if self._in_s is not None:
            moment = threading.Timer(self._in_s, os.kill, (os.getpid(), signal.SIGKILL))
            moment.daemon = True
            moment.start()

    def before(self, *_: Any) -> None:
        self.at(here(), "before")

    def after(self, *_: Any) -> None:
        self.at(here(), "after")

    def at(self, place: str, side: str) -> None:
        point = f"{side} {place}"
        os.write(self._log, f"{point}\n".encode())
        if self._of in (point, self._kind(place)):
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def _kind(self, place: str) -> str:
        if threading.current_thread().name == "onward-scheduler":
            return "scheduler"
        return "request" if place != USE_IS_NOTED else "other"


class MortalMachine(ThisMachine):
    """This machine, with a point before and after each call."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def start(self, launch: Launch) -> None:
        self._around("start", lambda: super(MortalMachine, self).start(launch))

    def ask(self, folder: Path, what: str) -> None:
        self._around("ask", lambda: super(MortalMachine, self).ask(folder, what))

    def destroy(self, folder: Path) -> None:
        self._around("destroy", lambda: super(MortalMachine, self).destroy(folder))

    def _around(self, name: str, call: Callable[[], None]) -> None:
        self._points.at(f"engine {name}", "before")
        call()
        self._points.at(f"engine {name}", "after")


class MortalServer(uvicorn.Server):
    """Says when it begins to listen."""

    def __init__(self, config: uvicorn.Config, points: Points) -> None:
        super().__init__(config)
        self._points = points

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._points.listens()


def prepare(
    order: dict[str, Any], points: Points, listening: Callable[[], socket.socket]
) -> Callable[[], None]:
    """What each server of these will do."""
    os.environ["ONWARD_HOME"] = order["home"]
    database = open_database(order["url"])
    set_up_logging("text")
    if order["open"] != START:
        with database.read() as session:
            session.scalars(select(Token).limit(1)).all()  # the tables' classes are made ready
    database.engine.dispose()  # a connection is not for two processes
    settings = Settings(
        folder=Path(order["folder"]), database=order["url"], slots=20, first_backoff_s=0.05,
        longest_backoff_s=0.2, tick_s=0.05, watch_every_s=0.1,
    )  # fmt: skip
    event.listen(Session, "before_commit", points.before)
    event.listen(Session, "after_commit", points.after)
    if order["open"] == START:
        return lambda: _first_seconds(settings, database, listening, points)
    if order["open"] == REBUILD:
        return lambda: print(rebuild(settings, database), file=sys.stderr)
    if order["open"] == TOKEN:
        return lambda: print(token_from_folder(settings, "more", "admin"), file=sys.stderr)
    librarian._EVERY_S = 0.3
    whole = order["open"] == WHOLE
    engine: Any = MortalMachine(points) if whole else NoEngine()
    app = make_app(Parts(settings, database, engine))
    # What is made at the first request is made here, once for all.
    TestClient(app.router, raise_server_exceptions=False).get("/nowhere")
    config = uvicorn.Config(app, log_level="warning", lifespan="on" if whole else "off")
    config.load()
    return lambda: asyncio.run(MortalServer(config, points).serve(sockets=[listening()]))


def _first_seconds(
    settings: Settings, database: Database, listening: Callable[[], socket.socket], points: Points
) -> None:
    def statement(*_: Any) -> None:
        points.at("a statement of the migrations", "before")

    event.listen(database.engine, "before_cursor_execute", statement)
    event.listen(database.engine, "commit", points.before)
    migrate(database)
    event.remove(database.engine, "before_cursor_execute", statement)
    event.remove(database.engine, "commit", points.before)
    points.at("database/migrating.py migrate", "after")
    _greet(settings, database, listening(), as_json=False)


def main() -> None:
    boundaries()  # read once, for all
    while (order := _next()) is not None:
        # Whatever is opened is in a process of its own: the next finds this one as it was.
        pid = os.fork()
        if pid == 0:
            _open(order)
            os._exit(0)
        os.waitpid(pid, 0)


def _open(order: dict[str, Any]) -> None:
    points = Points(Path(order["points"]))
    os.dup2(os.open(order["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    reserved = _bound(0)  # and never listened on
    port = reserved.getsockname()[1]
    serve = prepare(order, points, lambda: _bound(port))
    _say(f"opened {port}")
    while (order := _next() or {"close": True}) and "close" not in order:
        pid = os.fork()
        if pid == 0:
            nowhere = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nowhere, 0)
            os.dup2(2, 1)
            points.choose(order)
            serve()
            os._exit(0)
        _say(pid)
        _, status = os.waitpid(pid, 0)
        _say(f"ended {os.waitstatus_to_exitcode(status)}")
    _say("closed")


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _say(text: object) -> None:
    os.write(1, f"{text}\n".encode())


def _next() -> Any:
    """Byte by byte: what follows is for a child to read."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            return None
        line += byte
    return json.loads(line)


if __name__ == "__main__":
    main()
