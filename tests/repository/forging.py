"""Stored documents as an attacker would write them: every digest right, the content wrong."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

from onward.errors import OnwardError
from onward.repository import (
    description,
    manifest_key,
    open_repository,
    read_state,
    record_key,
    verify,
)
from onward.repository.documents import digest_of, sealed
from onward.stores import MemoryStore, Store
from tests.repository.outputs import facts, new_output, plain, state

Change = Callable[[dict[str, Any]], Any]


def one_checkpoint(tree: Any = None) -> MemoryStore:
    """An output whose head is the commit of its only checkpoint."""
    store = MemoryStore("hostile")
    writer = new_output(store).claim("the writer")
    writer.commit(state(1) if tree is None else tree, facts(1, metrics={"loss": 0.5}))
    return store


def document(data: bytes) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(data)
    return parsed


def head_of(store: Store) -> int:
    return open_repository(store).history.seq


def replace_object(store: Store, key: str, data: bytes) -> None:
    store.put(key, [data], len(data))


def forge_record(store: Store, change: Change | bytes, seq: int | None = None) -> None:
    """Replaces a record (the head) by one that was changed and sealed again, or by these bytes."""
    key = record_key(head_of(store) if seq is None else seq)
    if isinstance(change, bytes):
        replace_object(store, key, change)
        return
    parsed = document(store.read(key))
    del parsed["digest"]
    changed = change(parsed)
    replace_object(store, key, sealed(changed if isinstance(changed, dict) else parsed))


def forge_manifest(store: Store, change: Change | bytes) -> None:
    """Replaces the newest manifest; the head record names the forged one's digest."""
    latest = open_repository(store).history.latest()
    assert latest is not None
    key = manifest_key(latest.checkpoint)
    if isinstance(change, bytes):
        data = change
    else:
        parsed = document(store.read(key))
        changed = change(parsed)
        data = json.dumps(changed if isinstance(changed, dict) else parsed).encode()
    replace_object(store, key, data)

    def name_it(record: dict[str, Any]) -> None:
        record["manifest"] = {"digest": digest_of(data), "size": len(data)}

    forge_record(store, name_it)


def errors_of(store: Store) -> list[OnwardError]:
    """Everything that reading everything raises. Any other error than our own comes through."""
    errors: list[OnwardError] = []
    try:
        repository = open_repository(store)
    except OnwardError as error:
        return [error]
    for commit in repository.history.live():
        repository.damage(commit)
        try:
            manifest = repository.manifest(commit)
            description(manifest)
            read_state(store, manifest)
        except OnwardError as error:
            errors.append(error)
    verify(repository)
    verify(repository, every_byte=True)
    for error in errors:
        str(error).encode()  # it can be shown anywhere
        assert len(str(error)) < 10_000
    return errors


def peak_bytes(act: Callable[[], object]) -> int:
    """How much memory Python held at most while it did this."""
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def restored(store: Store) -> list[Any]:
    """What every live checkpoint restores to."""
    repository = open_repository(store)
    return [
        plain(read_state(store, repository.manifest(commit)))
        for commit in repository.history.live()
    ]
