"""Which files the processes of a job have open for writing."""

from __future__ import annotations

import os
from pathlib import Path

from onward.jobs.process_table import session_members

FileId = tuple[int, int]
"""Device and inode: a file, whatever its name is by now."""


def open_for_writing(leader: int) -> set[FileId]:
    """Files that some process of the leader's session may write to; none without a /proc."""
    found: set[FileId] = set()
    for pid in session_members(leader):
        try:
            numbers = os.listdir(f"/proc/{pid}/fd")
        except OSError:
            continue  # it has just ended
        for number in numbers:
            try:
                if _writes(pid, number):
                    status = os.stat(f"/proc/{pid}/fd/{number}")
                    found.add((status.st_dev, status.st_ino))
            except OSError:
                continue  # it has just been closed
    return found


def _writes(pid: int, number: str) -> bool:
    for line in Path(f"/proc/{pid}/fdinfo/{number}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "flags":
            return int(value, 8) & os.O_ACCMODE != os.O_RDONLY
    return False
