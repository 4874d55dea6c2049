"""This machine: every agent is a process of its own, which outlives whoever started it."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

from onward.engines.base import AGENT, ATTEMPT_VARIABLE, EVENTS, LOCK, LOG, Launch, Sighting
from onward.engines.control_groups import Groups, make_room
from onward.engines.folder import close_for_all, leave_request, number_in, sight
from onward.engines.plain_files import read_document
from onward.engines.processes import is_of_owner, is_running, processes_of, send
from onward.errors import JobError


class ThisMachine:
    """Starts agents here. See `engines/attempt.py` for what they do."""

    name = "machine"

    def __init__(self) -> None:
        make_room()
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, launch: Launch) -> None:
        try:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "onward.engines.attempt", str(launch.folder)],
                env={**launch.environment, ATTEMPT_VARIABLE: launch.attempt},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                cwd=launch.folder, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise JobError("the agent could not be started", why=str(error)) from error
        self._children[child.pid] = child

    def look(self, folder: Path) -> Sighting:
        self._reap()
        found = sight(folder)
        if found.state == "gone":
            left = bool(_all_of(folder))
            found = dataclasses.replace(found, leftover=left)
        if found.state in ("ended", "gone") and not found.leftover:
            # Its agent may have been no user who could.
            Groups(folder.name).remove()
            return found
        return dataclasses.replace(
            found,
            heard_at=max(_changed_at(folder / LOG), _changed_at(folder / EVENTS)),
            alive_at=_changed_at(folder / LOCK),
        )

    def ask(self, folder: Path, what: str) -> None:
        leave_request(folder, what)

    def destroy(self, folder: Path) -> None:
        if close_for_all(folder):
            return
        agent = read_document(folder / AGENT) or {}
        pid, started = number_in(agent, "pid"), number_in(agent, "started")
        if pid and is_running(pid, started) and is_of_owner(pid, folder):
            # The kernel asks its script to stop (`jobs/process.py`), the log's keeper stays.
            send([pid], signal.SIGKILL)
            send([each for each in _all_of(folder) if each != pid], signal.SIGTERM)
            return
        Groups(folder.name).kill()
        send(_all_of(folder), signal.SIGKILL)

    def _reap(self) -> None:
        """Our children that have ended would otherwise stay in the table of processes."""
        for pid, child in list(self._children.items()):
            if child.poll() is not None:
                del self._children[pid]


def _all_of(folder: Path) -> list[int]:
    """Every process of an attempt that can be found."""
    return sorted({*processes_of(folder.name, folder), *Groups(folder.name).processes()})


def _changed_at(path: Path) -> float:
    with contextlib.suppress(OSError):
        return os.stat(path).st_mtime
    return 0.0
