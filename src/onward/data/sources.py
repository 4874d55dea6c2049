"""Data sources: datasets that know what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from onward.data.content import no_items
from onward.data.files import below, files_at, split_glob
from onward.data.folder import Folder
from onward.data.snapshot import DataSnapshot
from onward.data.table import Table, format_of
from onward.stores import parse


@runtime_checkable
class Source(Protocol):
    """A map-style dataset whose items are identified. Its order does not change while it lives."""

    def __len__(self) -> int:
        """How many items there are."""

    def __getitem__(self, index: int) -> Any:
        """An item."""

    def snapshot(self) -> DataSnapshot:
        """What the items are, each at the same index as in the dataset."""


class Readable(Source, Protocol):
    """A source of Onward's own."""

    def unread_bytes(self) -> int:
        """About how much `snapshot` has to read."""


def open_as_read(how: Any, base: str | os.PathLike[str]) -> Readable | None:
    """The source that `how_read` told of, in what is at `base` now; None where that tells nothing.

    Raises `DataError` where it cannot be read.
    """
    match how:
        case {"at": [str(), *_] as at} if all(type(place) is str for place in at):
            places = [os.path.join(base, place) if place else os.fspath(base) for place in at]
        case _:
            return None
    if not all(below(place, base) is not None for place in places):
        return None  # nothing that a checkpoint says leads elsewhere
    match how:
        case {"kind": "folder", "pattern": str() as pattern, "classes": bool() | list() as classes}:
            return Folder(places[0], pattern=pattern, classes=classes)
        case {"kind": "table", "key": key, "format": format, "columns": columns}:
            return Table(places, key=key, format=format, columns=columns)
    return None


def open_source(
    url: str | os.PathLike[str],
    *,
    key: str | Sequence[str] | None = None,
    format: str | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Source:
    """The source that fits what is at `url`: a `Table`, or a `Folder` of files.

    A table it is where `key` or `format` is given, or every file there is a table of one format.
    Raises `DataError` if there is nothing.
    """
    if key is None and format is None:
        files = files_at(url)
        if not files:
            raise no_items(parse(url).display)
        formats = {format_of(file.name) for file in files}
        if len(formats) != 1 or None in formats:
            location = parse(url)
            if location.is_local and not os.path.lexists(location.prefix):
                base, pattern = split_glob(location.prefix)
                return Folder(base, pattern=pattern, cache=cache)
            return Folder(url, cache=cache)
    return Table(url, key=key, format=format, cache=cache)
