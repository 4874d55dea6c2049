"""Data sources: datasets that know what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from onward.data.content import no_items
from onward.data.files import files_at, split_glob
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
