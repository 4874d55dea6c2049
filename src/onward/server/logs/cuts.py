"""What is not in a log any more. Places in a log never change; what was given back reads as zeros.

The agent gives back the middle of a log that grows too long and says so in `log.cut.json`; people
give back its beginning, and the server says so in a file of its own. Each has one writer.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from onward.engines.base import LOG, LOG_CUT
from onward.engines.folder import write_document
from onward.engines.plain_files import open_plain, read_document
from onward.errors import JobError

BY_SERVER = "log.freed.json"

_PUNCH_HOLE_KEEP_SIZE = 3
_BLOCK = 4096

Cut = tuple[int, int]
"""From this byte to before that one."""


def cuts_of(folder: Path) -> list[Cut]:
    """What was given back, in order, without overlaps."""
    found = sorted(cut for name in (LOG_CUT, BY_SERVER) if (cut := _read(folder / name)))
    merged: list[Cut] = []
    for start, end in found:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def give_back(folder: Path, keep_bytes: int) -> int:
    """Frees all of the log but its newest bytes; returns where what is left begins.

    May be called while the agent writes. Raises `JobError` where the system cannot do that.
    """
    fd = open_plain(folder / LOG, os.O_RDWR)
    if fd is None:
        return 0
    try:
        end = max(0, os.fstat(fd).st_size - keep_bytes) // _BLOCK * _BLOCK
        before = _read(folder / BY_SERVER)
        if before is not None and end <= before[1]:
            return before[1]
        if end == 0:
            return 0
        # First said, then done: a reader never takes zeros for what was printed. Who dies between
        # the two leaves bytes that nobody reads, and the next cut frees them.
        _probe(fd)
        write_document(folder / BY_SERVER, {"from": 0, "to": end})
        _punch(fd, 0, end)
        return end
    finally:
        os.close(fd)


def _read(path: Path) -> Cut | None:
    found = read_document(path) or {}
    start, end = found.get("from"), found.get("to")
    # `to` is null where the log ends for good: nothing follows, so nothing is missing in between.
    if type(start) is not int or type(end) is not int or not 0 <= start < end < 2**63:
        return None
    return start, end


def _probe(fd: int) -> None:
    """A hole behind the end changes nothing, and says whether there can be holes."""
    _punch(fd, os.fstat(fd).st_size + _BLOCK, _BLOCK)


def _punch(fd: int, start: int, length: int) -> None:
    number = errno.ENOSYS
    if sys.platform == "linux":
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
        fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
        if fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, start, length) == 0:
            return
        number = ctypes.get_errno()
    raise JobError(
        "the log cannot be cut",
        why=os.strerror(number),
        do="keep the server's folder on a file system that frees parts of files, such as ext4",
    )
