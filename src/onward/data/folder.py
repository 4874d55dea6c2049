"""A folder of files as a dataset: every file is an item."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.content import no_items
from onward.data.files import LocalFile, below, local_files, shown
from onward.data.listing import Listing, cache_folder
from onward.data.snapshot import DataSnapshot, snapshot_files
from onward.errors import DataError, UsageError
from onward.stores import parse


class Folder:
    """The files below a folder that `pattern` fits, in the order of their relative paths.

    `folder[i]` is `read(path)`, the file's bytes by default. With `classes`, it is a pair of that
    and the index of its class; classes are the names of the first-level folders, in order. Names
    given as a list come first, so that new classes do not move those that a model knows.

    A file is known by its path, and its content by its bytes, with `classes` together with its
    class: moved to another class, it is another item. Names that begin with a dot are passed over.
    The folder is listed once, when it is made. Raises `DataError` if there is nothing, something
    cannot be read, or a file has no class.

    >>> import tempfile
    >>> home = Path(tempfile.mkdtemp())
    >>> for name in ("cat", "dog"):
    ...     (home / name).mkdir()
    ...     _ = (home / name / "1.txt").write_text(name)
    >>> Folder(home, classes=True)[1]
    (b'dog', 1)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read: Callable[[Path], Any] | None = None,
        classes: bool | Sequence[str] = False,
        pattern: str = "**/*",
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        location = parse(path)
        if not location.is_local:
            raise UsageError(
                f"{location.display} is not a folder on this machine",
                why="single files are read from there too slowly to train on",
                do="run the script by onward run --data, which fetches it, or give a local path",
            )
        self.path = Path(location.prefix)
        self._read = read
        chosen = classes if isinstance(classes, bool) else [*classes]
        self._reading = {"pattern": pattern, "classes": chosen}
        self._files = local_files(self.path, pattern)
        self._cache = cache_folder(cache, "files", os.path.realpath(self.path))
        self.classes: list[str] = []
        """The names of the classes, by index."""
        self.labels: npt.NDArray[np.int64] | None = None
        """The index of every item's class, int64; `None` without classes."""
        if not self._files:
            raise no_items(f"{shown(self.path)} ({pattern})")
        if classes is not False:
            self._sort_into_classes([] if classes is True else [*classes])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, index: int) -> Any:
        file = self._files[operator.index(index)]
        sample = _bytes_of(file) if self._read is None else self._read(Path(file.path))
        return sample if self.labels is None else (sample, int(self.labels[index]))

    def snapshot(self) -> DataSnapshot:
        """The files as they are when this is first asked; later calls return the same.

        Those that have not changed since an earlier snapshot are not read. Raises `DataChanged`
        where a file has gone or changes meanwhile.
        """
        return self._snapshot

    def how_read(self, base: str | os.PathLike[str]) -> dict[str, Any] | None:
        """What `sources.open_as_read` needs to make it again, wherever `base` lies by then, as
        plain JSON values; None if the folder is not at or below it."""
        at = below(self.path, base)
        return None if at is None else {"kind": "folder", "at": [at], **self._reading}

    def unread_bytes(self) -> int:
        """About how much `snapshot` has to read: files that it does not know from before."""
        return Listing(self._cache).unread_bytes(self._files)

    @cached_property
    def _snapshot(self) -> DataSnapshot:
        names = None if self.labels is None else [self.classes[label] for label in self.labels]
        return snapshot_files(self._files, Listing(self._cache), names)

    def _sort_into_classes(self, first: list[str]) -> None:
        names = [file.name.partition("/")[0] for file in self._files]
        outside = [file.where for file in self._files if "/" not in file.name]
        if outside:
            raise DataError(
                f"{len(outside)} files lie in no class: {', '.join(outside[:5])}",
                why="with classes, every file belongs into a folder that bears its class's name",
                do="move them, or leave them out by pattern=",
            )
        if len(set(first)) != len(first):
            raise UsageError("classes= names a class twice", do="name each once")
        found = dict.fromkeys(sorted(set(names)))
        self.classes = [*first, *(name for name in found if name not in first)]
        places = {name: place for place, name in enumerate(self.classes)}
        self.labels = np.array([places[name] for name in names], np.int64)


def _bytes_of(file: LocalFile) -> bytes:
    return b"".join(file.chunks(file.stamp()))
