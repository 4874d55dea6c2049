"""What happens in an attempt, a line of JSON each: the display of an agent whose people are away.

Each has `at`, in seconds since 1970, and its `kind`:

    begin      verb, why, checkpoint, increment, generation, rejected: how the script starts
    say        text
    transfer   title, direction (fetch or push), done, total: bytes
    training   step, epoch, batch, batches, metrics, behind
    saved      checkpoint, step, reason
    pushed     size_bytes, files, commits: all that went to the output so far
    end        exit_code, message
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onward.engines.base import EVENTS
from onward.engines.redaction import Redactor
from onward.jobs.display import Lines, Passed

_EVERY_S = 0.5
_LONGEST_TEXT = 16_384


class EventLog:
    """Writes events; also a `Display`, whose lines go to the log as well.

    A script may tell a thousand steps a second: what comes in between is left out, but not the last
    of them, nor any save.
    """

    def __init__(self, folder: Path, redactor: Redactor) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(folder / EVENTS, flags, 0o600)
        self._redactor = redactor
        self._lines = Lines(sys.stderr)
        self._lock = threading.Lock()
        self._next_s = 0.0
        self._waiting: dict[str, Any] | None = None

    def say(self, text: str) -> None:
        self._lines.say(text)
        self.note("say", text=text[:_LONGEST_TEXT])

    @contextmanager
    def transfer(self, title: str, size_bytes: int) -> Iterator[Passed]:
        direction = "push" if title.startswith("pushing") else "fetch"
        facts = {"title": title, "direction": direction, "total": size_bytes}
        done, next_s = 0, time.monotonic() + _EVERY_S
        lock = threading.Lock()
        self.note("transfer", **facts, done=0)

        def passed(count: int) -> None:
            nonlocal done, next_s
            with lock:
                done += count
                if time.monotonic() < next_s:
                    return
                next_s = time.monotonic() + _EVERY_S
            self.note("transfer", **facts, done=done)

        with self._lines.transfer(title, size_bytes) as shown:

            def both(count: int) -> None:
                passed(count)
                shown(count)

            yield both
        self.note("transfer", **facts, done=max(done, size_bytes))

    def training(self, facts: dict[str, Any]) -> None:
        self._lines.training(facts)
        facts = dict(facts)
        saved, reason = facts.pop("saved", None), facts.pop("reason", "")
        with self._lock:
            if saved is None and time.monotonic() < self._next_s:
                self._waiting = {**facts, "at": time.time()}
                return
            self._next_s = time.monotonic() + _EVERY_S
            self._waiting = None
        if "step" in facts:
            self.note("training", **facts)
        if saved is not None:
            self.note("saved", checkpoint=saved, step=facts.get("step"), reason=reason)

    def note(self, kind: str, **facts: Any) -> None:
        at = facts.pop("at", None) or time.time()
        line = json.dumps({"at": round(at, 3), "kind": kind, **facts}, ensure_ascii=False)
        data = self._redactor.whole(line).encode("utf-8", "backslashreplace") + b"\n"
        try:
            with self._lock:
                os.write(self._fd, data)
        except OSError:
            return  # the disk is full: training goes on

    def abandon(self) -> None:
        return

    def close(self, exit_code: int, message: str) -> None:
        """The last events; none comes after them."""
        with self._lock:
            waiting, self._waiting = self._waiting, None
        if waiting is not None and "step" in waiting:
            self.note("training", **waiting)
        self.note("end", exit_code=exit_code, message=message)
