"""Servers, one after another, in processes that a test may kill; and a client that bears it.

The client does as a client should: whatever it does not know the outcome of, it asks again with the
same Idempotency-Key. It begins the next server itself, for in tests there is nobody else who would.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2

from onward.jobs.process_table import stat_facts

PATIENCE_S = 120.0
_TIMEOUT_S = 30.0


class Ground:
    """A process that has imported the server, of which servers are forks: one for many tests."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.server.kills.mortal"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ask(self, **order: Any) -> str:
        """Returns the answer's line."""
        assert self._process.stdin is not None
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return self.heard()

    def heard(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the process that starts servers has died"
        return line.strip()

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)


@dataclass
class Lives:
    """The servers of one folder and database. At most one lives."""

    ground: Ground
    kind: str
    folder: Path
    url: str
    home: Path
    port: int = 0
    pid: int = 0
    moments: Iterator[float] = field(default_factory=lambda: iter(()))
    """So many seconds after they begin to listen the next ones die, each wherever it is,
    if nothing else is said."""
    deaths: list[str] = field(default_factory=list)
    """The last point of each server that was killed."""
    _is_over: bool = True
    _log: Path = field(init=False)
    _points: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._log, self._points = self.folder / "lives.log", self.folder / "points"
        answer = self.ground.ask(
            open=self.kind, url=self.url, folder=str(self.folder), home=str(self.home),
            log=str(self._log), points=str(self._points),
        )  # fmt: skip
        self.port = int(answer.removeprefix("opened "))

    def begin(self, at: str = "", nth: int = 1) -> None:
        """Starts a server, which dies the nth time that it passes `at`: `before PLACE`, `after
        PLACE`, `scheduler` for any point of its thread, or `request` for any of a request."""
        assert self._is_over
        in_s = None if at else next(self.moments, None)
        self.pid, self._is_over = int(self.ground.ask(at=at, nth=nth, in_s=in_s)), False

    def kill(self) -> None:
        """If it lives."""
        if self._is_over:
            return
        with contextlib.suppress(ProcessLookupError):  # it may have come to its point
            os.kill(self.pid, signal.SIGKILL)
        self.wait()

    def is_alive(self) -> bool:
        facts = stat_facts(self.pid) if self.pid else None
        return facts is not None and facts[0] != "Z"

    def wait(self) -> int:
        """Until the server has ended; returns its status."""
        status = int(self.ground.heard().removeprefix("ended "))
        self._is_over = True
        if status == -signal.SIGKILL:
            self.deaths.append((self.passed() or [""])[-1])
        return status

    def go_on(self) -> None:
        """Begins another server if there is none."""
        if not self._is_over and not self.is_alive():
            self.wait()
        if self._is_over:
            self.begin()

    def until(self, true: Callable[[], bool], *, timeout_s: float = PATIENCE_S) -> None:
        """Waits; whenever the server has died, there is another one."""
        end_s = time.monotonic() + timeout_s
        while not true():
            assert time.monotonic() < end_s, f"it did not come about\n{self.log()}"
            self.go_on()
            time.sleep(0.03)

    def passed(self) -> list[str]:
        """The points of all of them, in order."""
        return self._points.read_text().splitlines() if self._points.exists() else []

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def end(self) -> None:
        self.kill()
        assert self.ground.ask(close=True) == "closed"
        print(self.log())


@contextmanager
def lives_of(
    ground: Ground, kind: str, folder: Path, url: str, home: Path | None = None
) -> Iterator[Lives]:
    found = Lives(ground, kind, folder, url, home or folder / "home")
    try:
        yield found
    finally:
        found.end()


class Client:
    """Asks until it is answered."""

    def __init__(self, lives: Lives, token: str = "") -> None:
        self.lives = lives
        self.sent: list[int] = []
        """How often each call was sent to a server that lived."""
        # No connection is kept: it might be of a server that is dead.
        self._client = httpx2.Client(
            base_url=f"http://127.0.0.1:{lives.port}",
            headers={"authorization": f"Bearer {token}"} if token else {},
            limits=httpx2.Limits(max_keepalive_connections=0),
        )  # fmt: skip

    def ask(self, method: str, path: str, *, key: str | None = "", **more: Any) -> httpx2.Response:
        """One call: sent with one key until there is an answer, or without any for the key None."""
        headers = dict(more.pop("headers", {}))
        if key is not None:
            headers["idempotency-key"] = key or uuid4().hex
        self.sent.append(0)
        end_s = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < end_s, f"no answer\n{self.lives.log()}"
            self.lives.go_on()
            try:
                # Without a key a call that is only slow must not be sent again.
                timeout_s = PATIENCE_S if key is None else _TIMEOUT_S
                answer = self._client.request(
                    method, path, headers=headers, timeout=timeout_s, **more
                )
            except httpx2.TransportError as error:
                self.sent[-1] += not isinstance(error, httpx2.ConnectError)
                # Its connections end a moment before a server is seen to have ended, and it takes
                # a moment until the next one listens.
                time.sleep(0.005)
                continue
            self.sent[-1] += 1
            if not answer.text.count('error:Busy"'):
                return answer
