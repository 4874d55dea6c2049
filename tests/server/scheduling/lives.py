"""A server that dies where it is told to, again and again: `python -m …lives URL FOLDER`.

Reads one command a line, `POINT` or `-`: starts a server in a process of its own (a fork of this
one, which has imported everything), and says its number. The server is the real one: the product
knows nothing of this. It ends itself by SIGKILL when it passes the point of that number, counted
from its start; points are right before and right after each commit of the scheduler, and before and
after each call of the engine that changes something (threads that keep indexes and send messages
commit as well, at every start, and would be all that ever dies). When it has ended, the line
`ended STATUS POINTS` follows.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import event
from sqlalchemy.orm import Session

from onward.engines.base import Launch
from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import open_database
from onward.server.settings import Settings


class Points:
    """Counts what is passed, and dies at the chosen one."""

    def __init__(self, die_at: int | None, told: int) -> None:
        self.passed = 0
        self._die_at = die_at
        self._told = told

    def here(self, *_: Any) -> None:
        if threading.current_thread().name != "onward-scheduler":
            return
        self.passed += 1
        os.pwrite(self._told, b"%-20d" % self.passed, 0)
        if self.passed == self._die_at:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalMachine(ThisMachine):
    """This machine, with a point before and after each call."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def start(self, launch: Launch) -> None:
        self._points.here()
        super().start(launch)
        self._points.here()

    def ask(self, folder: Path, what: str) -> None:
        self._points.here()
        super().ask(folder, what)
        self._points.here()

    def destroy(self, folder: Path) -> None:
        self._points.here()
        super().destroy(folder)
        self._points.here()


def live(url: str, folder: Path, points: Points) -> None:
    """A server's life, until it is killed."""
    database = open_database(url)
    event.listen(Session, "before_commit", points.here)
    event.listen(Session, "after_commit", points.here)
    settings = Settings(
        folder=folder, database=url, slots=20, first_backoff_s=0.05, longest_backoff_s=0.2,
        tick_s=0.03,
    )  # fmt: skip
    app = make_app(Parts(settings, database, MortalMachine(points)))
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning")
    asyncio.run(uvicorn.Server(config).serve())


def main(url: str, folder: Path) -> None:
    for line in sys.stdin:
        word = line.strip()
        told = os.memfd_create("points")
        pid = os.fork()
        if pid == 0:
            nowhere = os.open(os.devnull, os.O_RDONLY)
            os.dup2(nowhere, 0)
            os.dup2(2, 1)
            live(url, folder, Points(int(word) if word != "-" else None, told))
            os._exit(0)
        print(pid, flush=True)
        _, status = os.waitpid(pid, 0)
        passed = os.pread(told, 20, 0).decode().strip() or "0"
        os.close(told)
        print("ended", os.waitstatus_to_exitcode(status), passed, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
