"""Reading while others drop and repack: the newer one, the same one elsewhere, or a typed error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, Dropped
from onward.repository import Commit, Manifest, open_repository, pack_key, read_state, verify
from onward.repository.asking import with_checkpoint
from onward.repository.collecting import Collector
from onward.repository.repacking import Repacker
from onward.stores import MemoryStore
from tests.repository.outputs import at_step, facts, going_on, leaf, new_output, opened, plain


def _tree(step: int) -> dict[str, Any]:
    return {"kept": leaf(np.arange(9)), "own": leaf(np.full(90, step))}


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    writer = new_output(store).claim("writer")
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    return store


def _save_and_drop_the_others(store: MemoryStore) -> None:
    going_on(opened(store)).commit(_tree(4), facts(4))
    repository = opened(store)
    repository.drop([c.checkpoint for c in repository.history.live()[:-1]])


def _repack(store: MemoryStore) -> None:
    repository = opened(store)
    repository.drop([repository.history.live()[0].checkpoint])
    assert Repacker(Collector(repository)).repack().packs
    Collector(repository).sweep(grace_s=0, now_s=0)


def _reader(
    store: MemoryStore, meanwhile: list[Callable[[MemoryStore], None]]
) -> Callable[[Commit, Manifest], Any]:
    def read(commit: Commit, manifest: Manifest) -> Any:
        while meanwhile:
            meanwhile.pop(0)(store)
        return commit.step, plain(read_state(store, manifest))

    return read


def test_latest_is_retried_with_the_newer_one(store: MemoryStore) -> None:
    """Its bytes are deleted before they are read."""
    read = _reader(store, [_save_and_drop_the_others])
    found = with_checkpoint(opened(store), lambda history: history.resolve("latest"), read)
    assert found == (4, plain(_tree(4)))


def test_a_name_that_is_gone_is_a_typed_error(store: MemoryStore) -> None:
    """It says that the checkpoint was dropped, not that the output is damaged."""
    repository = opened(store)
    second = at_step(repository, 2).checkpoint
    read = _reader(store, [_save_and_drop_the_others])
    with pytest.raises(Dropped, match=second):
        with_checkpoint(repository, lambda history: history.resolve(second), read)


def test_a_repacked_checkpoint_is_read_where_it_is_now(store: MemoryStore) -> None:
    """Before its manifest is read, and between that and its bytes."""
    repository = opened(store)
    _repack(store)
    assert with_checkpoint(repository, lambda h: h.resolve("v3"), _reader(store, [])) == (
        3, plain(_tree(3)),
    )  # fmt: skip
    other = MemoryStore()
    writer = new_output(other).claim("writer")
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    read = _reader(other, [_repack])
    assert with_checkpoint(opened(other), lambda h: h.resolve("v3"), read)[0] == 3


def test_damage_is_damage(store: MemoryStore) -> None:
    """A pack that is gone of a checkpoint that is not dropped is no drop."""
    repository = opened(store)
    for pack in repository.manifest(at_step(repository, 3)).packs:
        store.delete(pack_key(pack))
    with pytest.raises(Damaged, match="missing"):
        with_checkpoint(repository, lambda h: h.resolve("v3"), _reader(store, []))


def test_verify_beside_a_prune(store: MemoryStore) -> None:
    """What is dropped or moved while it looks is not damaged."""
    looking = open_repository(store)
    _repack(store)
    assert verify(looking).damaged == {}
    looking = open_repository(store)
    _save_and_drop_the_others(store)
    findings = verify(looking, commits=looking.history.live())
    assert (findings.damaged, findings.checkpoints) == ({}, 0)
