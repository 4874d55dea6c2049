"""Code that lies in a registered storage: a folder of it, or an archive."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from onward.errors import Missing
from onward.server.code.limits import Limits
from onward.server.code.tree import Tree
from onward.server.problems import BadCode
from onward.stores import Entry, LocalStore, Store

_CHUNK_BYTES = 1 << 20


def gather(store: Store, tree: Tree) -> None:
    """Gives every file of a folder to `tree`. Raises `BadCode`, and the store's errors."""
    entries: list[Entry] = []
    for entry in store.list(""):
        entries.append(entry)
        # Before anything is fetched: somebody may have given the folder of the data.
        if len(entries) > 2 * tree.limits.files:
            raise _no_code(store, f"it holds more than {tree.limits.files:,} files")
    if sum(entry.size_bytes for entry in entries) > 4 * tree.limits.total_bytes:
        raise _no_code(store, f"it holds more than {tree.limits.total_bytes:,} bytes")
    if isinstance(store, LocalStore):
        _refuse_passed_over(store, {entry.key for entry in entries})
    for entry in sorted(entries, key=lambda entry: entry.key):
        tree.add_file(entry.key, _read(store, entry), executable=_is_executable(store, entry.key))


@contextmanager
def fetched(store: Store, key: str, limits: Limits) -> Iterator[IO[bytes]]:
    """One object as a file without a name. Raises `BadCode` if it is too large, or `Missing`."""
    size = store.size(key)
    if size > limits.archive_bytes:
        raise BadCode(
            f"the archive {key!r} has more than {limits.archive_bytes:,} bytes",
            why="code is scripts; data is an input of the job",
            do="leave out what is no code",
        )
    with TemporaryFile() as file:
        for start in range(0, size, _CHUNK_BYTES):
            file.write(store.read(key, start, min(_CHUNK_BYTES, size - start)))
        yield file


def _read(store: Store, entry: Entry) -> Iterator[bytes]:
    start = 0
    while start < entry.size_bytes:
        chunk = store.read(entry.key, start, min(_CHUNK_BYTES, entry.size_bytes - start))
        if not chunk:
            raise Missing(f"{entry.key} became shorter while it was read from {store.url}")
        start += len(chunk)
        yield chunk


def _is_executable(store: Store, key: str) -> bool:
    return isinstance(store, LocalStore) and os.access(store.path(key), os.X_OK)


def _refuse_passed_over(store: LocalStore, listed: set[str]) -> None:
    """A store passes over links that lead out of it, or to folders; code without them would run
    differently, or not at all."""
    for above, folders, files in os.walk(store.folder):
        folders[:] = [name for name in folders if name not in (".git", "__pycache__")]
        for name in [*folders, *files]:
            place = Path(above, name)
            key = str(place.relative_to(store.folder))
            if place.is_symlink() and key not in listed:
                raise BadCode(
                    f"the link {key!r} leads out of {store.url}, or to a folder",
                    why="code of a folder is files, and links to files of the same folder",
                    do="replace it by what it leads to",
                )


def _no_code(store: Store, why: str) -> BadCode:
    return BadCode(f"{store.url} is no code", why=why, do="give a folder that holds only the code")
