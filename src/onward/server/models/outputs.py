"""Outputs as the server reads them: opened once, refreshed after, one reader at a time."""

from __future__ import annotations

import hashlib
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from onward.errors import Missing, Unreachable
from onward.repository import Repository, open_or_create, open_repository, record_key
from onward.repository.documents import MAX_RECORD_BYTES, digest_of
from onward.server.children import ask_child
from onward.server.database import Database
from onward.server.problems import Busy
from onward.server.settings import Settings
from onward.server.storages import Resolved, environment_of, resolve
from onward.stores import open_store

_MOST_OPEN = 64
_PATIENCE_S = 20.0
_DEADLINE_S = 20.0
_SILENCE_S = 10.0
"""A store that did not answer is not asked again for so long: pages do not wait each time."""


@dataclass(slots=True)
class _Shelf:
    lock: threading.Lock = field(default_factory=threading.Lock)
    repository: Repository | None = None
    failed: Unreachable | None = None
    failed_at_s: float = 0.0


_shelves: OrderedDict[str, _Shelf] = OrderedDict()
_shelving = threading.Lock()


@contextmanager
def opened(settings: Settings, database: Database, location: str) -> Iterator[Repository]:
    """The repository at `alias:path`, as it is now. Nobody else reads it meanwhile.

    Raises `NotAnOutput`, `Damaged` or `StoreError`, and `Busy` where others read for too long.
    """
    place, environment = _looked_up(settings, database, location)
    # Another registration, or other keys, are another shelf: nothing is read with old ones.
    secret = repr(
        (str(settings.folder), place.url, place.single_writer, sorted(environment.items()))
    )
    shelf = _shelf(hashlib.sha256(secret.encode()).hexdigest())
    if not shelf.lock.acquire(timeout=_PATIENCE_S):
        raise Busy(
            f"{location} is being read",
            why="its store answers slowly, or very much is asked of it",
            do="try again in a moment",
        )
    try:
        if shelf.failed is not None and time.monotonic() < shelf.failed_at_s + _SILENCE_S:
            raise _again(shelf.failed)
        try:
            shelf.failed = None
            if shelf.repository is None or not _is_same(shelf.repository):
                store = open_store(place.url, deadline_s=_DEADLINE_S, environment=environment)
                shelf.repository = open_repository(store)
            else:
                shelf.repository.refresh()
            found = shelf.repository
        except BaseException as error:
            if isinstance(error, Unreachable):
                shelf.failed, shelf.failed_at_s = error, time.monotonic()
            shelf.repository = None  # whatever was folded so far is not to be built on
            raise
        yield found
    finally:
        shelf.lock.release()


def ask_about(
    settings: Settings, database: Database, location: str, question: str, *, timeout_s: float,
    watch: Callable[[Path], None] | None = None, **facts: Any,
) -> Any:  # fmt: skip
    """The answer of a child process to a question about the output (`facts/child.py`).

    For all that reads tensors, such as ledgers and evidence, or documents that may be very large:
    whoever wrote the output decides how large they are. `watch` is called a few times a second
    with the folder that the child runs in; what it raises ends the child.
    """
    place, environment = _looked_up(settings, database, location)
    with tempfile.TemporaryDirectory(prefix="onward-ask-") as temporary:
        folder = Path(temporary)
        return ask_child(
            question, {**facts, "url": place.url, "single_writer": place.single_writer},
            environment=environment, folder=folder, timeout_s=timeout_s,
            watch=partial(watch, folder) if watch is not None else None,
        )  # fmt: skip


def open_to_change(settings: Settings, database: Database, location: str) -> Repository:
    """A repository of one's own, to move names in. It is never made where there is none."""
    place, environment = _looked_up(settings, database, location)
    store = open_store(place.url, deadline_s=_DEADLINE_S, environment=environment)
    repository = open_repository(store)
    return open_or_create(store, single_writer=True) if place.single_writer else repository


def _again(error: Unreachable) -> Unreachable:
    return Unreachable(error.what, why=error.why, do=error.do)


def _is_same(repository: Repository) -> bool:
    """Whether the log still goes through the record that was last seen of it."""
    history = repository.history
    try:
        data = repository.store.read(record_key(history.seq), 0, MAX_RECORD_BYTES + 1)
    except Missing:
        return False
    return digest_of(data) == history.head_digest


def _looked_up(
    settings: Settings, database: Database, location: str
) -> tuple[Resolved, dict[str, str]]:
    with database.read() as session:
        place = resolve(session, location)
    return place, environment_of(settings, place)


def _shelf(key: str) -> _Shelf:
    with _shelving:
        shelf = _shelves.setdefault(key, _Shelf())
        _shelves.move_to_end(key)
        while len(_shelves) > _MOST_OPEN:
            _shelves.popitem(last=False)
        return shelf
