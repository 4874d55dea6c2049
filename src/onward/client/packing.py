"""Packing a folder of code for a server: what git knows, or all that is not hidden.

The same files give the same archive, bit for bit.
"""

from __future__ import annotations

import gzip
import os
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from onward.errors import UsageError

MOST_FILES = 10_000
MOST_BYTES = 256 << 20
_LEFT_OUT = frozenset({"__pycache__", "node_modules"})


@dataclass(frozen=True, slots=True)
class Packed:
    """What is in the archive."""

    files: int
    size_bytes: int


def pack_code(folder: Path, archive: IO[bytes]) -> Packed:
    """Writes a tar.gz of the folder. Raises `UsageError` where it is none, or holds too much."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder", do="give the folder of the code: --code FOLDER")
    files = size = 0
    with (
        gzip.GzipFile(fileobj=archive, mode="wb", mtime=0, filename="") as packed,
        tarfile.open(fileobj=cast("IO[bytes]", packed), mode="w", format=tarfile.PAX_FORMAT) as tar,
    ):
        for name in sorted(_names(folder)):
            path = folder / name
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue  # deleted, and git was not told yet
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
                continue
            files += 1
            size += found.st_size
            if files > MOST_FILES or size > MOST_BYTES:
                raise UsageError(
                    f"{folder} has more than {MOST_FILES:,} files or {MOST_BYTES >> 20} MiB",
                    why="code is scripts; data is an input of the job, in a storage",
                    do="give a folder with the code alone, or tell git to ignore what is none",
                )
            member = tarfile.TarInfo(name)
            member.mode = 0o755 if found.st_mode & 0o100 else 0o644
            if stat.S_ISLNK(found.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
                tar.addfile(member)
                continue
            with path.open("rb") as file:
                member.size = os.fstat(file.fileno()).st_size
                tar.addfile(member, file)
    if not files:
        raise UsageError(f"{folder} holds no code", do="give the folder of the code: --code FOLDER")
    return Packed(files, size)


def _names(folder: Path) -> Iterator[str]:
    """Paths within the folder: what git tracks and what it would, else what is not hidden."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=folder, capture_output=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        yield from _walked(folder)
        return
    yield from {os.fsdecode(name) for name in listed.stdout.split(b"\0") if name}


def _walked(folder: Path) -> Iterator[str]:
    for above, folders, names in os.walk(folder):
        folders[:] = [n for n in folders if not n.startswith(".") and n not in _LEFT_OUT]
        for name in names:
            if not name.startswith("."):
                yield str((Path(above) / name).relative_to(folder))
