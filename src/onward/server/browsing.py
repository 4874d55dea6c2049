"""Looking into storages: folders and files, a page at a time, and which folders are outputs.

A folder is entered name by name, and no link is followed on the way: `resolve_in` did that, and
whoever puts a link there afterwards gets an error instead of another folder.
"""

from __future__ import annotations

import base64
import heapq
import os
import stat
from binascii import Error as NotBase64
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from onward.errors import BadURL, Missing, StoreError, UsageError
from onward.server.database import Database
from onward.server.problems import NotFound
from onward.server.settings import Settings
from onward.server.storages import (
    Resolved,
    find_storage,
    is_plain,
    open_resolved,
    resolve_in,
    shown,
)
from onward.stores.objects import ObjectStore
from onward.stores.os_errors import looked_up

LARGEST_PAGE = 500
_FIRST_RECORD = "onward/log/00000000000000000000.json"
_LOOKS_AT_ONCE = 16
_DEADLINE_S = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """A folder or a file. `location` is None where its name cannot be part of one."""

    name: str
    kind: str
    """folder, file, or other: a link that leaves the storage, a pipe, a device."""
    size_bytes: int | None
    location: str | None
    is_output: bool


@dataclass(frozen=True, slots=True)
class Listing:
    """One page of what a folder holds, by name; `next` is the cursor of the next page."""

    alias: str
    path: str
    above: str | None
    """The path of the folder above, None at the top."""
    is_output: bool
    items: list[Found]
    next: str | None


def browse(
    settings: Settings, database: Database, alias: str, path: str = "", *,
    cursor: str = "", limit: int = 200,
) -> Listing:  # fmt: skip
    """What is at `alias:path`. Raises `NotFound`, `UsageError` or `StoreError`."""
    with database.read() as session:
        place = resolve_in(find_storage(session, alias), path)
    after = _name_of(cursor)
    limit = max(1, min(limit, LARGEST_PAGE))
    if place.root:
        is_output, items, more = _in_folder(place, after, limit)
    else:
        is_output, items, more = _in_bucket(settings, place, after, limit)
    following = _cursor_of(items[-1][0]) if more and items else None
    above = place.path.rpartition("/")[0] if place.path else None
    return Listing(
        place.alias, place.path, above, is_output, [found for _, found in items], following
    )


def _in_folder(
    place: Resolved, after: str, limit: int
) -> tuple[bool, list[tuple[str, Found]], bool]:
    with _entered(place) as folder:
        with looked_up(f"could not list {place.location}"), os.scandir(folder) as entries:
            # Only the page is held, however many there are.
            names = heapq.nsmallest(limit + 1, (e.name for e in entries if e.name > after))
        items = [(name, _look_at(place, folder, name)) for name in names[:limit]]
        return _holds_output(folder, ""), items, len(names) > limit


@contextmanager
def _entered(place: Resolved) -> Iterator[int]:
    """A descriptor of the folder, reached from its storage without following a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with looked_up(f"could not open {place.location}"):
        try:
            folder = os.open(place.root, flags)
            for name in place.path.split("/") if place.path else []:
                above = folder
                try:
                    folder = os.open(name, flags, dir_fd=above)
                finally:
                    os.close(above)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise NotFound(
                f"there is no folder {place.location}", do="browse the folder above it"
            ) from error
    try:
        yield folder
    finally:
        os.close(folder)


def _look_at(place: Resolved, folder: int, name: str) -> Found:
    try:
        facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISLNK(facts.st_mode):
            real = os.path.realpath(os.path.join(place.root, place.path, name))
            if not Path(real).is_relative_to(place.root):
                return Found(_visible(name), "other", None, None, False)
            facts = os.stat(name, dir_fd=folder)
    except OSError:
        return Found(_visible(name), "other", None, None, False)  # gone, or a link to nothing
    if stat.S_ISDIR(facts.st_mode):
        output = _holds_output(folder, name)
        return Found(_visible(name), "folder", None, _location(place, name), output)
    if stat.S_ISREG(facts.st_mode):
        return Found(_visible(name), "file", facts.st_size, _location(place, name), False)
    return Found(_visible(name), "other", None, None, False)


def _holds_output(folder: int, name: str) -> bool:
    try:
        path = f"{name}/{_FIRST_RECORD}" if name else _FIRST_RECORD
        return stat.S_ISREG(os.stat(path, dir_fd=folder, follow_symlinks=False).st_mode)
    except (OSError, ValueError):
        return False


def _in_bucket(
    settings: Settings, place: Resolved, after: str, limit: int
) -> tuple[bool, list[tuple[str, Found]], bool]:
    store = open_resolved(settings, place, deadline_s=_DEADLINE_S)
    assert isinstance(store, ObjectStore)
    folders, objects = store.look_into("")
    sizes = {entry.key: entry.size_bytes for entry in objects}
    # A bucket may hold both an object and a folder of one name: two items with one name.
    names = sorted({(name, "folder") for name in folders} | {(name, "file") for name in sizes})
    left = [(name, kind) for name, kind in names if f"{name}/{kind}" > after]
    page = left[:limit]

    def is_output(name: str) -> bool:
        try:
            store.size(f"{name}/{_FIRST_RECORD}" if name else _FIRST_RECORD)
        except (Missing, StoreError, BadURL):
            return False
        return True

    looked = ["", *(name for name, kind in page if kind == "folder")]
    with ThreadPoolExecutor(_LOOKS_AT_ONCE) as threads:
        outputs = dict(zip(looked, threads.map(is_output, looked), strict=True))
    items = [
        (
            f"{name}/{kind}",
            Found(
                _visible(name), kind, sizes[name] if kind == "file" else None,
                _location(place, name), kind == "folder" and outputs[name],
            ),
        )
        for name, kind in page
    ]  # fmt: skip
    return outputs[""], items, len(left) > limit


def _location(place: Resolved, name: str) -> str | None:
    if name != name.strip() or not is_plain(name):
        return None
    return f"{place.alias}:{place.path}/{name}" if place.path else f"{place.alias}:{name}"


def _visible(name: str) -> str:
    return shown(name)[1:-1]


def _cursor_of(name: str) -> str:
    return base64.urlsafe_b64encode(os.fsencode(name)).decode().rstrip("=")


def _name_of(cursor: str) -> str:
    try:
        return os.fsdecode(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (NotBase64, ValueError) as error:
        raise UsageError("this cursor is of no page", do="begin without one") from error
