"""Opening what attempts write. A script can reach its attempt's folder, and where jobs have a user
of their own the server has more rights than it: nothing there is trusted to be a plain file, not to
be a link, or to be small."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

from onward.errors import Damaged

_LARGEST_DOCUMENT = 4 << 20


def open_plain(path: Path, flags: int = os.O_RDONLY) -> int | None:
    """A file descriptor; None if there is none. Raises `Damaged` for what is no plain file."""
    try:
        # A pipe would wait for somebody to write.
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR, errno.ENOTDIR):
            raise _no_file(path) from error
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise _no_file(path)
    return fd


def read_document(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is none, or nothing that can be read as one."""
    try:
        found = json.loads(read_small(path, _LARGEST_DOCUMENT) or b"")
    except (OSError, ValueError, RecursionError, Damaged):
        return None
    return found if isinstance(found, dict) else None


def read_small(path: Path, most_bytes: int) -> bytes | None:
    """The beginning of a file; None if there is none. Raises `Damaged` for what is no file."""
    fd = open_plain(path)
    if fd is None:
        return None
    with open(fd, "rb") as file:
        return file.read(most_bytes)


def _no_file(path: Path) -> Damaged:
    return Damaged(
        f"{path.name} of this attempt is no plain file",
        why="something put a link, a folder or a pipe in its place",
        do="look what the script does in its folder",
    )
