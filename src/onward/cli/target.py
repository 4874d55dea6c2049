"""The file that an export makes: a path or an object, whole and durable, or not there."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from onward.cli.progress import byte_progress
from onward.errors import Missing, UsageError
from onward.stores import Chunk, Location, Store, open_store, parse
from onward.stores.os_errors import written

_COPY_BYTES = 8 << 20


class Target:
    """Where an export goes. Refuses, before anything is read, a place where no file can be made."""

    def __init__(self, file: str, *, force: bool) -> None:
        location = parse(file)
        folder, _, self._name = location.prefix.rpartition("/")
        if not self._name or file.endswith("/"):
            raise UsageError(f"{file!r} names no file", do="give a file name at the end")
        self._path = Path(location.prefix) if location.is_local else None
        if self._path is not None:
            _check_place(self._path)
        if location.is_local:
            folder = folder or "/"
        place = Location(location.scheme, location.bucket, folder, location.options)
        self._store: Store = open_store(place.url)
        self._file = file
        self._force = force
        self._refuse_existing()

    def write(self, chunks: Iterable[Chunk], size_bytes: int, *, hidden: bool) -> None:
        with byte_progress("writing", lambda: size_bytes, hidden=hidden) as progress:
            self._store.put(self._name, _Watched(chunks, progress), size_bytes)

    @contextmanager
    def scratch(self) -> Iterator[IO[bytes]]:
        """A nameless file, beside the target where that is a file, for what cannot be streamed."""
        folder = self._path.parent if self._path is not None else None
        with (
            written(f"could not write {self._file}"),
            tempfile.TemporaryFile(dir=folder, prefix=".onward-export-") as file,
        ):
            yield file

    @contextmanager
    def scratch_folder(self) -> Iterator[Path]:
        """A folder, beside the target where that is a file, for what must be written by name."""
        folder = self._path.parent if self._path is not None else None
        with (
            written(f"could not write {self._file}"),
            tempfile.TemporaryDirectory(dir=folder, prefix=".onward-export-") as scratch,
        ):
            yield Path(scratch)

    def _refuse_existing(self) -> None:
        if self._force:
            return
        try:
            self._store.size(self._name)
        except Missing:
            return
        raise UsageError(f"{self._file} exists already", do="choose another name, or say --force")


def _check_place(path: Path) -> None:
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}", do="make it first")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no ordinary file", do="give the name of a file")


class FileChunks:
    """An open file from its beginning, piece by piece; may be gone through again."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def __iter__(self) -> Iterator[Chunk]:
        self._file.seek(0, os.SEEK_SET)
        while piece := self._file.read(_COPY_BYTES):
            yield piece


class _Watched:
    """Chunks that report their lengths as they pass; may be gone through again."""

    def __init__(self, chunks: Iterable[Chunk], progress: Callable[[int], None] | None) -> None:
        self._chunks, self._progress = chunks, progress

    def __iter__(self) -> Iterator[Chunk]:
        for chunk in self._chunks:
            yield chunk
            if self._progress is not None:
                self._progress(len(chunk))
