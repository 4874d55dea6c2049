"""A folder's bytes, their way to the disk, and out of the page cache."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def plain_files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def stored_bytes(folder: Path) -> int:
    """What the files take on the disk, as `du` counts: blocks, each file once."""
    facts = {(f.st_dev, f.st_ino): f.st_blocks * 512 for f in map(os.stat, plain_files(folder))}
    return sum(facts.values())


def make_durable(place: Path) -> None:
    """fsync of a file or of every file and folder below, and of the folder that names it."""
    if place.is_dir():
        for path in (*plain_files(place), *(p for p in place.rglob("*") if p.is_dir()), place):
            _fsync(path)
    else:
        _fsync(place)
    _fsync(place.parent)


def drop_from_cache(folder: Path) -> None:
    """The next read of these files is from the disk.

    Only these files, not the whole page cache: else a library that imports a module while it
    restores would be timed reading its own code.
    """
    for path in plain_files(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)  # pages that are not written yet cannot be dropped
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
