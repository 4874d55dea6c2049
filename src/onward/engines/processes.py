"""Finding and ending the processes of an attempt, also those that left the script's session."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Container
from pathlib import Path

from onward.engines.base import ATTEMPT_VARIABLE, SCRIPT
from onward.engines.folder import read_document
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
    script = read_document(folder / SCRIPT) if folder is not None else None
    if script is not None and is_running(int(script["pid"]), int(script["started"])):
        found |= {int(script["pid"]), *session_members(int(script["pid"]))}
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
