"""Packs: ordinary safetensors files that hold what a checkpoint changed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import deserialize
from safetensors.numpy import load_file

from onward.frameworks.base import ITEM_BYTES, TensorLeaf
from onward.repository import (
    Commit,
    Manifest,
    Repository,
    Writer,
    open_repository,
    pack_key,
    read_state,
)
from onward.repository.packs import Hashing, plan_pack, whole
from onward.stores import LocalStore, MemoryStore
from tests.repository.forging import peak_bytes
from tests.repository.outputs import Wrapped, facts, leaf, new_output, opened, plain


@pytest.fixture
def repository() -> Repository:
    return new_output(MemoryStore())


@pytest.fixture
def writer(repository: Repository) -> Writer:
    return repository.claim("writer")


def _packs(repository: Repository) -> set[str]:
    return {entry.key for entry in repository.store.list("onward/packs/")}


def _manifest(repository: Repository, commit: Commit) -> Manifest:
    return repository.manifest(commit)


# --- the format


def test_any_reader_of_safetensors_reads_a_pack(tmp_path: Path) -> None:
    """Values, shapes and dtypes, under the names of the state tree."""
    repository = new_output(LocalStore(tmp_path))
    tree = {
        "model": {
            "a.weight": leaf(np.arange(6, dtype=np.float32).reshape(2, 3)),
            "größe": leaf(np.array([True, False])),
        },
        "optimizer": {0: {"m": leaf(np.arange(5, dtype=np.int64))}},
    }
    repository.claim("writer").commit(tree, facts(1))
    (path,) = (tmp_path / "onward/packs").iterdir()
    assert re.fullmatch(r"[0-9a-f]{32}\.safetensors", path.name)
    loaded = load_file(path)
    assert loaded.keys() == {"model/a.weight", "model/größe", "optimizer/[0]/m"}
    assert loaded["model/a.weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert loaded["model/größe"].tolist() == [True, False]
    assert loaded["optimizer/[0]/m"].dtype == np.int64


@pytest.mark.parametrize("dtype", ITEM_BYTES)
def test_every_dtype(repository: Repository, writer: Writer, dtype: str) -> None:
    """Those that safetensors lacks are stored as bytes; all come back as they were."""
    data = np.arange(6 * ITEM_BYTES[dtype], dtype=np.uint8) % 2
    tree = {"t": TensorLeaf(dtype, (2, 3), "torch", data)}
    commit = writer.commit(tree, facts(1))
    (key,) = _packs(repository)
    ((name, stored),) = deserialize(repository.store.read(key))
    assert name == "t"
    assert stored["dtype"] == ("U8" if dtype in ("C64", "C128") else dtype)
    assert bytes(stored["data"]) == bytes(data)
    assert plain(read_state(repository.store, _manifest(repository, commit))) == plain(tree)


def test_names_that_clash(repository: Repository, writer: Writer) -> None:
    """Paths are for people: those that read alike, or mean something else in a header, differ."""
    tree = {
        "__metadata__": leaf([1]),
        "a": {"b": leaf([2]), "[0]": leaf([3]), 0: leaf([4])},
        "a/b": leaf([5]),
        "a/b~": leaf([6]),
        "": leaf([7]),
        'quote"\n': leaf([8]),
    }
    commit = writer.commit(tree, facts(1))
    (key,) = _packs(repository)
    stored = deserialize(repository.store.read(key))
    assert len({name for name, _ in stored}) == 8
    assert plain(read_state(repository.store, _manifest(repository, commit))) == plain(tree)


def test_ranges_are_absolute_and_aligned(repository: Repository, writer: Writer) -> None:
    """The data begins at a multiple of 64, without holes; a manifest needs no header to be read."""
    commit = writer.commit({f"t{n}": leaf(np.full(8, n)) for n in range(5)}, facts(1))
    manifest = _manifest(repository, commit)
    (pack,) = manifest.packs
    ranges = [next(tensor.ranges()) for tensor in manifest.tensors]
    assert ranges[0].offset % 64 == 0
    assert [r.offset - ranges[0].offset for r in ranges] == [0, 64, 128, 192, 256]
    assert (
        manifest.packs[pack].size == ranges[-1].offset + 64 == repository.store.size(pack_key(pack))
    )
    whole = repository.store.read(pack_key(pack))
    assert whole[ranges[3].offset :][:64] == np.full(8, 3).tobytes()


def test_pack_is_streamed() -> None:
    """Its bytes pass in pieces, never copied as a whole, as often as they are asked for."""
    big = TensorLeaf("U8", (64 << 20,), "numpy", np.zeros(64 << 20, np.uint8))
    plan = plan_pack("0" * 32, [whole("big", big)])
    chunks = Hashing(plan)

    def pass_through() -> None:
        for _ in range(2):
            assert sum(len(chunk) for chunk in chunks) == plan.size_bytes

    assert peak_bytes(pass_through) < 1 << 20


# --- what is stored, and what is named again


def test_unchanged_checkpoint_stores_nothing(repository: Repository, writer: Writer) -> None:
    """Saving the same state again costs a manifest and a record, and no pack."""
    tree = {"a": leaf(np.arange(1000)), "n": 1}
    first = writer.commit(tree, facts(1))
    second = writer.commit({**tree, "n": 2}, facts(2, first))
    assert first.stored > 8000
    assert second.stored == 0
    assert len(_packs(repository)) == 1
    assert read_state(repository.store, _manifest(repository, second))["n"] == 2


def test_frozen_backbone_is_stored_once(repository: Repository, writer: Writer) -> None:
    """Of each checkpoint only what changed is stored, and a manifest needs no other manifest."""
    backbone = leaf(np.arange(10_000))
    commits = [
        writer.commit({"backbone": backbone, "head": leaf(np.full(10, step))}, facts(step))
        for step in range(1, 6)
    ]
    assert commits[0].stored > 80_000
    assert all(80 <= commit.stored < 500 for commit in commits[1:])
    for commit in commits[:-1]:
        repository.store.delete(f"onward/manifests/{commit.checkpoint}.json")
    last = _manifest(repository, commits[-1])
    assert len(last.packs) == 2
    found = read_state(repository.store, last)
    assert plain(found["backbone"]) == plain(backbone)


def test_writer_that_restarts(repository: Repository, writer: Writer) -> None:
    """Based on the checkpoint that it restored, it stores only what changes from there."""
    tree = {"a": leaf(np.arange(1000)), "b": leaf(np.arange(10))}
    first = writer.commit(tree, facts(1))
    again = opened(repository.store).claim("writer, restarted")
    again.base_on(_manifest(repository, first))
    assert again.commit({**tree, "b": leaf(np.ones(10))}, facts(2, first)).stored < 500
    forgetful = opened(repository.store).claim("a writer without a base")
    assert forgetful.commit(tree, facts(3, first)).stored > 8000


def test_tensors_that_move(repository: Repository, writer: Writer) -> None:
    """What counts is the content: renamed, exchanged or doubled, it is there already."""
    a, b = leaf(np.arange(1000)), leaf(np.arange(1000) + 1)
    first = writer.commit({"a": a, "b": b}, facts(1))
    tree = {"a": b, "b": a, "c": leaf(np.arange(1000)), "deep": {"a": a}}
    second = writer.commit(tree, facts(2, first))
    assert second.stored == 0
    assert plain(read_state(repository.store, _manifest(repository, second))) == plain(tree)


def test_equal_tensors_of_one_checkpoint(repository: Repository, writer: Writer) -> None:
    """Zeros for every moment of an optimizer are stored once per shape and dtype."""
    tree = {f"moment{n}": leaf(np.zeros(1000)) for n in range(50)}
    tree["other-shape"] = leaf(np.zeros((10, 100)))
    commit = writer.commit(tree, facts(1))
    assert 16_000 <= commit.stored < 17_000
    assert plain(read_state(repository.store, _manifest(repository, commit))) == plain(tree)


def test_dropped_base_is_written_anew(repository: Repository, writer: Writer) -> None:
    """A writer never names a pack that was condemned, even if its bytes would do."""
    first = writer.commit({"a": leaf(np.arange(1000))}, facts(1))
    base = _manifest(repository, first)
    writer.commit({"a": leaf(np.ones(1000))}, facts(2, first))
    freed = open_repository(repository.store).drop([first.checkpoint])
    assert freed == first.stored
    writer.base_on(base)
    third = writer.commit({"a": leaf(np.arange(1000))}, facts(3, first))
    assert third.stored == first.stored
    assert not _manifest(repository, third).packs.keys() & base.packs.keys()
    assert repository.refresh().condemned == base.packs.keys()


def test_no_pack_is_ever_written_twice() -> None:
    """Names are random and used once, whatever is saved."""
    puts: list[str] = []

    class Noting(Wrapped):
        def put(self, key: str, chunks: Any, size_bytes: int) -> None:
            if key != "onward/summary.json":
                puts.append(key)
            super().put(key, chunks, size_bytes)

    writer = new_output(Noting(MemoryStore())).claim("writer")
    for step in range(20):
        writer.commit({"a": leaf(np.full(3, step % 2))}, facts(step))
    assert len(puts) == len(set(puts)) == 40


def test_state_without_tensors(repository: Repository, writer: Writer) -> None:
    """It has no pack at all."""
    commit = writer.commit({"n": 1}, facts(1))
    assert commit.stored == 0
    assert _packs(repository) == set()
    assert read_state(repository.store, _manifest(repository, commit)) == {"n": 1}
