"""What this process and its children took: memory at its highest, and CPU time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def forget_peak() -> None:
    """`peak_bytes` counts from now on, where Linux permits that."""
    with suppress(OSError):  # then it counts from the start, which can only be more
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The highest resident memory, plus what living children hold that is not shared.

    Memory shared with a child (a staging area) counts once, here, where it was made.
    """
    own = _status("self")["VmHWM"]
    children = (_status(str(pid)) for pid in _children())
    return own + sum(
        c.get("VmHWM", 0) - c.get("RssShmem", 0) - c.get("RssFile", 0) for c in children
    )


def cpu_s() -> float:
    """CPU seconds of this process and its children, living and ended."""
    own = os.times()
    total = own.user + own.system + own.children_user + own.children_system
    for pid in _children():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += (int(fields[11]) + int(fields[12])) / _TICKS
    return total


def _children(pid: str = "self") -> Iterator[int]:
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found = tasks.read_text().split()
        except OSError:
            continue
        for child in found:
            yield int(child)
            yield from _children(child)


def _status(pid: str) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines)
    return {key: int(value.split()[0]) * 1024 for key, value in pairs if value.endswith(" kB")}
