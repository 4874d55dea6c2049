"""What the kernel's table says of processes: groups, sessions, start times."""

from __future__ import annotations

import os
from pathlib import Path


def others_in_group(leader: int) -> list[int]:
    """Living processes of a group beside its leader. Where there is no /proc: the leader."""
    if not Path("/proc/self/stat").exists():
        return [leader]
    return [
        pid
        for pid in _pids()
        if pid != leader and (facts := stat_facts(pid)) and facts[1] == leader and facts[0] != "Z"
    ]


def session_members(leader: int) -> list[int]:
    """All processes of the session that `leader` began; none where there is no /proc."""
    return [pid for pid in _pids() if (facts := stat_facts(pid)) and facts[2] == leader]


def stat_facts(pid: int) -> tuple[str, int, int, int] | None:
    """State, process group, session and start time of a process, if there is one."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    # The name in parentheses may hold anything, even parentheses.
    words = text.rpartition(")")[2].split()
    return words[0], int(words[2]), int(words[3]), int(words[19])


def _pids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []
