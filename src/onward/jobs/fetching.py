"""Fetching objects into files: space first, a few at once, each whole before it has its name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blake3 import blake3

from onward.errors import Missing, TransferFailed
from onward.jobs.display import Display, Passed, counted
from onward.repository.fetching import check_space, transfer_all
from onward.repository.ranges import fetch_object, read_patiently
from onward.stores import Entry, Store
from onward.stores.os_errors import written

_TRIES = 3
_ONE_READ_BYTES = 8 << 20  # what one request gets whole, and therefore of one version

Arrived = Callable[[Entry, Path], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An object and the file that it shall become."""

    entry: Entry
    path: Path


def fetch(
    store: Store,
    wanted: Sequence[Wanted],
    *,
    incoming: Path,
    title: str,
    display: Display,
    arrived: Arrived,
) -> None:
    """Fetches objects as they were listed, and calls `arrived` for each once its file is whole.

    A transfer that was cut off goes on where it stopped, as long as the object is the same
    version. Raises `NoSpace` before anything is fetched if not all of it would fit.
    """
    with written(f"could not make {incoming}"):
        incoming.mkdir(parents=True, exist_ok=True)
        partials = {_partial(incoming, store, each.entry) for each in wanted}
        for left in incoming.iterdir():
            if left not in partials:
                left.unlink()  # of a version that is not wanted any more
        fetched = sum(path.stat().st_size for path in partials if path.is_file())
    total = sum(each.entry.size_bytes for each in wanted)
    check_space(incoming, max(0, total - fetched))
    with display.transfer(f"{title} ({counted(len(wanted), 'object')})", total) as passed:
        passed(fetched)
        transfer_all(
            [partial(_fetch_one, store, each, incoming, arrived) for each in wanted], passed
        )


def _fetch_one(
    store: Store, wanted: Wanted, incoming: Path, arrived: Arrived, passed: Passed
) -> None:
    entry = wanted.entry
    path = _partial(incoming, store, entry)
    for _ in range(_TRIES):
        if _fetch_version(store, entry, path, passed):
            with written(f"could not store {wanted.path}"):
                wanted.path.parent.mkdir(parents=True, exist_ok=True)
                path.replace(wanted.path)
            arrived(entry, wanted.path)
            return
    raise TransferFailed(
        f"{entry.key} changes at {store.url} while it is fetched",
        do="let whatever writes it end first, then run the same command again",
    )


def _fetch_version(store: Store, entry: Entry, path: Path, passed: Passed) -> bool:
    """Whether the object is at `path` now as it was listed; false if it changed meanwhile."""
    if entry.size_bytes <= _ONE_READ_BYTES:
        data = read_patiently(store, entry.key, 0, None, progress=passed)
        if len(data) != entry.size_bytes:
            return False
        with written(f"could not write {path}"):
            path.write_bytes(data)
        passed(len(data))
        return True
    fetch_object(store, entry.key, path, size_bytes=entry.size_bytes, progress=passed)
    if _version(store, entry.key) == entry.version:
        return True
    passed(-entry.size_bytes)
    path.unlink()
    return False


def _version(store: Store, key: str) -> str:
    for entry in store.list(key):
        if entry.key == key:
            return entry.version
    raise Missing(f"{key} is gone from {store.url}")


def _partial(incoming: Path, store: Store, entry: Entry) -> Path:
    name = f"{store.url}\0{entry.key}\0{entry.version}\0{entry.size_bytes}"
    return incoming / blake3(name.encode()).hexdigest(length=16)
