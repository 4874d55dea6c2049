"""Every byte of an output changed, one at a time: found, or provably not needed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, OnwardError
from onward.repository import Repository, filling, open_repository, pack_key, read_state, verify
from onward.repository import log as log_module
from onward.stores import MemoryStore
from tests.repository.forging import replace_object
from tests.repository.outputs import (
    FULL,
    Picture,
    facts,
    filled,
    leaf,
    look,
    new_output,
    objects,
    plain,
    with_three,
)
from tests.repository.test_parts import Workshop

Objects = dict[str, bytes]


@pytest.fixture(scope="module")
def original() -> Objects:
    """A small output: two checkpoints that share a tensor, an alias last of all."""
    store = MemoryStore()
    repository = new_output(store)
    writer = repository.claim("writer")
    shared = leaf(np.arange(3, dtype=np.int16))
    first = writer.commit({"w": shared, "n": 1}, facts(1, metrics={"loss": 0.5}))
    writer.commit({"w": shared, "v": leaf(np.float32(0.5))}, facts(2, first))
    repository.set_alias("champion", first.checkpoint)
    return objects(store)


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Quicker, where there is nothing to wait for."""
    monkeypatch.setattr(log_module, "_THREADS", 1)
    monkeypatch.setattr(filling, "_THREADS", 1)


def _masks(key: str, at: int) -> list[int]:
    """Which bits are flipped in this byte: all, or one, in manifests that of every third byte."""
    if FULL:
        return [1 << bit for bit in range(8)]
    if "/manifests/" in key and at % 3:
        return []  # whose digest is one for all their bytes
    return [1 << random.Random(f"{key}/{at}").randrange(8)]


def _flipped(original: Objects) -> Iterator[tuple[str, Objects]]:
    for key, data in original.items():
        for at in range(len(data)):
            for mask in _masks(key, at):
                changed = bytearray(data)
                changed[at] ^= mask
                yield f"{key}, byte {at}, mask {mask:02x}", {**original, key: bytes(changed)}


def _restored(repository: Repository) -> tuple[Picture, list[OnwardError]]:
    """What restoring gives, checkpoint by checkpoint, and what it raises."""
    history = repository.history
    checkpoints: dict[int, Any] = {}
    errors: list[OnwardError] = []
    for commit in history.live():
        try:
            manifest = repository.manifest(commit)
            checkpoints[commit.step] = plain(read_state(repository.store, manifest))
        except OnwardError as error:
            errors.append(error)
    aliases = {name: history.commits[id_].step for name, id_ in history.aliases.items()}
    return Picture(checkpoints, aliases, history.generation), errors


def _silent(what: str, changed: Objects, right: Picture) -> str:
    """What went wrong without a word, or ''."""
    try:
        repository = open_repository(filled(changed))
    except OnwardError:
        return ""
    found, errors = _restored(repository)
    wrong = {s: t for s, t in found.checkpoints.items() if right.checkpoints.get(s) != t}
    if wrong:
        return f"{what}: steps {list(wrong)} load wrong"
    if found.aliases.items() - right.aliases.items():
        return f"{what}: a name means another checkpoint"
    if not errors and found != right:
        return f"{what}: restores {found} and says nothing"
    findings = verify(repository, every_byte=True)
    if errors and findings.intact:
        return f"{what}: `verify` does not see {errors}"
    if findings.intact and what.split(",")[0] != "onward/summary.json":
        return f"{what}: `verify` sees nothing"
    return ""


def test_flipped_bits(original: Objects) -> None:
    """Restoring never gives anything but what was saved, and `verify` sees every single flip."""
    right = look(filled(original))
    wrong = [_silent(what, changed, right) for what, changed in _flipped(original)]
    assert [each for each in wrong if each] == []
    assert len(wrong) > 2000


def test_flipped_bits_of_row_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for each byte of packs whose tensor was patched, whatever a piece is."""
    workshop = Workshop(packs=2)
    base, rows = np.arange(12.0).reshape(6, 2), np.array([1, 3, 4])
    pieces = [workshop.piece(each) for each in (base, rows, -np.ones((3, 2)), rows[1:], base[:2])]

    def parts(ranges: Any) -> list[dict[str, Any]]:
        b, i, p, j, q = (ranges(number) for number in pieces)
        return [
            {"part": "full", "range": b},
            {"part": "rows", "count": 3, "index": i, "rows": p},
            {"part": "rows", "count": 2, "index": j, "rows": q},
        ]

    whole = base.copy()
    whole[rows] = -1
    whole[rows[1:]] = base[:2]
    workshop.make(whole, parts, digest=None)
    patched = objects(workshop.store)
    right = look(filled(patched))
    flips = [(what, changed) for what, changed in _flipped(patched) if "/packs/" in what]
    for piece in (8 << 20, 9):
        monkeypatch.setattr(filling, "_PIECE_BYTES", piece)
        wrong = [_silent(what, changed, right) for what, changed in flips]
        assert [each for each in wrong if each] == []
    assert len(flips) > 500


def test_truncations(original: Objects) -> None:
    """The same for every object cut off anywhere, gone, or longer than it was.

    A log whose last records are gone altogether is an older log: nothing can tell but a copy.
    """
    right = look(filled(original))
    chosen = random.Random(7)
    wrong: list[str] = []
    for key, data in original.items():
        lengths = range(len(data)) if FULL else sorted(chosen.sample(range(len(data)), 25))
        for length in lengths:
            changed = {**original, key: data[:length]}
            wrong.append(_silent(f"{key}, {length} bytes", changed, right))
        wrong.append(_silent(f"{key}, longer", {**original, key: data + b"\0"}, right))
        if key != max(k for k in original if "/log/" in k):
            gone = {k: d for k, d in original.items() if k != key}
            wrong.append(_silent(f"{key}, gone", gone, right))
    assert [each for each in wrong if each] == []


def test_objects_that_were_exchanged(original: Objects) -> None:
    """A whole, proper object under another one's key is found too."""
    right = look(filled(original))
    for key in original:
        for other in original:
            if key != other:
                changed = {**original, key: original[other]}
                assert _silent(f"{key}, from {other}", changed, right) == ""


def test_summary_that_rots() -> None:
    """It is never needed: whatever becomes of it, the log is read and says the same."""
    store = MemoryStore()
    repository = with_three(store)
    while repository.history.seq < log_module.SUMMARY_EVERY + 2:
        repository.set_alias("name", repository.history.live()[0].checkpoint)
    whole = store.read("onward/summary.json")
    right = look(store)
    for at in range(0, len(whole), 1 if FULL else 17):
        changed = bytearray(whole)
        changed[at] ^= 1 << random.Random(at).randrange(8)
        replace_object(store, "onward/summary.json", bytes(changed))
        assert _restored(open_repository(store)) == (right, [])
    for length in range(0, len(whole), 1 if FULL else 97):
        replace_object(store, "onward/summary.json", whole[:length])
        assert _restored(open_repository(store)) == (right, [])


def test_damage_names_the_tensor() -> None:
    """Of a large checkpoint it is told which tensor is damaged, by restoring and by `verify`."""
    store = MemoryStore()
    tree = {"model": {f"layer{n}": leaf(np.full(100, n)) for n in range(20)}}
    repository = new_output(store)
    commit = repository.claim("writer").commit(tree, facts(1))
    manifest = repository.manifest(commit)
    found = next(t for t in manifest.tensors if t.path == "model/layer13").parts[0].range  # type: ignore[union-attr]
    whole = bytearray(store.read(pack_key(found.pack)))
    whole[found.offset + 399] ^= 1
    replace_object(store, pack_key(found.pack), bytes(whole))

    with pytest.raises(Damaged, match=r"tensor model/layer13 is damaged") as caught:
        read_state(store, manifest)
    assert found.pack in str(caught.value)
    assert "onward verify" in str(caught.value)
    damaged = verify(repository, every_byte=True).damaged[commit.checkpoint]
    assert "tensor model/layer13 is damaged" in damaged
    assert not any("layer12" in reason and "is damaged" in reason for reason in damaged)
    assert verify(repository).intact, "lengths alone cannot tell"
    assert set(read_state(store, manifest, keys=["nothing"])) == set()


@pytest.mark.parametrize("left", [0, 8, 700])
def test_truncated_pack_names_the_tensor(left: int) -> None:
    """Cut off or gone: a tensor that it takes away is named, before anything is read."""
    store = MemoryStore()
    repository = new_output(store)
    tree = {"a": leaf(np.arange(100)), "b": leaf(np.arange(200, 300))}
    commit = repository.claim("writer").commit(tree, facts(1))
    manifest = repository.manifest(commit)
    (pack,) = manifest.packs
    replace_object(store, pack_key(pack), store.read(pack_key(pack), 0, left))
    with pytest.raises(Damaged, match=f"tensor b is cut off: pack {pack}"):
        read_state(store, manifest)
    assert (
        repository.damage(commit)
        == f"pack {pack} has {left} of {manifest.packs[pack].size:,} bytes"
    )
    (reason,) = verify(repository).damaged[commit.checkpoint]
    assert reason.endswith("(it holds a, b)")
    store.delete(pack_key(pack))
    with pytest.raises(Damaged, match=f"tensor b is missing: there is no pack {pack}"):
        read_state(store, manifest)
    assert repository.damage(commit) == f"pack {pack} is missing"


def test_tensor_that_changed_while_it_was_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that trains on during a save makes a pack that is whole and a tensor that is not:
    `verify` must say so, as restoring does.
    """
    store = MemoryStore()
    repository = new_output(store)
    values = np.arange(100)
    tree = {"a": leaf(values), "b": leaf(values + 1)}
    writer = repository.claim("writer")
    put = store.put

    def train_on(key: str, chunks: Any, size_bytes: int) -> None:
        tree["b"].data[5] ^= 1  # type: ignore[index]
        put(key, chunks, size_bytes)

    monkeypatch.setattr(store, "put", train_on)
    commit = writer.commit(tree, facts(1))
    with pytest.raises(Damaged, match="tensor b is damaged"):
        read_state(store, repository.manifest(commit))
    damaged = verify(repository, every_byte=True).damaged
    pack, tensor = damaged[commit.checkpoint]
    assert "has changed bytes" in pack
    assert tensor == "tensor b is damaged"


@pytest.mark.parametrize("module", [filling, log_module])
def test_reader_that_checks_less_is_found_out(
    original: Objects, monkeypatch: pytest.MonkeyPatch, module: Any
) -> None:
    """The checks above have teeth: leaving out digests of tensors, or of records, is found."""
    right = look(filled(original))
    if module is filling:
        key = next(key for key in original if "/packs/" in key)
        monkeypatch.setattr(filling, "_agrees", lambda hasher, digest: True)
    else:
        key = max(key for key in original if "/log/" in key)
        monkeypatch.setattr("onward.repository.records.check_seal", lambda data, name: None)
    flips = [(what, changed) for what, changed in _flipped(original) if what.startswith(key)]
    assert any(_silent(what, changed, right) for what, changed in flips)
