"""Whether a store really creates only what is absent, found out by trying."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from onward.errors import AlreadyExists, StoreError, UnsafeStore
from onward.stores.base import Store

_WRITERS = 4
_ROUNDS = 2


def _new_token() -> str:
    return secrets.token_hex(16)


def honours_create(
    store: Store,
    *,
    prefix: str = "onward/probe/",
    new_token: Callable[[], str] = _new_token,
) -> bool:
    """Whether of several writers of one key exactly one succeeds, in turn and at once.

    Stores honour the condition, race on it, answer that they do not know it, or ignore it without
    a word. A true answer is evidence, not proof. Leaves nothing below `prefix`; raises where the
    store is unreachable or refuses writes.
    """
    try:
        if not _keeps_the_first(store, prefix + new_token()):
            return False
        return all(_has_one_winner(store, prefix + new_token()) for _ in range(_ROUNDS))
    except UnsafeStore:
        return False


def _keeps_the_first(store: Store, key: str) -> bool:
    try:
        store.create(key, b"first")
        return not _created(store, key, b"second") and store.read(key) == b"first"
    finally:
        _discard(store, key)


def _has_one_winner(store: Store, key: str) -> bool:
    start = threading.Barrier(_WRITERS)

    def write(writer: int) -> bool:
        start.wait()
        return _created(store, key, b"%d" % writer)

    try:
        with ThreadPoolExecutor(_WRITERS) as threads:
            won = [*threads.map(write, range(_WRITERS))]
        return won.count(True) == 1 and store.read(key) == b"%d" % won.index(True)
    finally:
        _discard(store, key)


def _created(store: Store, key: str, data: bytes) -> bool:
    try:
        store.create(key, data)
    except AlreadyExists:
        return False
    return True


def _discard(store: Store, key: str) -> None:
    # Some credentials may write but not delete: then the few bytes stay.
    with suppress(StoreError):
        store.delete(key)
