"""The log of an attempt: grows only, and gives back its middle where it is longer than allowed.

Places in it never change: what is given back reads as zeros, and `log.cut.json` says where. A
script that prints for weeks therefore neither fills the disk nor loses its first lines or its last.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from onward.engines.base import LOG, LOG_CUT
from onward.engines.folder import write_document

_PUNCH_HOLE_KEEP_SIZE = 3
_BLOCK = 4096


class LogFile:
    """Writes the log. `longest` is how many of its bytes may stay; 0 is no limit."""

    def __init__(self, folder: Path, *, longest: int = 0) -> None:
        self._folder = folder
        self._longest = longest
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._fd = os.open(folder / LOG, flags, 0o600)
        self._size = os.fstat(self._fd).st_size
        # A quarter of the beginning stays; of the rest, what is newest.
        self._head = longest // 4 // _BLOCK * _BLOCK
        self._cut = self._head
        self._full = False
        self.note = ""
        """What should be said about a cut; read and emptied by whoever says it."""

    def write(self, data: bytes) -> None:
        """Appends. Raises `OSError` where the disk does not take it."""
        if self._full:
            return
        while data:
            count = os.write(self._fd, data)
            self._size += count
            data = data[count:]
        step = max(_BLOCK, self._longest // 16)
        if self._longest and self._size - (self._cut - self._head) > self._longest + step:
            self._give_back()

    def close(self) -> None:
        os.close(self._fd)

    def _give_back(self) -> None:
        until = (self._size - (self._longest - self._head)) // _BLOCK * _BLOCK
        first = self._cut == self._head
        # First said, then done: a reader never takes zeros for what was printed.
        self._tell({"from": self._head, "to": until})
        if not _punch(self._fd, self._cut, until - self._cut):
            # Not every file system gives back the middle: then the log ends here.
            self._full = True
            self._tell({"from": self._size, "to": None})
        self._cut = until
        if first:
            self.note = f"the log is longer than {self._longest:,} bytes: " + (
                "it ends here" if self._full else "its middle is given back as it grows"
            )

    def _tell(self, cut: dict[str, int | None]) -> None:
        # Under a name that nobody can know: whoever writes the log may have more rights than the
        # job's user, who could have put a link there.
        write_document(self._folder / LOG_CUT, cut)


def _punch(fd: int, start: int, length: int) -> bool:
    if sys.platform != "linux":
        return False
    fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    return bool(fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, start, length) == 0)
