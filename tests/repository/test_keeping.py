"""Retention while training goes on: cheap, beside the writer, in a folder and on a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, Fenced, Unreachable
from onward.repository import Repository, Writer, collecting, manifest_key, open_repository, verify
from onward.repository.collecting import Collector
from onward.repository.keeping import Keeper, Kept, WorkingCopyKeeper
from onward.repository.mirror import Mirror
from onward.repository.repacking import Repacker
from onward.repository.retention import BestOf, Retention
from onward.stores import Fault, FaultPlan, Faulty, LocalStore, MemoryStore
from tests.repository.forging import replace_object
from tests.repository.outputs import at_step, facts, leaf, look, new_output, objects, opened

_LAST_TWO = Retention(keep_last=2)


def _tree(step: int) -> dict[str, Any]:
    return {"frozen": leaf(np.arange(30)), "weights": leaf(np.full(9, step))}


def _training(
    store: Any, retention: Retention = _LAST_TWO, **more: Any
) -> tuple[Repository, Writer, Keeper]:
    repository = new_output(store)
    writer = repository.claim("training")
    keeper = Keeper(repository, retention, claimed_generation=writer.generation, **more)
    return repository, writer, keeper


def test_what_the_rules_do_not_keep_goes_after_each_commit() -> None:
    """The output never holds more than they say, and every commit reuses what is kept."""
    store = MemoryStore()
    _, writer, keeper = _training(store, grace_s=0)
    dropped = 0
    for step in range(1, 8):
        writer.commit(_tree(step), facts(step, metrics={"accuracy": 1 / step}))
        kept = keeper.collect()
        dropped += len(kept.dropped)
        assert list(look(store).checkpoints) == [step - 1, step][-step:]
        assert verify(open_repository(store)).leftovers == []
    assert dropped == 5
    packs = [key for key in objects(store) if "/packs/" in key]
    assert len(packs) == 3  # the frozen tensor's, and two


def test_nothing_is_asked_of_the_store_while_nothing_goes() -> None:
    """After the first call, which looks for what an earlier process may have left."""
    store = Faulty(MemoryStore())
    _, writer, keeper = _training(store, Retention(keep_last=100), grace_s=0)
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
        before = store.plan.count()
        assert keeper.collect() == Kept()
        assert store.plan.count() - before <= (1 if step == 1 else 0)


def test_without_rules_nothing_happens() -> None:
    store = Faulty(MemoryStore())
    _, writer, keeper = _training(store, Retention())
    writer.commit(_tree(1), facts(1))
    before = store.plan.count()
    assert keeper.collect() == Kept()
    assert store.plan.count() == before


def test_names_and_pins_of_others_protect() -> None:
    """They are seen although somebody else appended them a moment ago."""
    store = MemoryStore()
    _, writer, keeper = _training(store, Retention(keep_last=1), grace_s=0)
    first = writer.commit(_tree(1), facts(1))
    second = writer.commit(_tree(2), facts(2))
    opened(store).set_alias("champion", first.checkpoint)
    opened(store).pin(second.checkpoint)
    writer.commit(_tree(3), facts(3))
    assert keeper.collect().dropped == ()
    assert list(look(store).checkpoints) == [1, 2, 3]
    opened(store).unpin(second.checkpoint)
    writer.commit(_tree(4), facts(4))
    assert len(keeper.collect().dropped) == 2
    assert list(look(store).checkpoints) == [1, 4]


def test_bytes_wait_for_readers_and_go_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a grace time, they go with a later call, by the clock that was given."""
    now_s = [1_900_000_000.0]
    store = MemoryStore()
    _, writer, keeper = _training(store, grace_s=3600, clock=lambda: now_s[0])
    for step in (1, 2, 3):
        writer.commit({"weights": leaf(np.full(9, step))}, facts(step))
    same_moment = "2030-03-17T17:46:40.000000Z"
    monkeypatch.setattr(collecting, "now", lambda: same_moment)
    assert keeper.collect().freed_bytes == 0
    assert len([key for key in objects(store) if "/packs/" in key]) == 3
    now_s[0] += 3599
    assert keeper.collect().freed_bytes == 0
    now_s[0] += 2
    assert keeper.collect().freed_bytes > 0
    assert len([key for key in objects(store) if "/packs/" in key]) == 2


def test_what_an_earlier_process_left_is_deleted() -> None:
    """A sweep that was cut off is finished by the next run's first call."""
    store = MemoryStore()
    _, writer, keeper = _training(store, grace_s=10**9)
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    keeper.collect()
    assert verify(open_repository(store)).leftovers != []
    repository = opened(store)
    again = Keeper(repository, _LAST_TWO, claimed_generation=1, grace_s=0)
    again.collect()
    assert verify(open_repository(store)).leftovers == []


def test_fenced_keeper_drops_nothing() -> None:
    """Whoever took over decides what stays."""
    store = MemoryStore()
    _, writer, keeper = _training(store)
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    opened(store).claim("another")
    with pytest.raises(Fenced):
        keeper.collect()
    assert list(look(store).checkpoints) == [1, 2, 3]


def test_store_that_fails_harms_nothing() -> None:
    """The error comes out, training commits on, and the next call goes on."""
    healthy = MemoryStore()
    plan = FaultPlan(Fault(1, verb="delete"), Fault(2, verb="delete", when="after"))
    _, writer, keeper = _training(Faulty(healthy, plan), grace_s=0)
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    with pytest.raises(Unreachable):
        keeper.collect()
    writer.commit(_tree(4), facts(4))
    with pytest.raises(Unreachable):
        keeper.collect()
    writer.commit(_tree(5), facts(5))
    keeper.collect()
    assert list(look(healthy).checkpoints) == [4, 5]
    assert verify(open_repository(healthy)).leftovers == []


def test_damaged_checkpoint_that_stays_is_told() -> None:
    """Nothing is dropped beside it, and training commits on."""
    store = MemoryStore()
    rules = Retention(keep_last=1, keep_best=(BestOf("accuracy"),))
    repository, writer, keeper = _training(store, rules, grace_s=0)
    for step, accuracy in ((1, 0.9), (2, 0.1), (3, 0.1)):
        writer.commit(_tree(step), facts(step, metrics={"accuracy": accuracy}))
    replace_object(store, manifest_key(at_step(repository, 1).checkpoint), b"{}")
    with pytest.raises(Damaged):
        keeper.collect()
    assert len(open_repository(store).history.live()) == 3
    writer.commit(_tree(4), facts(4))


# --- an output on an object store


def test_working_copy_and_remote_output_keep_to_the_rules(tmp_path: Path) -> None:
    """Both stay small; what is pushed is whole; a run that begins again finds all it needs."""
    remote = MemoryStore()
    mirror = Mirror(LocalStore(tmp_path / "output"), remote)
    mirror.pull_log()
    writer = mirror.claim("training")
    keeper = WorkingCopyKeeper(mirror, _LAST_TWO, claimed_generation=writer.generation, grace_s=0)
    for step in range(1, 9):
        writer.commit(_tree(step), facts(step))
        if step % 3:
            mirror.push()
            keeper.collect()
    mirror.push()
    keeper.collect()
    assert list(look(remote).checkpoints) == [7, 8]
    assert verify(open_repository(remote)).leftovers == []
    for kind in ("packs", "manifests"):
        here = {entry.key for entry in mirror.local_store.list(f"onward/{kind}/")}
        assert here == {key for key in objects(remote) if f"/{kind}/" in key}

    again = Mirror(LocalStore(tmp_path / "output"), remote)
    again.pull_log()
    latest = again.remote.history.latest()
    assert latest is not None
    manifest = again.pull_checkpoint(latest)
    next_writer = again.claim("again")
    next_writer.base_on(manifest)
    next_writer.commit(_tree(9), facts(9))
    again.push()
    assert list(look(remote).checkpoints) == [7, 8, 9]


def test_working_copy_keeps_what_is_not_pushed(tmp_path: Path) -> None:
    """Somebody prunes the remote output of all but the newest; the next push is whole."""
    remote = MemoryStore()
    mirror = Mirror(LocalStore(tmp_path / "output"), remote)
    mirror.pull_log()
    writer = mirror.claim("training")
    rules = Retention(keep_last=1)
    keeper = WorkingCopyKeeper(mirror, rules, claimed_generation=writer.generation, grace_s=0)
    for step in (1, 2, 3):
        writer.commit(_tree(step), facts(step))
    mirror.push()
    writer.commit(_tree(4), facts(4))
    keeper.collect()
    writer.commit(_tree(5), facts(5))
    mirror.push()
    assert list(look(remote).checkpoints) == [3, 4, 5]


def test_working_copy_keeps_what_a_repack_elsewhere_condemned(tmp_path: Path) -> None:
    """Commits that are not pushed still name it, and so does the next one: it is needed here."""
    remote = MemoryStore()
    mirror = Mirror(LocalStore(tmp_path / "output"), remote)
    mirror.pull_log()
    writer = mirror.claim("training")
    rules = Retention(keep_last=1)
    keeper = WorkingCopyKeeper(mirror, rules, claimed_generation=writer.generation, grace_s=0)

    def save(step: int, length: int) -> None:
        writer.commit({**_tree(step), "long": leaf(np.full(length, step))}, facts(step))

    for step, length in ((1, 900), (2, 5), (3, 5)):
        save(step, length)
    mirror.push()
    elsewhere = open_repository(remote)
    elsewhere.drop([at_step(elsewhere, 1).checkpoint])
    assert Repacker(Collector(elsewhere)).repack().packs
    save(4, 5)
    assert len(keeper.collect().dropped) == 1
    mirror.push()
    assert keeper.collect().dropped
    newest = mirror.local.refresh().latest()
    assert newest is not None
    assert verify(mirror.local, commits=[newest]).intact
    save(5, 5)
    mirror.push()
    assert list(look(remote).checkpoints) == [4, 5]
