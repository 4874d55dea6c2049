"""Repacking: what little is needed of a pack moves, and nobody notices but the disk."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load as load_safetensors

from onward.errors import Damaged, Fenced, Indeterminate, NewerFormat, Unreachable
from onward.repository import Commit, Repository, manifest_key, open_repository, pack_key, verify
from onward.repository import repacking as repacking_module
from onward.repository.collecting import Collector, Swept
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.leftovers import Leftovers
from onward.repository.manifest import Full, Manifest, Range, Rows, Tensor, manifest_bytes
from onward.repository.records import Commit as CommitRecord
from onward.repository.records import (
    Drop,
    ManifestPlace,
    Repack,
    parse_record,
    record_bytes,
    record_key,
)
from onward.repository.repacking import Repacker
from onward.stores import Died, Fault, FaultPlan, Faulty, MemoryStore, dies
from tests.repository.forging import replace_object
from tests.repository.outputs import (
    Meanwhile,
    Picture,
    at_step,
    facts,
    going_on,
    leaf,
    look,
    new_output,
    objects,
    opened,
    plain,
    records_of,
)


def _tree(step: int) -> dict[str, Any]:
    return {
        "frozen": leaf(np.arange(10)),
        "tied": [leaf(np.arange(3), identity=1), leaf(np.arange(3), identity=1)],
        "weights": leaf(np.full(200, step)),
        "empty": leaf(np.zeros((0, 3))),
    }


def _chain(store: Any, steps: int) -> list[Commit]:
    """The first pack holds what all share, and the large weights of the first step only."""
    writer = new_output(store).claim("writer")
    return [writer.commit(_tree(step), facts(step)) for step in range(1, steps + 1)]


def _mostly_dead(store: Any, steps: int = 4) -> Repository:
    _chain(store, steps)
    repository = opened(store)
    repository.drop([at_step(repository, 1).checkpoint])
    return repository


def _repack(store: Any) -> repacking_module.Repacked:
    return Repacker(Collector(opened(store))).repack()


def _sweep(store: Any) -> Swept:
    return Collector(opened(store)).sweep(grace_s=0, now_s=0)


@pytest.fixture
def store() -> MemoryStore:
    store = MemoryStore()
    _mostly_dead(store)
    return store


def test_same_state_in_less_space(store: MemoryStore) -> None:
    """Bit for bit the same for a fresh reader, and the dead bytes are gone."""
    before, size = look(store), sum(len(data) for data in objects(store).values())
    done = _repack(store)
    assert (len(done.packs), done.checkpoints, done.refused) == (1, 3, {})
    assert look(store) == before
    freed = _sweep(store).freed_bytes
    assert freed > 800 + done.written_bytes
    assert sum(len(data) for data in objects(store).values()) < size
    assert look(store) == before
    assert verify(open_repository(store)).leftovers == []
    with pytest.raises(KeyError):
        _ = objects(store)[pack_key(done.packs[0])]


def test_repacked_packs_are_packs(store: MemoryStore) -> None:
    """Any reader of the format reads them, with the names that the tree has."""
    _repack(store)
    repository = opened(store)
    manifest = repository.manifest(at_step(repository, 4))
    tensors = {
        name for pack in manifest.packs for name in load_safetensors(store.read(pack_key(pack)))
    }
    assert {"frozen", "weights"} <= tensors


def test_doing_it_again_does_nothing(store: MemoryStore) -> None:
    """A new pack is as small as it gets: repacking comes to an end."""
    _repack(store)
    _sweep(store)
    before = objects(store)
    assert _repack(store).packs == []
    assert objects(store) == before


def test_dense_packs_are_left_alone() -> None:
    """Of the first pack all is needed, or more than the share below which rewriting pays."""
    store = MemoryStore()
    _chain(store, 3)
    assert _repack(store).packs == []
    writer = going_on(opened(store))
    for step in (11, 12):
        writer.commit({"half": leaf(np.arange(50)), "own": leaf(np.full(60, step))}, facts(step))
    repository = opened(store)
    repository.drop([at_step(repository, 11).checkpoint])
    assert _repack(store).packs == []


def test_repacked_checkpoints_are_dropped_and_repacked_again(store: MemoryStore) -> None:
    """Their manifests have new names each time; all old ones go."""
    _repack(store)
    writer = going_on(opened(store))
    writer.commit({"tied": leaf(np.arange(3))}, facts(5))
    repository = opened(store)
    moved = repository.manifest(at_step(repository, 4)).packs
    assert len(repository.manifest(at_step(repository, 5)).packs.keys() & moved.keys()) == 1
    repository.drop([at_step(repository, step).checkpoint for step in (2, 3, 4)])
    assert len(_repack(store).packs) == 1
    _sweep(store)
    assert list(look(store).checkpoints) == [5]
    names = {key for key in objects(store) if key.startswith("onward/manifests/")}
    assert len(names) == 1
    assert verify(open_repository(store)).leftovers == []


def test_in_small_portions(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """Several new packs, several records; the old pack goes with the last."""
    monkeypatch.setattr(repacking_module, "_PACK_BYTES", 64)
    monkeypatch.setattr(repacking_module, "_MANIFESTS_AT_ONCE", 2)
    before = look(store)
    done = _repack(store)
    assert records_of(store).count("repack") == 2
    assert len(done.packs) == 1
    _sweep(store)
    assert look(store) == before
    assert verify(open_repository(store)).leftovers == []


def test_summary_knows_where_manifests_are(store: MemoryStore) -> None:
    """A reader that begins with it finds them; `verify` compares it with the log."""
    repository = opened(store)
    champion = at_step(repository, 2).checkpoint
    _repack(store)
    _sweep(store)
    repository.refresh()
    repository.pin(champion)
    for _ in range(40):
        repository.set_alias("champion", champion)
    before = look(store)
    for seq in range(2, 20):
        assert record_key(seq) in objects(store)
    plan = FaultPlan()
    history = open_repository(Faulty(store, plan)).history
    assert record_key(3) not in {call.key for call in plan.calls}
    assert history.moved.keys() == {c.checkpoint for c in history.live()}
    assert history.pins == {champion}
    assert look(store) == before
    assert verify(open_repository(store)).intact


# --- row patches


def _patched(store: MemoryStore) -> Picture:
    """The newest checkpoint's weights become a base and a row patch, in two sparse packs."""
    writer = new_output(store).claim("writer")
    base = np.arange(40).reshape(10, 4)
    index, rows = np.array([2, 5]), np.array([[7] * 4, [8] * 4])
    writer.commit({"base": leaf(base), "dead": leaf(np.zeros(300))}, facts(1))
    writer.commit(
        {"index": leaf(index), "rows": leaf(rows), "base": leaf(base), "dead": leaf(np.ones(300))},
        facts(2),
    )
    latest = writer.commit({"base": leaf(base)}, facts(3))
    repository = opened(store)
    second = repository.manifest(at_step(repository, 2))
    ranges: dict[str, Range] = {t.path: t.parts[0].range for t in second.tensors}  # type: ignore[union-attr]
    manifest = repository.manifest(latest)
    whole = base.copy()
    whole[index] = rows
    tensor = Tensor(
        "base", "numpy", "I64", [10, 4], None,
        [Full(ranges["base"]), Rows(2, ranges["index"], ranges["rows"])],
    )  # fmt: skip
    _forge_latest(store, manifest, [tensor], {**second.packs})
    repository = opened(store)
    repository.drop([at_step(repository, step).checkpoint for step in (1, 2)])
    picture = look(store)
    assert picture.checkpoints[3] == plain({"base": leaf(whole)})
    return picture


def _forge_latest(
    store: MemoryStore, manifest: Manifest, tensors: list[Tensor], packs: dict[str, Any]
) -> None:
    import msgspec

    changed = msgspec.structs.replace(manifest, tensors=tensors, packs=packs)
    data = manifest_bytes(changed)
    replace_object(store, manifest_key(manifest.checkpoint), data)
    seq = opened(store).history.seq
    record = parse_record(store.read(record_key(seq)), seq)
    assert isinstance(record, CommitRecord)
    ref = msgspec.structs.replace(record.manifest, digest=digest_of(data), size=len(data))
    replace_object(
        store, record_key(seq), record_bytes(msgspec.structs.replace(record, manifest=ref))
    )


def test_row_patches_move_with_their_base() -> None:
    """Every range of a tensor in parts is copied, whichever pack it was in."""
    store = MemoryStore()
    before = _patched(store)
    done = _repack(store)
    assert len(done.packs) == 2
    _sweep(store)
    assert look(store) == before
    assert len([key for key in objects(store) if key.startswith("onward/packs/")]) == 1


# --- damage


def test_damaged_pack_is_refused(store: MemoryStore) -> None:
    """It stays as it is, what is wrong is told, and the rest is done all the same."""
    repository = opened(store)
    manifest = repository.manifest(at_step(repository, 2))
    frozen = next(t for t in manifest.tensors if t.path == "frozen").parts[0].range  # type: ignore[union-attr]
    data = bytearray(store.read(pack_key(frozen.pack)))
    data[frozen.offset] ^= 1
    replace_object(store, pack_key(frozen.pack), bytes(data))
    before = objects(store)
    done = _repack(store)
    assert done.packs == []
    assert "frozen" in done.refused[frozen.pack]
    assert objects(store) == before


def test_damaged_manifest_ends_it(store: MemoryStore) -> None:
    """It is not known what is needed: nothing is changed."""
    replace_object(store, manifest_key(at_step(opened(store), 3).checkpoint), b"{}")
    before = objects(store)
    with pytest.raises(Damaged):
        _repack(store)
    assert objects(store) == before


def test_store_that_fails_leaves_nothing_behind(store: MemoryStore) -> None:
    """What was written so far is taken away again."""
    before = objects(store)
    for at in (1, 2, 3):
        failing = Faulty(store, FaultPlan(Fault(at, "after", verb="put")))
        with pytest.raises(Unreachable):
            _repack(failing)
        assert objects(store) == before


def test_indeterminate_repack_takes_nothing_away(store: MemoryStore) -> None:
    """The record may exist: then it names everything that was written."""

    class Silent(FaultPlan):
        def perform(self, verb: str, key: str, call: Any) -> Any:
            answer = super().perform(verb, key, call)
            if self.count("create"):
                raise Unreachable("silence")
            return answer

    before = look(store)
    with pytest.raises(Indeterminate):
        _repack(Faulty(store, Silent()))
    assert look(store) == before
    assert records_of(store)[-1] == "repack"


# --- beside others


def test_commit_meanwhile_keeps_the_pack_that_it_uses(store: MemoryStore) -> None:
    """A save that names the old pack wins the slot: that pack is not condemned this time."""
    writer = going_on(opened(store))
    meanwhile = Meanwhile(store)
    meanwhile.acts.append(lambda: writer.commit(_tree(5), facts(5)))
    done = _repack(meanwhile)
    assert (done.packs, done.checkpoints) == ([], 3)
    assert list(look(store).checkpoints) == [2, 3, 4, 5]
    assert len(_repack(store).packs) == 1
    _sweep(store)
    assert list(look(store).checkpoints) == [2, 3, 4, 5]


def test_writer_meets_its_pack_condemned(store: MemoryStore) -> None:
    """It writes anew what it meant to reuse."""
    writer = going_on(opened(store))
    _repack(store)
    _sweep(store)
    writer.commit(_tree(5), facts(5))
    assert list(look(store).checkpoints) == [2, 3, 4, 5]


def test_claim_meanwhile_ends_it(store: MemoryStore) -> None:
    """So that a leftover of a repack under an earlier claim is one for good; nothing is left."""
    meanwhile = Meanwhile(store)
    meanwhile.acts.append(lambda: opened(store).claim("another"))
    before = {key for key in objects(store) if "/log/" not in key}
    assert _repack(meanwhile).packs == []
    assert {key for key in objects(store) if "/log/" not in key} == before
    assert "repack" not in records_of(store)


def test_drop_meanwhile(store: MemoryStore) -> None:
    """A checkpoint that is gone is left out, and its new manifest goes."""
    meanwhile = Meanwhile(store)
    repository = opened(store)
    second = at_step(repository, 2).checkpoint
    meanwhile.acts.append(lambda: repository.drop([second]))
    assert _repack(meanwhile).checkpoints == 2
    _sweep(store)
    assert list(look(store).checkpoints) == [3, 4]
    assert verify(open_repository(store)).leftovers == []


def test_two_at_once(store: MemoryStore) -> None:
    """One wins; the other takes its own away."""
    meanwhile = Meanwhile(store)
    meanwhile.acts.append(lambda: _repack(store))
    before = look(store)
    assert _repack(meanwhile).packs == []
    _sweep(store)
    assert look(store) == before
    assert verify(open_repository(store)).leftovers == []


def test_prune_beside_a_repack(store: MemoryStore) -> None:
    """A drop that wins or loses the slot against a repack counts what is needed anew."""
    repository = opened(Meanwhile(store))
    second = at_step(repository, 2).checkpoint
    assert isinstance(repository.store, Meanwhile)
    repository.store.acts.append(lambda: _repack(store))
    repository.store.acts.append(lambda: _sweep(store))
    repository.drop([second])
    _sweep(store)
    assert list(look(store).checkpoints) == [3, 4]
    assert verify(open_repository(store)).leftovers == []


def test_old_manifest_of_a_reader_that_looked_before(store: MemoryStore) -> None:
    """It is told that it is missing; a look at the log tells where it is now."""
    reader = opened(store)
    commit = at_step(reader, 3)
    _repack(store)
    _sweep(store)
    with pytest.raises(Damaged, match="missing"):
        reader.manifest(commit)
    reader.refresh()
    assert reader.manifest(commit).step == 3


# --- cut off


def test_leftovers_of_a_repack_that_died(store: MemoryStore) -> None:
    """They stay until the output is claimed, then they go; no kept bytes with them."""
    before = look(store)
    with pytest.raises(Died):
        _repack(Faulty(store, FaultPlan(dies(1, verb="create"))))
    left = verify(open_repository(store)).leftovers
    assert len(left) == 4
    assert Leftovers(Collector(opened(store))).sweep() == 0
    assert Leftovers(Collector(opened(store))).sweep() == 0
    opened(store).claim("next")
    assert Leftovers(Collector(opened(store))).sweep() == 4
    assert verify(open_repository(store)).leftovers == []
    assert look(store).checkpoints == before.checkpoints


def test_leftover_that_is_committed_after_all(store: MemoryStore) -> None:
    """A save in flight while leftovers are noted: its pack and manifest are no leftovers then."""
    writer = going_on(opened(store))
    meanwhile = Meanwhile(store)
    writer.store = writer.log.store = meanwhile
    noted: list[int] = []
    meanwhile.acts.append(lambda: noted.append(Leftovers(Collector(opened(store))).sweep()))
    writer.commit(_tree(9), facts(9))
    assert len(json.loads(store.read("onward/leftovers.json"))["keys"]) == 2
    opened(store).claim("next")
    assert Leftovers(Collector(opened(store))).sweep() == noted[0] == 0
    assert 9 in look(store).checkpoints


def test_leftovers_with_a_bad_note(store: MemoryStore) -> None:
    """A damaged note deletes nothing: what is left over is noted again."""
    left = f"onward/packs/{'a' * 32}.safetensors"
    replace_object(store, left, b"x")
    Leftovers(Collector(opened(store))).sweep()
    note = store.read("onward/leftovers.json")
    opened(store).claim("next")
    replace_object(
        store, "onward/leftovers.json", note.replace(b'"generation":1', b'"generation":0')
    )
    assert Leftovers(Collector(opened(store))).sweep() == 0
    assert left in objects(store)
    opened(store).claim("next")
    assert Leftovers(Collector(opened(store))).sweep() == 1


def test_a_fenced_writer_cannot_commit_what_was_swept(store: MemoryStore) -> None:
    """Its pack is noted, the output claimed, the pack deleted: its record comes too late."""
    writer = going_on(opened(store))
    meanwhile = Meanwhile(store)
    writer.store = writer.log.store = meanwhile

    def others() -> None:
        Leftovers(Collector(opened(store))).sweep()
        opened(store).claim("next")
        assert Leftovers(Collector(opened(store))).sweep() == 2

    meanwhile.acts.append(others)
    with pytest.raises(Fenced):
        writer.commit(_tree(9), facts(9))
    assert list(look(store).checkpoints) == [2, 3, 4]


# --- records that no repack makes


def _next_record(history: History, **fields: Any) -> Repack:
    return Repack(
        seq=history.seq + 1, record="0" * 32, writer="0" * 32, generation=history.generation,
        time="", prev=history.head_digest, packs=[], **fields,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("{id}", "no name"),
        ("{other}-00000000", "no name"),
        ("{now}", "used before"),
        ("{before}", "used before"),
        ("{id}-00000000", ""),
    ],
)
def test_repack_record_with_a_name_that_may_not_be(
    store: MemoryStore, name: str, reason: str
) -> None:
    """A manifest's name is its checkpoint's, and never one that was used before."""
    history = opened(store).history
    (id_, *_) = [commit.checkpoint for commit in history.live()]
    for digit in "12":
        moved = ManifestPlace(f"{id_}-{digit * 8}", "0" * 64, 1)
        history.apply(_next_record(history, manifests={id_: moved}), "0" * 64)
    place = name.format(id=id_, other="0" * 16, now=f"{id_}-22222222", before=f"{id_}-11111111")
    record = _next_record(history, manifests={id_: ManifestPlace(place, "0" * 64, 1)})
    if reason:
        with pytest.raises(Damaged) as caught:
            history.check(record)
        assert reason in caught.value.why
    else:
        history.check(record)


def test_repack_record_of_what_is_gone(store: MemoryStore) -> None:
    """A dropped or unknown checkpoint has no other manifest."""
    history = opened(store).history
    for id_ in (*history.dropped, "0" * 16):
        place = ManifestPlace(f"{id_}-00000000", "0" * 64, 1)
        with pytest.raises(Damaged, match="repack"):
            history.check(_next_record(history, manifests={id_: place}))


def test_drop_record_of_a_pinned_checkpoint(store: MemoryStore) -> None:
    """It is damage: no writer makes it."""
    repository = opened(store)
    second = at_step(repository, 2).checkpoint
    repository.pin(second)
    history = repository.history
    record = Drop(
        seq=history.seq + 1, record="0" * 32, writer="0" * 32, generation=history.generation,
        time="", prev=history.head_digest, checkpoints=[second], packs=[],
    )  # fmt: skip
    with pytest.raises(Damaged) as caught:
        history.check(record)
    assert "pinned" in caught.value.why


# --- older versions


def test_older_onward_refuses_politely(monkeypatch: pytest.MonkeyPatch, store: MemoryStore) -> None:
    """To a version that knows format 1 only, an output that was repacked is newer."""
    from onward.repository import records

    _repack(store)
    monkeypatch.setattr(records, "_NEWEST_FORMAT", 1)
    with pytest.raises(NewerFormat, match="upgrade onward"):
        open_repository(store)
