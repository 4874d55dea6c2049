"""The log's keeper: a process between what an attempt prints and its log.

It is not a thread of the agent, because it must outlive it: when an agent is killed, its script is
asked to save, and may print meanwhile. Without anybody at the other end that would fail, and the
save with it. It ends when nobody is left who could print.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

from onward.engines.base import EVENTS
from onward.engines.log_file import LogFile
from onward.engines.redaction import Redactor

_CHUNK_BYTES = 1 << 16
_DRAIN_S = 5.0


class LogKeeper:
    """The keeper as its agent sees it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def finish(self) -> None:
        """All that this process prints from here on goes nowhere; waits until the log is whole.

        Something that left the script's session may hold the other end for ever: it is not waited
        for longer than a moment.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        os.close(nowhere)
        end_s = time.monotonic() + _DRAIN_S
        asked = False
        while not self._ended():
            if time.monotonic() >= end_s:
                number = signal.SIGKILL if asked else signal.SIGTERM
                os.kill(self.pid, number)
                asked, end_s = True, time.monotonic() + _DRAIN_S
            time.sleep(0.005)

    def _ended(self) -> bool:
        try:
            return os.waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:
            return True


def keep_log(folder: Path, redactor: Redactor, *, longest: int, lock: int) -> LogKeeper:
    """From here on this process and its children print into the log. Call it before any thread.

    `lock` is the agent's, which the keeper must not hold.
    """
    log = LogFile(folder, longest=longest)
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(lock)
        os.close(writing)
        _keep(folder, log, redactor, reading)
    log.close()
    os.close(reading)
    os.dup2(writing, 1)
    os.dup2(writing, 2)
    os.close(writing)
    return LogKeeper(pid)


def _keep(folder: Path, log: LogFile, redactor: Redactor, reading: int) -> NoReturn:
    """The keeper's whole life."""
    stopping = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopping
        stopping = True
        os.set_blocking(reading, False)  # what is there already is still written

    status = 0
    try:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(nowhere, fd)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, stop)
        signal.siginterrupt(signal.SIGTERM, False)
        while True:
            try:
                data = os.read(reading, _CHUNK_BYTES)
            except BlockingIOError:
                break
            if not data:
                break
            _write(folder, log, redactor.feed(data))
        _write(folder, log, redactor.finish())
    except BaseException:
        status = 1
    finally:
        os._exit(status)


def _write(folder: Path, log: LogFile, data: bytes) -> None:
    # A disk that is full for a while costs lines of the log, never the script.
    with contextlib.suppress(OSError):
        log.write(data)
    if log.note:
        note, log.note = log.note, ""
        line = json.dumps({"at": round(time.time(), 3), "kind": "say", "text": note}) + "\n"
        with contextlib.suppress(OSError):
            # One write to a file that is only appended to: whole, beside the agent's own.
            # This process keeps the server's rights: the job's user must not choose the file.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
            fd = os.open(folder / EVENTS, flags, 0o600)
            os.write(fd, line.encode())
            os.close(fd)
