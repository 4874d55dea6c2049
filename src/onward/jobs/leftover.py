"""The script of an agent that was killed: found by the next agent in the same working folder."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from onward.jobs.process_table import others_in_group, stat_facts
from onward.stores.os_errors import written

_NAME = "script.json"
_LOOK_EVERY_S = 0.05


def note_script(folder: Path, pid: int) -> None:
    """Remembers the running script, for whoever comes when this agent is gone."""
    facts = stat_facts(pid)
    if facts is not None:
        with written(f"could not write into {folder}"):
            (folder / _NAME).write_text(json.dumps({"pid": pid, "started": facts[3]}))


def forget_script(folder: Path) -> None:
    """The script has ended, with all of its group."""
    with contextlib.suppress(OSError):
        (folder / _NAME).unlink()


def end_leftover_script(folder: Path, *, grace_s: float, say: Callable[[str], None]) -> None:
    """Ends the script of an earlier agent that still writes into `folder`, asking it first.

    Otherwise its commits would go into the log that the new attempt is about to continue.
    """
    try:
        noted = json.loads((folder / _NAME).read_text())
        pid, started = int(noted["pid"]), int(noted["started"])
    except (OSError, ValueError, KeyError, TypeError):
        return
    if _runs(pid, started):
        say(f"the script of an earlier agent still runs (pid {pid}): stopping it")
        _signal(pid, signal.SIGTERM)
        end_s = time.monotonic() + grace_s
        while _runs(pid, started) and time.monotonic() < end_s:
            time.sleep(_LOOK_EVERY_S)
        if _runs(pid, started):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
    for other in others_in_group(pid) if Path("/proc/self/stat").exists() else []:
        if (facts := stat_facts(other)) and facts[2] == pid and facts[3] >= started:
            _signal(other, signal.SIGKILL)
    forget_script(folder)


def _runs(pid: int, started: int) -> bool:
    facts = stat_facts(pid)
    return facts is not None and facts[3] == started and facts[0] != "Z"


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
