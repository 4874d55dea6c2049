"""The plain files in an output's folder: everything that is not Onward's own."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from onward.errors import StoreError
from onward.stores import LocalStore
from onward.stores.base import Chunk
from onward.stores.keys import is_key
from onward.stores.os_errors import looked_up, written

OWN = ("onward", "onward-torn")
"""What lies in an output beside the user's files."""

_CHUNK_BYTES = 8 << 20
_GROWING = (".log", ".txt", ".csv", ".tsv", ".jsonl", ".ndjson", ".out", ".err")


class Token(NamedTuple):
    """Changes whenever a file does, unless somebody sets its times back."""

    size_bytes: int
    modified_ns: int
    inode: int
    device: int


def is_plain(key: str) -> bool:
    """Whether a key of an output is a user's file."""
    return key.partition("/")[0] not in OWN


def scan(store: LocalStore) -> tuple[dict[str, Token], list[str]]:
    """The plain files below a folder, and the names of those that cannot be keys of a store.

    Symbolic links count as the file that they lead to; links to folders, or out of the folder, are
    passed over.
    """
    found: dict[str, Token] = {}
    unfit: list[str] = []
    home = store.folder.resolve()
    waiting = [("", store.folder)]
    while waiting:
        above, folder = waiting.pop()
        for entry in _entries(folder):
            key = above + entry.name
            if not is_plain(key):
                continue
            try:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append((key + "/", Path(entry.path)))
                elif entry.is_file() and _inside(entry, home):
                    if is_key(key):
                        found[key] = token_of(Path(entry.path))
                    else:
                        unfit.append(key)
            except OSError:
                continue  # gone meanwhile
    return found, unfit


def token_of(path: Path) -> Token:
    """Raises `OSError` if there is no file."""
    status = path.stat()
    return Token(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


def move_aside(store: LocalStore, key: str, folder: Path) -> Path:
    """Moves a file, or a folder, out of the output into `folder`, over nothing that is there."""
    key = key.rstrip("/")
    target = folder / key
    number = 1
    with written(f"could not move {key} to {folder}"):
        while target.exists():
            number += 1
            target = folder / f"{key}.{number}"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(store.path(key), target)
    return target


class FileChunks:
    """A file as chunks that may be read again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __iter__(self) -> Iterator[Chunk]:
        try:
            with self._path.open("rb") as file:
                while chunk := file.read(_CHUNK_BYTES):
                    yield chunk
        except OSError as error:
            raise StoreError(f"could not read {self._path}", why=str(error)) from error


def grows(key: str) -> bool:
    """Whether a file of this name is a log or a table that grows line by line."""
    return key.endswith(_GROWING) or "tfevents" in key.rpartition("/")[2]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with looked_up(f"could not list {folder}"):
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _inside(entry: os.DirEntry[str], home: Path) -> bool:
    return not entry.is_symlink() or Path(entry.path).resolve().is_relative_to(home)
