"""A snapshot of a data location on this machine: what it holds, in one digest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import blake3

from onward.errors import DataChanged, DataError

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class DataSnapshot:
    """What a data location held at one moment.

    `digest` is BLAKE3, in hexadecimal, over the path, size and content digest of every file in
    order of their paths: equal digests mean equal data, wherever it lies.
    """

    items: int
    size_bytes: int
    digest: str


def snapshot_folder(path: str | os.PathLike[str]) -> DataSnapshot:
    """The snapshot of a folder with everything below it, or of a single file.

    Raises `DataError` where something cannot be read or links lead in a circle, and `DataChanged`
    where a file changes while it is read.
    """
    root = Path(path)
    try:
        files = sorted(_files(root), key=lambda file: file[0])
        whole = blake3.blake3()
        size_bytes = 0
        for name, file in files:
            size, digest = _read(file)
            size_bytes += size
            # Lengths first, so that no name can be mistaken for a size or a digest.
            whole.update(b"%d:%s:%d:%s\n" % (len(name), name, size, digest))
    except OSError as error:
        raise DataError(
            f"{error.filename or root} cannot be read",
            why=error.strerror or str(error),
            do="check that the path exists and may be read",
        ) from error
    return DataSnapshot(items=len(files), size_bytes=size_bytes, digest=whole.hexdigest())


def _files(root: Path) -> Iterator[tuple[bytes, Path]]:
    """Every regular file with its path below `root`, the same bytes on every system."""
    if not root.is_dir():
        yield os.fsencode(root.name), root
        return
    yield from _files_below(root, b"", above=())


def _files_below(
    folder: Path, prefix: bytes, *, above: tuple[tuple[int, int], ...]
) -> Iterator[tuple[bytes, Path]]:
    status = folder.stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(
            f"{folder} leads back to a folder that it lies in",
            why="a symbolic link makes a circle",
            do="remove the link",
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + os.fsencode(entry.name)
            if entry.is_dir():
                yield from _files_below(Path(entry.path), name + b"/", above=(*above, here))
            elif entry.is_file():
                yield name, Path(entry.path)
            else:
                raise DataError(
                    f"{entry.path} is neither a file nor a folder",
                    why="it may be a broken link, a socket or a device",
                    do="remove it from the data",
                )


def _read(path: Path) -> tuple[int, bytes]:
    """Size and digest of a file that stays as it is while it is read."""
    with path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        digest = blake3.blake3()
        size = 0
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
        after = os.fstat(file.fileno())
    if size != before.st_size or _stamp(before) != _stamp(after):
        raise DataChanged(
            f"{path} changed while it was read",
            why=f"it had {before.st_size} bytes, then {after.st_size}",
            do="let whatever writes it end first, then run the same command again",
        )
    return size, digest.digest()


def _stamp(status: os.stat_result) -> tuple[int, int, int]:
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
