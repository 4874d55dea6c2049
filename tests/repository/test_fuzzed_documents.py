"""Random changes of stored documents, of their bytes and of their structure."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from onward.errors import OnwardError
from onward.repository import description, open_repository, read_state, verify
from onward.repository.documents import digest_of, sealed
from onward.repository.history import History
from onward.repository.manifest import parse_manifest
from onward.repository.records import parse_record
from onward.repository.summary import SUMMARY_KEY, summary_bytes
from onward.stores import MemoryStore
from tests.repository.forging import one_checkpoint, replace_object
from tests.repository.outputs import facts, going_on, opened, scaled, state, with_three

_NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 7, 8, 2**31, 2**53 - 1, 2**53, 2**63, 2**64, 10**100, -(2**63),
    0.0, -0.0, 0.5, 1e308, 5e-324, "", "a", "0", "../..", "/", "\0", "a" * 5000, "0" * 16, "0" * 32,
    "0" * 64, "é\U0001f600", "latest", "v1", "$tensor", [], [[]], [0], {}, {"a": 1}, {"$tensor": 0},
    {"$tensor": 10**9}, {"$tuple": [1]}, {"$dict": [[[], 1]]}, {"$set": [{}]}, {"$": 1},
    {"$enum": ["a:b", "c"]}, {"$numpy": ["<f8", ""]}, {"$int": "9" * 4000},
]  # fmt: skip


def _places(value: Any, place: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document, at every depth."""
    found = [place]
    children: Any = ()
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    for key, child in children:
        found += _places(child, (*place, key))
    return found


def _changed(document: Any, chosen: random.Random) -> Any:
    """The document with something in it replaced, removed, doubled or moved."""
    changed = deepcopy(document)
    for _ in range(chosen.choice([1, 1, 1, 2, 3])):
        *above, key = chosen.choice(_places(changed)[1:])
        parent = changed
        for step in above:
            parent = parent[step]
        match chosen.randrange(5):
            case 0 | 1:
                parent[key] = deepcopy(chosen.choice(_NASTY))
            case 2:
                del parent[key]
            case 3 if isinstance(parent, list):
                parent.insert(chosen.randrange(len(parent) + 1), deepcopy(parent[key]))
            case 3:
                parent[chosen.choice(["x", "$x", "", "part", "format"])] = deepcopy(parent[key])
            case _:
                value = parent[key]
                if type(value) is int:
                    parent[key] = value + chosen.choice([-1, 1, 8, 2**20, -(2**20)])
                elif isinstance(value, str) and value:
                    at = chosen.randrange(len(value))
                    parent[key] = value[:at] + chosen.choice("0aZ/.\0é") + value[at + 1 :]
                else:
                    parent[key] = [value]
        if not _places(changed)[1:]:
            break
    return changed


def _garbled(data: bytes, chosen: random.Random) -> bytes:
    """The bytes with some of them flipped, removed, repeated, inserted or cut off."""
    changed = bytearray(data)
    for _ in range(chosen.choice([1, 1, 2, 5])):
        at = chosen.randrange(len(changed) + 1)
        match chosen.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << chosen.randrange(8)
            case 1:
                del changed[at : at + chosen.randrange(1, 20)]
            case 2:
                changed[at:at] = changed[at : at + chosen.randrange(1, 50)]
            case 3:
                changed[at:at] = chosen.choice(
                    [b"[" * 100, b'{"a":', b"NaN", b"1e999", b"\xff", b"\\ud800", b'"', b"9" * 500]
                )
            case _:
                del changed[at:]
    return bytes(changed)


def _only_typed_errors(
    act: Callable[[bytes], object], make: Callable[[random.Random], bytes], count: int, seed: int
) -> int:
    """How often `act` accepted what `make` made; any error but our own comes through."""
    accepted = 0
    refusals: list[OnwardError] = []
    for number in range(count):
        data = make(random.Random(f"{seed}/{number}"))
        try:
            act(data)
            accepted += 1
        except OnwardError as error:
            refusals.append(error)
        except Exception as error:
            raise AssertionError(f"seed {seed}, number {number}: {data[:2000]!r}") from error
    assert all(len(str(error)) < 20_000 for error in refusals)
    return accepted


@pytest.fixture(scope="module")
def store() -> MemoryStore:
    return one_checkpoint()


def _records(store: MemoryStore) -> list[dict[str, Any]]:
    """A record of each kind, without its seal."""
    repository = opened(store)
    first = repository.history.live()[0]
    going_on(repository).commit(state(2), facts(2, first))
    repository.set_alias("champion", repository.history.live()[-1].checkpoint)
    going_on(repository).commit(state(3), facts(3, first))
    repository.drop([first.checkpoint])
    records = [json.loads(store.read(e.key)) for e in store.list("onward/log/")]
    for record in records:
        del record["digest"]
    return records


@pytest.mark.parametrize("form", ["bytes", "structure"])
def test_changed_records(form: str) -> None:
    """Only typed errors; what is accepted folds, or is refused by the fold, just so."""
    records = _records(one_checkpoint())

    def make(chosen: random.Random) -> bytes:
        record = chosen.choice(records)
        if form == "structure":
            try:
                return sealed(_changed(record, chosen))
            except (UnicodeEncodeError, TypeError):
                return b""
        return _garbled(sealed(record), chosen)

    def read(data: bytes) -> None:
        seq = re.search(rb'"seq":([0-9]{1,5})[,}]', data)
        record = parse_record(data, int(seq[1]) if seq else 0)
        History(seq=record.seq - 1, head_digest=record.prev).apply(record, digest_of(data))

    _only_typed_errors(read, make, scaled(3000, 1_000_000), seed=1)


@pytest.mark.parametrize("form", ["bytes", "structure"])
def test_changed_manifests(store: MemoryStore, form: str) -> None:
    """Only typed errors; what is accepted is described and read, or refused when it is read."""
    repository = open_repository(store)
    (commit,) = repository.history.live()
    whole = store.read(f"onward/manifests/{commit.checkpoint}.json")
    document = json.loads(whole)

    def make(chosen: random.Random) -> bytes:
        if form == "structure":
            return json.dumps(_changed(document, chosen)).encode()
        return _garbled(whole, chosen)

    def read(data: bytes) -> None:
        manifest = parse_manifest(data, commit.checkpoint)
        description(manifest)
        read_state(store, manifest)

    accepted = _only_typed_errors(read, make, scaled(2500, 1_000_000), seed=3)
    assert accepted > 0  # it is not all refused for the same reason


@pytest.mark.parametrize("form", ["bytes", "structure"])
def test_changed_summaries(form: str) -> None:
    """Whatever the summary says, opening works, and the names it leads to can be asked for."""
    store = MemoryStore()
    repository = with_three(store)
    whole = summary_bytes(repository.history)
    document = json.loads(whole)
    del document["digest"]

    def make(chosen: random.Random) -> bytes:
        if form == "structure":
            return sealed(_changed(document, chosen))
        return _garbled(whole, chosen)

    def read(data: bytes) -> None:
        replace_object(store, SUMMARY_KEY, data)
        opened_now = open_repository(store)
        history = opened_now.history
        for name in ("latest", "champion", "v1", "0123", "best"):
            try:
                history.resolve(name, metric="loss")
            except OnwardError:
                continue
        for commit in history.live():
            history.names_of(commit.checkpoint)
            opened_now.damage(commit)

    _only_typed_errors(read, make, scaled(300, 100_000), seed=4)


def test_changed_outputs() -> None:
    """Changes anywhere in a whole output: opening, restoring and verifying raise only our own."""
    original = MemoryStore()
    with_three(original)
    objects = {entry.key: original.read(entry.key) for entry in original.list("")}

    def change(chosen: random.Random) -> bytes:
        return chosen.randbytes(8)

    def read(data: bytes) -> None:
        chosen = random.Random(data)
        store = MemoryStore()
        for key, content in objects.items():
            store.create(key, content)
        for _ in range(chosen.randrange(1, 4)):
            key = chosen.choice(sorted(objects))
            match chosen.randrange(4):
                case 0:
                    store.delete(key)
                case 1:
                    replace_object(store, key, objects[chosen.choice(sorted(objects))])
                case _:
                    replace_object(store, key, _garbled(objects[key], chosen))
        repository = open_repository(store)
        verify(repository, every_byte=True)
        for commit in repository.history.live():
            if not repository.damage(commit):
                read_state(store, repository.manifest(commit))

    _only_typed_errors(read, change, scaled(300, 50_000), seed=5)
