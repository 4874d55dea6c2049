"""Dropping checkpoints: what goes, what stays, and what is left when it is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, NewerFormat, Unreachable
from onward.repository import (
    Commit,
    Repository,
    collecting,
    manifest_key,
    open_repository,
    pack_key,
    verify,
)
from onward.repository.leftovers import Leftovers
from onward.repository.retention import Retention
from onward.stores import Died, Fault, FaultPlan, Faulty, LocalStore, MemoryStore, dies
from tests.repository.forging import forge_manifest, replace_object
from tests.repository.outputs import (
    Meanwhile,
    Wrapped,
    at_step,
    facts,
    leaf,
    look,
    new_output,
    objects,
    opened,
    records_of,
)


def _chain(store: Any, steps: int) -> list[Commit]:
    """Checkpoints that share one tensor, and each have one of their own."""
    writer = new_output(store).claim("writer")
    shared = leaf(np.arange(50))
    return [
        writer.commit({"shared": shared, "own": leaf(np.full(9, step))}, facts(step))
        for step in range(1, steps + 1)
    ]


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    _chain(store, 6)
    return store


@pytest.fixture
def repository(store: MemoryStore) -> Repository:
    return opened(store)


def _keys(store: MemoryStore, folder: str) -> set[str]:
    return {key for key in objects(store) if key.startswith(f"onward/{folder}/")}


def _ids(repository: Repository, *steps: int) -> list[str]:
    return [at_step(repository, step).checkpoint for step in steps]


def test_what_only_they_needed_goes(store: MemoryStore, repository: Repository) -> None:
    """Their manifests and own packs are deleted, shared packs stay; the bytes freed are told."""
    before = sum(len(store.read(key)) for key in _keys(store, "packs"))
    freed = repository.drop(_ids(repository, 1, 2, 4))
    after = sum(len(store.read(key)) for key in _keys(store, "packs"))
    assert freed == before - after > 0
    assert len(_keys(store, "packs")) == 4  # the first holds what all share
    assert len(_keys(store, "manifests")) == 3
    assert list(look(store).checkpoints) == [3, 5, 6]
    assert verify(open_repository(store)).leftovers == []


def test_shared_pack_goes_with_the_last_that_needs_it(store: MemoryStore) -> None:
    """A pack is condemned by the drop that leaves nobody who needs it."""
    writer = opened(store).claim("writer")
    writer.commit({"own": leaf(np.zeros(1))}, facts(7))
    repository = opened(store)
    (first,) = repository.manifest(at_step(repository, 1)).packs
    repository.drop(_ids(repository, 1, 2, 3, 4, 5))
    assert first not in repository.history.condemned
    repository.drop(_ids(repository, 6))
    assert first in repository.history.condemned
    assert list(look(store).checkpoints) == [7]


def test_same_checkpoint_named_twice(store: MemoryStore, repository: Repository) -> None:
    """It is dropped once."""
    repository.drop(_ids(repository, 1, 1))
    assert records_of(store).count("drop") == 1
    assert 1 not in look(store).checkpoints


def test_very_many(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """They go by several records, each of a length that readers accept."""
    monkeypatch.setattr(collecting, "_DROPPED_AT_ONCE", 2)
    repository = opened(store)
    repository.drop(_ids(repository, 1, 2, 3, 4, 5))
    assert records_of(store).count("drop") == 3
    assert list(look(store).checkpoints) == [6]
    assert verify(open_repository(store)).leftovers == []


# --- cut off


def test_cut_off_before_anything_is_deleted(store: MemoryStore) -> None:
    """The checkpoints are gone, their bytes are leftovers, and deleting may be repeated."""
    repository = opened(Faulty(store, FaultPlan(dies(1, verb="delete"))))
    with pytest.raises(Died):
        repository.drop(_ids(repository, 2, 3))
    found = open_repository(store)
    assert list(look(store).checkpoints) == [1, 4, 5, 6]
    leftovers = verify(found).leftovers
    assert len(leftovers) == 4

    collector = collecting.Collector(found)
    assert collector.sweep(grace_s=0, now_s=0).freed_bytes > 0
    assert collector.sweep(grace_s=0, now_s=0) == collecting.Swept()
    assert verify(found).leftovers == []
    assert list(look(store).checkpoints) == [1, 4, 5, 6]


def test_delete_that_fails(store: MemoryStore) -> None:
    """The error is told, and the drop stands."""
    repository = opened(Faulty(store, FaultPlan(Fault(2, verb="delete"))))
    with pytest.raises(Unreachable):
        repository.drop(_ids(repository, 2, 3))
    assert list(look(store).checkpoints) == [1, 4, 5, 6]
    assert len(verify(open_repository(store)).leftovers) == 3


# --- damage


def test_damaged_checkpoint_that_stays(store: MemoryStore, repository: Repository) -> None:
    """It is not known what it needs: nothing is dropped until it is dropped or mended itself."""
    replace_object(store, manifest_key(_ids(repository, 3)[0]), b"{}")
    before = objects(store)
    with pytest.raises(Damaged, match="manifest"):
        repository.drop(_ids(repository, 1, 2))
    assert objects(store) == before


def test_damaged_checkpoint_that_goes(store: MemoryStore, repository: Repository) -> None:
    """It is forgotten; packs that only it named are leftovers, which `verify` lists."""
    (own,) = (
        repository.manifest(at_step(repository, 3)).packs.keys()
        - repository.manifest(at_step(repository, 1)).packs.keys()
    )
    replace_object(store, manifest_key(_ids(repository, 3)[0]), b"{}")
    repository.drop(_ids(repository, 2, 3))
    assert list(look(store).checkpoints) == [1, 4, 5, 6]
    assert verify(open_repository(store)).leftovers == [pack_key(own)]


def test_checkpoint_of_a_newer_onward(store: MemoryStore) -> None:
    """An older version drops nothing beside it: it cannot know what the newer one needs."""
    forge_manifest(store, lambda manifest: manifest.update(format=2))
    repository = opened(store)
    assert "format 2" in repository.damage(at_step(repository, 6))
    with pytest.raises(NewerFormat):
        repository.drop(_ids(repository, 1))


# --- two at once


def test_somebody_else_drops_the_same(store: MemoryStore) -> None:
    """The second finds out, whichever of its steps the first came before."""
    meanwhile = Meanwhile(store)
    repository = opened(meanwhile)
    ids = _ids(repository, 1, 2)
    meanwhile.acts.append(lambda: opened(store).drop(ids[:1]))
    with pytest.raises(Exception, match=f"no checkpoint '{ids[0]}'"):
        repository.drop(ids)
    assert list(look(store).checkpoints) == [2, 3, 4, 5, 6]


def test_somebody_else_drops_while_manifests_are_read(store: MemoryStore) -> None:
    """A manifest that is gone because its checkpoint is gone is not damage."""

    class Slow(Wrapped):
        dropped = False

        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            if key == manifest_key(third) and not self.dropped:
                self.dropped = True
                opened(store).drop([third])
            return super().read(key, start, size_bytes)

    (third,) = _ids(opened(store), 3)
    slow = Slow(store)
    repository = opened(slow)
    repository.drop(_ids(repository, 2))
    assert slow.dropped
    assert list(look(store).checkpoints) == [1, 4, 5, 6]


def test_somebody_names_it_meanwhile(store: MemoryStore) -> None:
    """An alias that wins the slot keeps its checkpoint."""
    meanwhile = Meanwhile(store)
    repository = opened(meanwhile)
    (second,) = _ids(repository, 2)
    meanwhile.acts.append(lambda: opened(store).set_alias("champion", second))
    with pytest.raises(Exception, match="is called champion"):
        repository.drop([second])
    assert 2 in look(store).checkpoints


def test_training_goes_on_meanwhile(store: MemoryStore) -> None:
    """A commit that wins the slot is counted among those that stay."""
    meanwhile = Meanwhile(store)
    repository = opened(meanwhile)
    writer = opened(store).claim("writer")
    writer.base_on(repository.manifest(at_step(repository, 2)))
    tree = {"own": leaf(np.full(9, 2))}  # what only the second checkpoint has
    meanwhile.acts.append(lambda: writer.commit(tree, facts(7)))
    repository.drop(_ids(repository, 2))
    assert list(look(store).checkpoints) == [1, 3, 4, 5, 6, 7]


# --- what verify makes of it


def test_condemned_pack_that_is_still_named(store: MemoryStore) -> None:
    """A checkpoint that names a condemned pack lives on borrowed time, and `verify` says so."""
    repository = opened(store)
    (own,) = (
        repository.manifest(at_step(repository, 2)).packs.keys()
        - repository.manifest(at_step(repository, 1)).packs.keys()
    )
    content = store.read(pack_key(own))
    repository.drop(_ids(repository, 2))
    replace_object(store, pack_key(own), content)
    latest = repository.history.latest()
    assert latest is not None
    manifest = repository.manifest(latest)
    manifest.packs[own] = next(iter(manifest.packs.values()))
    repository.manifest = lambda commit: manifest  # type: ignore[method-assign]
    damaged = verify(repository, commits=[latest]).damaged[latest.checkpoint]
    assert any("condemned by a drop" in reason for reason in damaged)


# --- by rules


def _prune(store: Any, keep_last: int) -> list[str]:
    return collecting.Collector(opened(store)).prune(Retention(keep_last=keep_last))


def test_two_pruners_at_once(store: MemoryStore) -> None:
    """The one that loses the slot decides anew: what is left to drop, or nothing."""
    for inner, outer, kept in ((3, 2, [5, 6]), (1, 1, [6])):
        meanwhile = Meanwhile(store)
        meanwhile.acts.append(lambda inner=inner: _prune(store, inner))  # type: ignore[misc]
        dropped = _prune(meanwhile, outer)
        assert len(dropped) == (1 if outer == 2 else 0)
        collecting.Collector(opened(store)).sweep(grace_s=0, now_s=0)
        assert list(look(store).checkpoints) == kept
        assert verify(open_repository(store)).leftovers == []


def test_pruner_that_somebody_overtakes(store: MemoryStore) -> None:
    """A name, a pin and a save that come between are all taken into account."""
    repository = opened(store)
    first, second = _ids(repository, 1, 2)
    writer = opened(store).claim("writer")
    meanwhile = Meanwhile(store)
    meanwhile.acts.append(lambda: opened(store).set_alias("champion", first))
    meanwhile.acts.append(lambda: opened(store).pin(second))
    meanwhile.acts.append(lambda: writer.commit({"own": leaf(np.full(9, 7))}, facts(7)))
    assert len(_prune(meanwhile, 2)) == 3
    assert list(look(store).checkpoints) == [1, 2, 6, 7]


def test_very_many_by_rules(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """They go by several records too."""
    monkeypatch.setattr(collecting, "_DROPPED_AT_ONCE", 2)
    assert len(_prune(store, 1)) == 5
    assert records_of(store).count("drop") == 3


# --- when bytes go


def test_how_long_bytes_stay_unless_it_is_said(tmp_path: Path) -> None:
    """Readers of a folder hold its files open; elsewhere they hold nothing."""
    assert collecting.usual_grace_s(LocalStore(tmp_path)) == 0
    assert collecting.usual_grace_s(MemoryStore()) == 3600


def _drop_at(store: Any, time: str, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    monkeypatch.setattr(collecting, "now", lambda: time)
    repository = opened(store)
    collecting.Collector(repository).drop(_ids(repository, step))


def test_each_record_has_its_own_age(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is old enough goes, the rest waits; both are told in bytes."""
    _drop_at(store, "2030-01-01T00:00:00.000000Z", monkeypatch, 2)
    _drop_at(store, "2030-01-01T00:30:00.000000Z", monkeypatch, 3)
    collector = collecting.Collector(opened(store))
    at_one = 1_893_456_000.0 + 3600
    before = objects(store)
    assert collector.sweep(grace_s=3600, now_s=at_one - 1).freed_bytes == 0
    assert objects(store) == before
    foreseen = collector.due(grace_s=3600, now_s=at_one)
    assert objects(store) == before
    swept = collector.sweep(grace_s=3600, now_s=at_one)
    assert swept == foreseen
    assert swept.freed_bytes == swept.waiting_bytes > 0
    assert collector.sweep(grace_s=3600, now_s=at_one + 1800).waiting_bytes == 0
    assert verify(open_repository(store)).leftovers == []


@pytest.mark.parametrize("time", ["", "yesterday", "2030-01-01T00:00:00", "9999-12-31T00:00:00Z"])
def test_clocks_that_are_wrong(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch, time: str
) -> None:
    """An age that cannot be told, or is to come, is no age: bytes wait for `--grace 0`."""
    _drop_at(store, time, monkeypatch, 2)
    collector = collecting.Collector(opened(store))
    assert collector.sweep(grace_s=1, now_s=1_900_000_000).freed_bytes == 0
    assert collector.sweep(grace_s=0, now_s=0).freed_bytes > 0
    assert 2 not in look(store).checkpoints


def test_what_waits_for_readers_is_no_leftover(store: MemoryStore) -> None:
    """A claim makes leftovers deletable, but not what a reader may hold still."""
    repository = opened(store)
    collecting.Collector(repository).drop(_ids(repository, 2))
    before = _keys(store, "packs") | _keys(store, "manifests")
    for _ in range(2):
        assert Leftovers(collecting.Collector(opened(store))).sweep() == 0
        opened(store).claim("next")
    assert _keys(store, "packs") | _keys(store, "manifests") == before
