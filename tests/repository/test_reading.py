"""Reading into live memory: what lands where, what is shared with whom, and how much is needed."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged
from onward.frameworks.base import TensorLeaf
from onward.repository import Repository, filling, pack_key, read_state
from onward.repository.manifest import MAX_EXPANSION, Range
from onward.stores import FaultPlan, Faulty, LocalStore, MemoryStore, Store
from tests.repository.forging import forge_manifest, peak_bytes, replace_object
from tests.repository.outputs import facts, leaf, new_output, opened, plain
from tests.repository.test_parts import Workshop


def _saved(tree: Any, store: Store | None = None) -> tuple[Store, Any]:
    store = store or MemoryStore()
    repository = new_output(store)
    commit = repository.claim("writer").commit(tree, facts(1))
    return store, repository.manifest(commit)


def _manifest(repository: Repository) -> Any:
    latest = repository.history.latest()
    assert latest is not None
    return repository.manifest(latest)


def _zeros(tree: Any) -> Any:
    if isinstance(tree, TensorLeaf):
        return TensorLeaf(tree.dtype, tree.shape, tree.kind, np.zeros(tree.size_bytes, np.uint8))
    return {key: _zeros(child) for key, child in tree.items()}


def _memory(found: TensorLeaf) -> tuple[int, int]:
    assert found.data is not None
    return found.data.ctypes.data, found.data.size


@pytest.mark.parametrize("size", [10, 1000, 5_000_000])
def test_live_memory_gets_the_bytes(size: int) -> None:
    """Short or long, a tensor is read where it belongs; its leaf is that memory, not private."""
    tree = {"a": {"b": leaf(np.arange(size)), "c": leaf(np.arange(5))}}
    store, manifest = _saved(tree)
    live = _zeros({"a": {"b": tree["a"]["b"]}})
    found = read_state(store, manifest, into=live)
    assert plain(found) == plain(tree)
    assert plain(live["a"]["b"]) == plain(tree["a"]["b"])
    assert _memory(found["a"]["b"]) == _memory(live["a"]["b"])
    assert not found["a"]["b"].private
    assert found["a"]["c"].private


def test_other_memory_is_new_aligned_and_nobody_elses() -> None:
    """Tensors of equal bytes, stored once, can each be kept and trained on without the others."""
    tree = {f"t{n}": leaf(np.zeros(1000, np.float32)) for n in range(5)}
    tree["long"] = leaf(np.zeros(1 << 20, np.float32))
    tree["as long"] = leaf(np.zeros(1 << 20, np.float32))
    store, manifest = _saved(tree)
    found = read_state(store, manifest, into={})
    assert plain(found) == plain(tree)
    for number, each in enumerate(found.values()):
        assert each.private
        assert _memory(each)[0] % 64 == 0
        each.data[:] = number + 1
    for number, each in enumerate(found.values()):
        assert set(each.data) == {number + 1}


def test_equal_tensors_are_read_once() -> None:
    """One is read, the others are copies, in live memory and elsewhere."""
    long, short = np.ones(1 << 20), np.full(10, 2)
    tree = {f"{name}{n}": leaf(a) for n in range(3) for name, a in (("l", long), ("s", short))}
    store, manifest = _saved(tree)
    plan, progress = FaultPlan(), list[int]()
    live = _zeros({"l0": tree["l0"], "l2": tree["l2"], "s1": tree["s1"]})
    found = read_state(Faulty(store, plan), manifest, into=live, progress=progress.append)
    assert plain(found) == plain(tree)
    assert plain(live) == plain({key: tree[key] for key in live})
    assert sum(progress) == long.nbytes + short.nbytes
    assert plan.count("read") == 2


def test_tied_tensors_are_private_to_nobody() -> None:
    """A tensor that stands in two places of the tree must not be kept by both."""
    tied = leaf(np.arange(5), identity=1)
    store, manifest = _saved({"a": tied, "b": tied})
    found = read_state(store, manifest, into={})
    assert not found["a"].private
    assert not found["b"].private
    live = _zeros({"b": tied})
    found = read_state(store, manifest, into=live)
    assert _memory(found["a"]) == _memory(found["b"]) == _memory(live["b"])


def test_memory_that_two_tensors_claim_is_left_alone() -> None:
    """Tied now, two tensors when it was saved: the framework sets one after the other."""
    tree = {"a": leaf(np.arange(5)), "b": leaf(np.arange(5) + 7), "c": leaf(np.arange(5) + 9)}
    store, manifest = _saved(tree)
    memory = np.zeros(160, np.uint8)
    places = {"a": memory[:40], "b": memory[:40], "c": memory[120:]}
    live = {key: TensorLeaf("I64", (5,), "numpy", places[key]) for key in tree}
    found = read_state(store, manifest, into=live)
    assert plain(found) == plain(tree)
    assert not memory[:120].any()
    assert memory[120:].any()
    assert found["a"].private
    overlapping = {"a": memory[:40], "b": memory[32:72], "c": memory[64:104]}
    memory[:] = 0
    live = {key: TensorLeaf("I64", (5,), "numpy", overlapping[key]) for key in tree}
    assert plain(read_state(store, manifest, into=live)) == plain(tree)
    assert not memory.any()


@pytest.mark.parametrize(("dtype", "shape"), [("F64", (4, 3)), ("I64", (12,)), ("I64", (3, 4))])
def test_live_memory_of_another_kind_is_left_alone(dtype: str, shape: tuple[int, ...]) -> None:
    """As many bytes are not enough: dtype and shape have to be those of the tensor."""
    tree = {"a": leaf(np.arange(1, 13).reshape(4, 3))}
    store, manifest = _saved(tree)
    live = TensorLeaf(dtype, shape, "numpy", np.zeros(96, np.uint8))
    found = read_state(store, manifest, into={"a": live})
    assert plain(found) == plain(tree)
    assert live.data is not None
    assert not live.data.any()


def test_packs_deleted_during_the_restore(tmp_path: Path) -> None:
    """A collection by another process, after the first read, does no harm to a running restore."""
    tree = {f"t{n}": leaf(np.full(1 << 18, n)) for n in range(6)}
    store, manifest = _saved(tree, LocalStore(tmp_path))
    deleted: list[str] = []

    def collect(size_bytes: int) -> None:
        for pack in manifest.packs:
            if pack not in deleted:
                deleted.append(pack)
                LocalStore(tmp_path).delete(pack_key(pack))

    assert plain(read_state(store, manifest, progress=collect)) == plain(tree)
    assert deleted
    with pytest.raises(Damaged, match="there is no pack"):
        read_state(store, manifest)


def test_pieces_in_any_order() -> None:
    """However threads overtake each other, a long range is hashed from its start to its end."""
    for seed in range(50):
        data = np.random.default_rng(seed).integers(0, 9, 1000, dtype=np.uint8)
        found = Range("0" * 32, 8, 1000, "0" * 64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(filling, "_PIECE_BYTES", 37)
            arrival = filling._Arrival(filling._Wanted(found, "t", [data]))
        numbers = list(range(len(arrival.pieces)))
        random.Random(seed).shuffle(numbers)
        last = [number for number in numbers if arrival.hash_on(number, True)]
        assert last == numbers[-1:]
        assert filling._agrees(arrival.hasher, filling.blake3(data.data).hexdigest())


def test_damage_ends_reading_before_it_is_told() -> None:
    """Once `Damaged` is raised nothing writes to live memory any more; what it holds is open."""
    tree = {f"t{n}": leaf(np.full(1 << 18, n)) for n in range(8)}
    store, manifest = _saved(tree)
    found = manifest.tensors[0].parts[0].range
    data = bytearray(store.read(pack_key(found.pack)))
    data[found.offset + 5] ^= 1
    replace_object(store, pack_key(found.pack), bytes(data))
    live = _zeros(tree)
    with pytest.raises(Damaged, match="tensor t0 is damaged"):
        read_state(store, manifest, into=live)
    picture = plain(live)
    assert plain(read_state(store, manifest, into=_zeros(tree), verify=False)) != plain(tree)
    assert plain(live) == picture


@pytest.mark.parametrize("columns", [1, 50_000])
def test_memory_for_large_patches_is_bounded(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    """Rows come in pieces, long ones and many: what is needed beside the tensor stays small."""
    monkeypatch.setattr(filling, "_PIECE_BYTES", 10_000)
    height = 400_000 // columns
    base = np.zeros((height, columns), np.float32)
    workshop = Workshop()
    whole = base.copy()
    whole[1:] = np.arange(whole[1:].size, dtype=np.float32).reshape(-1, columns)
    b, i, p = (workshop.piece(each) for each in (base, np.arange(1, height), whole[1:]))
    repository = workshop.make(
        whole,
        lambda ranges: [
            {"part": "full", "range": ranges(b)},
            {"part": "rows", "count": height - 1, "index": ranges(i), "rows": ranges(p)},
        ],
    )
    manifest, live = _manifest(repository), _zeros({"t": leaf(whole)})
    store = repository.store
    assert peak_bytes(lambda: read_state(store, manifest, into=live)) < base.nbytes / 2
    assert plain(live) == plain({"t": leaf(whole)})


def test_memory_for_regions_that_two_tensors_use_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Columns that lie scattered in both tensors get there piece by piece."""
    monkeypatch.setattr(filling, "_PIECE_BYTES", 100_000)
    whole = np.arange(6_000_000, dtype=np.float32).reshape(4, -1)
    workshop = Workshop()
    left, right = (workshop.piece(half) for half in np.split(whole, 2, axis=1))
    width = whole.shape[1] // 2
    repository = workshop.make(
        whole,
        lambda ranges: [
            {"part": "region", "start": [0, at], "shape": [4, width], "range": ranges(half)}
            for half, at in ((left, 0), (right, width))
        ],
    )

    other = np.hstack([half.reshape(8, -1) for half in np.split(whole, 2, axis=1)])

    def twice(manifest: dict[str, Any]) -> None:
        again = copy.deepcopy(manifest["tensors"][-1])
        again |= {"path": "u", "shape": [8, width], "digest": None}
        for part in again["parts"]:
            part |= {"start": [0, part["start"][1] // 2], "shape": [8, width // 2]}
        manifest["tensors"].append(again)
        manifest["state"]["u"] = {"$tensor": len(manifest["tensors"]) - 1}

    forge_manifest(repository.store, twice)
    store, manifest = repository.store, _manifest(opened(repository.store))
    live = _zeros({"t": leaf(whole), "u": leaf(other)})
    assert peak_bytes(lambda: read_state(store, manifest, into=live)) < whole.nbytes / 4
    assert plain(live) == plain({"t": leaf(whole), "u": leaf(other)})


def test_memory_for_very_many_equal_tensors_is_bounded() -> None:
    """A short manifest cannot ask for memory without end by naming one range for everything."""
    count, size = 20 * MAX_EXPANSION, 1 << 16
    store, manifest = _saved({f"t{n}": leaf(np.zeros(size, np.uint8)) for n in range(count)})
    assert len({tensor.digest for tensor in manifest.tensors}) == 1
    kept: list[Any] = []
    peak = peak_bytes(lambda: kept.append(read_state(store, manifest, into={})))
    assert peak < 2 * MAX_EXPANSION * size
    assert sum(each.private for each in kept[0].values()) == MAX_EXPANSION
    assert all(not each.data.any() for each in kept[0].values())
