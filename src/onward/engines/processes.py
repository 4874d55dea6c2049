"""Finding and ending the processes of an attempt, also those that left the script's session."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

from onward.engines.base import ATTEMPT_VARIABLE, SCRIPT
from onward.engines.folder import number_in
from onward.engines.plain_files import read_document
from onward.jobs.process_table import session_members, stat_facts

_END_S = 2.0


def start_time(pid: int) -> int:
    """When a process started, in the kernel's ticks since boot; 0 where that is unknown."""
    facts = stat_facts(pid)
    return facts[3] if facts else 0


def is_running(pid: int, started: int) -> bool:
    """Whether it is the process that had this number at that time, and not a dead one."""
    facts = stat_facts(pid)
    return facts is not None and facts[3] == started and facts[0] != "Z"


def is_of_owner(pid: int, folder: Path) -> bool:
    """Whether a process is of the user to whom an attempt's folder belongs.

    That user can write into the folder that any process is its own; a server with more rights would
    end it.
    """
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        real = next(line for line in lines if line.startswith("Uid:")).split()[1]
        return int(real) == folder.stat().st_uid
    return not Path("/proc/self").exists()


def processes_of(attempt: str, folder: Path | None = None) -> list[int]:
    """Living processes that an attempt's agent started, itself too, told by their environment.

    One that empties its environment and leaves the session of the script is not found; where the
    machine gives each attempt a control group, the group is.
    """
    found = set()
    mark = f"{ATTEMPT_VARIABLE}={attempt}".encode()
    for name in os.listdir("/proc") if attempt and Path("/proc/self").exists() else ():
        if not name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{name}/environ").read_bytes().split(b"\0"):
                found.add(int(name))
    if folder is not None:
        script = read_document(folder / SCRIPT) or {}
        pid, started = number_in(script, "pid"), number_in(script, "started")
        if pid and is_running(pid, started):
            named = {pid, *session_members(pid)}
            found |= {each for each in named if is_of_owner(each, folder)}
    return sorted(pid for pid in found if (facts := stat_facts(pid)) and facts[0] != "Z")


def end_processes(attempt: str, *, besides: Container[int]) -> None:
    """Ends what is left of an attempt: asks, waits a moment, kills."""
    end_s = time.monotonic() + _END_S
    for number in (signal.SIGTERM, signal.SIGKILL):
        left = [pid for pid in processes_of(attempt) if pid not in besides]
        send(left, number)
        while left and time.monotonic() < end_s:
            time.sleep(0.02)
            left = [pid for pid in processes_of(attempt) if pid not in besides]
        if not left:
            return


def send(pids: list[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
