"""The promise of `Store`, which every store keeps."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from onward.errors import AlreadyExists, BadURL, Missing, StoreError
from onward.stores import (
    Chunk,
    Faulty,
    LocalStore,
    MemoryStore,
    ReadsInto,
    Retrying,
    Store,
    holding,
    honours_create,
    read_into,
)
from tests.servers import S3Server

_fresh = count()
_BAD_KEYS = ["", "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/./b", "a\\b", "a\nb", "a\0b"]
_ODD_KEYS = [
    "modèle/größe 1.bin",
    "模型/检查点-1.json",
    "🚂/t.bin",
    "e\u0301/decomposed",
    "a b/.hidden",
    "100%25/#1?x=y&z",
    "~a/[b]{c}*'(d)!@$+,;=:",
]


@pytest.fixture(
    params=[
        "memory",
        "local",
        pytest.param("seaweedfs", marks=pytest.mark.servers),
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path / "store")
    server: S3Server = request.getfixturevalue("seaweedfs")
    return server.store(f"contract/{next(_fresh)}")


def keys(store: Store, prefix: str = "") -> list[str]:
    return sorted(entry.key for entry in store.list(prefix))


def test_created_object_reads_back(store: Store) -> None:
    """What was created is there, whole, with its length."""
    store.create("a", b"hello")
    assert store.read("a") == b"hello"
    assert store.size("a") == 5


def test_create_where_something_is(store: Store) -> None:
    """A second create of a key raises `AlreadyExists` and changes nothing."""
    store.create("log/0.json", b"first")
    with pytest.raises(AlreadyExists):
        store.create("log/0.json", b"second")
    assert store.read("log/0.json") == b"first"


def test_create_where_put_has_been(store: Store) -> None:
    """It does not matter how the key came to be taken."""
    store.put("a", [b"put"], 3)
    with pytest.raises(AlreadyExists):
        store.create("a", b"second")
    assert store.read("a") == b"put"


def test_create_after_delete(store: Store) -> None:
    """A deleted key can be created again."""
    store.create("a", b"first")
    store.delete("a")
    store.create("a", b"second")
    assert store.read("a") == b"second"


def test_sixteen_creators_of_one_key(store: Store) -> None:
    """Of sixteen at once exactly one succeeds, and its bytes are the ones that stay."""
    start = threading.Barrier(16)

    def create(writer: int) -> bool:
        start.wait()
        try:
            store.create("race", b"writer %d" % writer)
        except AlreadyExists:
            return False
        return True

    with ThreadPoolExecutor(16) as threads:
        won = [*threads.map(create, range(16))]
    assert won.count(True) == 1
    assert store.read("race") == b"writer %d" % won.index(True)


def test_probe_of_an_honest_store(store: Store) -> None:
    """The probe says yes, and leaves nothing behind."""
    assert honours_create(store) is True
    assert keys(store) == []


def test_put_replaces(store: Store) -> None:
    """Put stores the new object in place of the old one, longer or shorter; its version moves."""
    store.put("a", [b"a longer one"], 12)
    (before,) = store.list("")
    store.put("a", [b"short"], 5)
    (after,) = store.list("")
    assert store.read("a") == b"short"
    assert after.size_bytes == 5
    assert after.version != before.version


def test_put_of_many_kinds_of_chunks(store: Store) -> None:
    """Chunks are bytes, bytearrays and memoryviews of any element type, some of them empty."""
    numbers = memoryview(bytearray(range(16))).cast("I")
    chunks: list[Chunk] = [b"ab", b"", bytearray(b"cd"), memoryview(b"ef"), numbers]
    store.put("a", chunks, 22)
    assert store.read("a") == b"abcdef" + bytes(range(16))


def test_put_from_a_generator_that_reuses_its_buffer(store: Store) -> None:
    """A chunk is done with when the next one is asked for."""

    def chunks() -> Iterator[bytearray]:
        buffer = bytearray(1 << 20)
        for number in range(20):
            buffer[:] = bytes([number]) * len(buffer)
            yield buffer

    store.put("a", chunks(), 20 << 20)
    data = store.read("a")
    assert all(
        data[number << 20 : (number + 1) << 20].count(number) == 1 << 20 for number in range(20)
    )


@pytest.mark.parametrize("promised", [0, 4, 6, 20 << 20])
def test_put_of_another_length_than_promised(store: Store, promised: int) -> None:
    """Too many or too few bytes are refused, and the key keeps what it held."""
    store.put("a", [b"before"], 6)
    with pytest.raises(StoreError, match="promised"):
        store.put("a", [b"12", b"345"], promised)
    assert store.read("a") == b"before"
    assert keys(store) == ["a"]


@pytest.mark.parametrize("size_bytes", [10, 20 << 20])
def test_put_whose_source_fails(store: Store, size_bytes: int) -> None:
    """The source's own error comes through as it is; nothing is stored, nothing is left."""

    def chunks() -> Iterator[bytes]:
        yield b"x" * (size_bytes - 5)
        raise FileNotFoundError("the source is gone")

    with pytest.raises(FileNotFoundError, match="the source is gone"):
        store.put("a", chunks(), size_bytes)
    assert keys(store) == []


def test_empty_object(store: Store) -> None:
    """An object may be empty, created or put, and then it is there."""
    store.create("created", b"")
    store.put("put", [], 0)
    for key in ("created", "put"):
        assert store.read(key) == b""
        assert store.read(key, 0, 10) == b""
        assert store.size(key) == 0
    assert keys(store) == ["created", "put"]


@pytest.mark.parametrize("size_bytes", [(8 << 20) - 1, 8 << 20, (8 << 20) + 1, (20 << 20) + 12345])
def test_large_object(store: Store, size_bytes: int) -> None:
    """Around and beyond the size of an upload's parts, every byte comes back."""
    data = random.Random(size_bytes).randbytes(size_bytes)
    odd = 3 << 20
    store.put("big", [data[at : at + odd] for at in range(0, size_bytes, odd)], size_bytes)
    assert store.size("big") == size_bytes
    assert store.read("big") == data
    assert store.read("big", size_bytes - 1000) == data[-1000:]
    assert store.read("big", (8 << 20) - 500, 1000) == data[(8 << 20) - 500 :][:1000]


def test_ranges(store: Store) -> None:
    """A range gives what there is of it, down to nothing at all."""
    data = bytes(range(100))
    store.put("a", [data], 100)
    for start in (0, 1, 50, 99, 100, 101, 1000):
        assert store.read("a", start) == data[start:]
        for size_bytes in (0, 1, 50, 100, 1000):
            assert store.read("a", start, size_bytes) == data[start : start + size_bytes]


class _OnlyReads:
    """A store that offers nothing beyond the promise."""

    def __init__(self, store: Store) -> None:
        self.url, self.read, self.size = store.url, store.read, store.size


_WAYS: dict[str, Callable[[Store], Store]] = {
    "itself": lambda store: store,
    "without": lambda store: _OnlyReads(store),  # type: ignore[arg-type, return-value]
    "wrapped": lambda store: Retrying(Faulty(store)),
    "wrapped without": lambda store: Retrying(Faulty(_OnlyReads(store))),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("way", _WAYS)
def test_ranges_into_memory(store: Store, way: str) -> None:
    """A range fills what it can of the caller's memory, and nothing behind that."""
    assert isinstance(store, ReadsInto)
    data = bytes(range(100))
    store.put("a", [data], 100)
    through = _WAYS[way](store)
    for start in (0, 1, 50, 99, 100, 101, 1000):
        for size_bytes in (0, 1, 50, 100, 1000):
            memory = bytearray(b"~" * (size_bytes + 5))
            expected = data[start : start + size_bytes]
            have = read_into(through, "a", start, memoryview(memory)[:size_bytes])
            assert have == len(expected)
            assert memory == expected + b"~" * (len(memory) - have)


@pytest.mark.parametrize("way", _WAYS)
def test_range_of_an_absent_key_into_memory(store: Store, way: str) -> None:
    """It raises `Missing` or `BadURL` as reading does, also for no bytes at all."""
    store.create("a/c", b"1")
    for size_bytes in (0, 10):
        target = memoryview(bytearray(size_bytes))
        for key, error in (("a/b", Missing), ("a", Missing), ("../a", BadURL)):
            with pytest.raises(error):
                read_into(_WAYS[way](store), key, 0, target)


def test_large_range_into_memory(store: Store) -> None:
    """Every byte of a range beyond the size of an upload's parts arrives in its place."""
    data = random.Random(3).randbytes((20 << 20) + 12345)
    store.put("big", [data], len(data))
    memory = bytearray(len(data))
    assert read_into(store, "big", 1000, memoryview(memory)) == len(data) - 1000
    assert memory[: len(data) - 1000] == data[1000:]


@pytest.mark.parametrize("way", _WAYS)
def test_holding(store: Store, way: str) -> None:
    """A store that holds keys answers as before; what is absent is missing when it is asked for."""
    store.put("a", [b"first"], 5)
    with holding(_WAYS[way](store), ["a", "absent", "a"]) as held:
        assert held.url == store.url
        assert held.size("a") == 5
        assert held.read("a", 1) == b"irst"
        memory = bytearray(3)
        assert read_into(held, "a", 1, memoryview(memory)) == 3
        assert memory == b"irs"
        with pytest.raises(Missing):
            held.size("absent")
        with pytest.raises(Missing):
            read_into(held, "absent", 0, memoryview(memory))
    with pytest.raises(BadURL), holding(store, ["../a"]) as held:
        held.size("../a")


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.read("a/b"),
        lambda store: store.read("a/b", 0, 0),
        lambda store: store.read("a/b", 5, 5),
        lambda store: store.read("a/b", 5),
        lambda store: store.size("a/b"),
        lambda store: store.read("near"),
        lambda store: store.size("near"),
    ],
)
def test_absent_key(store: Store, ask: Callable[[Store], object]) -> None:
    """Reading what is not there raises `Missing`, even where keys below or beside it exist."""
    store.create("a/c", b"1")
    store.create("near/by", b"1")
    with pytest.raises(Missing):
        ask(store)


def test_list_of_a_prefix(store: Store) -> None:
    """A listing gives what starts with the prefix, in folders or in the middle of a name."""
    for key in ("log/1", "log/10", "log/2", "logs", "manifests/a/b/c", "top"):
        store.put(key, [key.encode()], len(key))
    assert keys(store, "") == ["log/1", "log/10", "log/2", "logs", "manifests/a/b/c", "top"]
    assert keys(store, "log/") == ["log/1", "log/10", "log/2"]
    assert keys(store, "log/1") == ["log/1", "log/10"]
    assert keys(store, "log") == ["log/1", "log/10", "log/2", "logs"]
    assert keys(store, "manifests/a/") == ["manifests/a/b/c"]
    assert keys(store, "manifests/a/b/c") == ["manifests/a/b/c"]
    assert keys(store, "nothing/") == []
    assert {entry.size_bytes for entry in store.list("top")} == {3}


def test_list_of_a_store_in_which_nothing_was_ever_stored(store: Store) -> None:
    """An empty store lists nothing, and that is not an error."""
    assert keys(store) == []
    assert keys(store, "onward/log/") == []


def test_put_from_another_object_of_the_same_store(store: Store) -> None:
    """A source may read from the very store, piece by piece, while it is being stored."""
    data = random.Random(7).randbytes(20 << 20)
    store.put("from", [data], len(data))
    pieces = (store.read("from", start, 5 << 20) for start in range(0, len(data), 5 << 20))
    store.put("to", pieces, len(data))
    assert store.read("to") == data


def test_list_while_a_put_is_under_way(store: Store) -> None:
    """What is being written is not there yet."""
    seen: list[list[str]] = []

    def chunks() -> Iterator[bytes]:
        for _ in range(3):
            yield b"x" * (8 << 20)
            seen.append(keys(store))

    store.put("a", chunks(), 24 << 20)
    assert seen == [[], [], []]
    assert keys(store) == ["a"]


def test_put_over_an_object_that_is_read_meanwhile(store: Store) -> None:
    """Readers see the old object or the new one, never a mixture."""
    store.put("a", [b"0" * 1000], 1000)
    done = threading.Event()
    seen: set[bytes] = set()

    def read() -> None:
        while not done.is_set():
            seen.add(store.read("a"))

    with ThreadPoolExecutor(2) as threads:
        reading = threads.submit(read)
        for number in range(1, 30):
            store.put("a", [b"%d" % (number % 10)] * 1000, 1000)
        done.set()
        reading.result()
    assert all(len(data) == 1000 and len(set(data)) == 1 for data in seen)


def test_delete(store: Store) -> None:
    """A deleted object is gone; its neighbours are not."""
    store.create("a/b", b"1")
    store.create("a/c", b"2")
    store.delete("a/b")
    assert keys(store) == ["a/c"]
    with pytest.raises(Missing):
        store.read("a/b")


@pytest.mark.parametrize("key", ["nothing", "no/such/folder", "a", "a/b/c"])
def test_delete_of_what_is_absent(store: Store, key: str) -> None:
    """Deleting nothing is not an error, and deletes nothing."""
    store.create("a/b", b"1")
    store.delete(key)
    assert keys(store) == ["a/b"]


@pytest.mark.parametrize("key", _BAD_KEYS)
def test_bad_key(store: Store, key: str) -> None:
    """A key that is no plain relative path is refused by every verb."""
    for verb in (
        lambda: store.create(key, b""),
        lambda: store.put(key, [], 0),
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.delete(key),
    ):
        with pytest.raises(BadURL):
            verb()


@pytest.mark.parametrize("prefix", ["/", "/a", "../", "a/../b", "a//b", "a\\b", "..//"])
def test_bad_prefix(store: Store, prefix: str) -> None:
    """A prefix that no key can start with is refused."""
    with pytest.raises(BadURL):
        list(store.list(prefix))


@pytest.mark.parametrize("key", _ODD_KEYS)
def test_odd_but_valid_key(store: Store, key: str) -> None:
    """Spaces, any script and punctuation come back in a listing exactly as they were given."""
    store.create(key, b"created")
    assert store.read(key) == b"created"
    store.put(key, [b"put"], 3)
    assert store.read(key, 0, 3) == b"put"
    assert keys(store) == [key]
    assert keys(store, key.rpartition("/")[0] + "/") == [key]
    store.delete(key)
    assert keys(store) == []


def test_nested_keys(store: Store) -> None:
    """Folders need no making, however deep."""
    key = "/".join(f"level{depth}" for depth in range(20))
    store.create(key, b"deep")
    assert store.read(key) == b"deep"
    assert keys(store) == [key]


def test_url_of_a_store(store: Store) -> None:
    """A store says where it is."""
    assert store.url
    assert "?" not in store.url
