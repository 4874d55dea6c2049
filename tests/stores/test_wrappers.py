"""Behaviour added around a store: repeating, failing on purpose, and the probe."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from onward.errors import AlreadyExists, Missing, NoSpace, ReadOnly, Unreachable, UnsafeStore
from onward.stores import (
    Died,
    Fault,
    FaultPlan,
    Faulty,
    MemoryStore,
    Retrying,
    Store,
    dies,
    holding,
    honours_create,
    read_into,
)
from onward.stores.fault import When


class _Clock:
    """Time that passes only in pauses."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pauses_s: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, pause_s: float) -> None:
        self.pauses_s.append(pause_s)
        self.now_s += pause_s


def _failing(times: int, verb: str | None = None) -> tuple[MemoryStore, Faulty]:
    memory = MemoryStore()
    memory.create("a", b"1")
    return memory, Faulty(memory, FaultPlan(*[Fault(at, verb=verb) for at in range(1, times + 1)]))


def _retrying(store: Store, clock: _Clock, **options: float) -> Retrying:
    settings = {"attempts": 5, "first_pause_s": 1.0, "longest_pause_s": 4.0, "deadline_s": 100.0}
    settings |= options
    return Retrying(
        store,
        attempts=int(settings.pop("attempts")),
        **settings,
        clock=clock,
        sleep=clock.sleep,
        random=lambda: 0.5,
    )


def _into_memory(store: Store) -> bytes:
    memory = bytearray(2)
    with holding(store, ["a"]) as held:
        return bytes(memory[: read_into(held, "a", 0, memoryview(memory))])


_REPEATED: dict[str, Callable[[Store], object]] = {
    "read": lambda store: store.read("a"),
    "read into memory": _into_memory,
    "size": lambda store: store.size("a"),
    "list": lambda store: [*store.list("")],
    "put": lambda store: store.put("a", [b"1"], 1),
    "delete": lambda store: store.delete("b"),
}


@pytest.mark.parametrize("verb", _REPEATED)
def test_verb_that_can_be_repeated(verb: str) -> None:
    """It is repeated with doubling, capped pauses, and its answer is that of the store."""
    memory, faulty = _failing(4, verb.partition(" ")[0])
    clock = _Clock()
    assert _REPEATED[verb](_retrying(faulty, clock)) == _REPEATED[verb](memory)
    assert clock.pauses_s == [0.5, 1.0, 2.0, 2.0]


def test_create_is_never_repeated() -> None:
    """Its first try may have been stored: only the caller can tell."""
    _, faulty = _failing(1, "create")
    with pytest.raises(Unreachable):
        _retrying(faulty, _Clock()).create("b", b"1")
    assert faulty.plan.count("create") == 1


def test_put_from_an_iterator_is_not_repeated() -> None:
    """Its chunks are used up."""
    memory, faulty = _failing(1, "put")
    with pytest.raises(Unreachable):
        _retrying(faulty, _Clock()).put("b", iter([b"1"]), 1)
    assert faulty.plan.count("put") == 1
    _retrying(faulty, _Clock()).put("b", iter([b"1"]), 1)
    assert memory.read("b") == b"1"


def test_attempts_are_used_up() -> None:
    """The last error is raised as it came."""
    _, faulty = _failing(9)
    clock = _Clock()
    with pytest.raises(Unreachable, match="on purpose"):
        _retrying(faulty, clock, attempts=3).read("a")
    assert faulty.plan.count() == 3
    assert len(clock.pauses_s) == 2


def test_deadline_comes_first() -> None:
    """No pause goes beyond the deadline."""
    _, faulty = _failing(9)
    clock = _Clock()
    with pytest.raises(Unreachable):
        _retrying(faulty, clock, deadline_s=2.0).read("a")
    assert clock.pauses_s == [0.5, 1.0]


@pytest.mark.parametrize("error", [ReadOnly, NoSpace, UnsafeStore, Missing, AlreadyExists, Died])
def test_other_errors_are_not_repeated(error: type[BaseException]) -> None:
    """Trying again helps only where the store did not answer."""
    faulty = Faulty(MemoryStore(), FaultPlan(Fault(1, error=lambda: error("no"))))
    with pytest.raises(error):
        _retrying(faulty, _Clock()).read("a")
    assert faulty.plan.count() == 1


def test_fault_before_the_effect() -> None:
    """The chosen call fails and does nothing; the others do what they always do."""
    memory = MemoryStore()
    faulty = Faulty(memory, FaultPlan(Fault(2)))
    faulty.create("a", b"1")
    with pytest.raises(Unreachable):
        faulty.create("b", b"1")
    faulty.create("b", b"2")
    assert memory.read("b") == b"2"


def test_fault_after_the_effect() -> None:
    """The chosen call works and its reply is lost, even if that was an error."""
    memory = MemoryStore()
    faulty = Faulty(memory, FaultPlan(Fault(1, "after", "create"), Fault(1, "after", "read")))
    with pytest.raises(Unreachable):
        faulty.create("a", b"1")
    assert memory.read("a") == b"1"
    with pytest.raises(Unreachable):
        faulty.read("nothing")


@pytest.mark.parametrize(("when", "stored"), [("before", ["a"]), ("after", ["a", "b"])])
def test_death(when: When, stored: list[str]) -> None:
    """The dead stay dead: no later call has an effect, whatever the verb that died."""
    memory = MemoryStore()
    faulty = Faulty(memory, FaultPlan(dies(2, when=when, verb="put")))
    faulty.put("a", [b"1"], 1)
    for act in (
        lambda: faulty.put("b", [b"1"], 1),
        lambda: faulty.put("c", [b"1"], 1),
        lambda: faulty.delete("a"),
        lambda: [*faulty.list("")],
    ):
        with pytest.raises(Died):
            act()
    assert sorted(entry.key for entry in memory.list("")) == stored


def test_trace() -> None:
    """Every call is counted and remembered, in order."""
    faulty = Faulty(MemoryStore())
    faulty.create("a", b"1")
    faulty.read("a")
    faulty.size("a")
    assert [*faulty.list("")] != []
    faulty.put("a", [], 0)
    faulty.delete("a")
    verbs = ["create", "read", "size", "list", "put", "delete"]
    assert [call.verb for call in faulty.plan.calls] == verbs
    assert faulty.plan.count() == 6
    assert faulty.plan.count("read") == 1
    assert faulty.url == "memory://store"


class _Ignoring(MemoryStore):
    """Takes every create."""

    def create(self, key: str, data: bytes) -> None:
        self.put(key, [data], len(data))


class _Racing(MemoryStore):
    """Looks, waits until all have looked, then stores."""

    def __init__(self) -> None:
        super().__init__()
        self._all_looked = threading.Barrier(4)

    def create(self, key: str, data: bytes) -> None:
        taken = any(True for _ in self.list(key))
        if threading.current_thread() is not threading.main_thread():
            self._all_looked.wait(10)
        if taken:
            raise AlreadyExists(key)
        self.put(key, [data], len(data))


class _Refusing(MemoryStore):
    """Does not know the condition."""

    def create(self, key: str, data: bytes) -> None:
        raise UnsafeStore("501")


@pytest.mark.parametrize("kind", [_Ignoring, _Racing, _Refusing])
def test_probe_of_a_store_that_does_not_keep_the_promise(kind: type[MemoryStore]) -> None:
    """Ignoring, racing and refusing are all found out, and nothing is left behind."""
    store = kind()
    assert honours_create(store) is False
    assert [*store.list("")] == []


@pytest.mark.parametrize("error", [Unreachable, ReadOnly, NoSpace])
@pytest.mark.parametrize("at", [1, 2, 4])
def test_probe_of_a_store_in_trouble(error: type[Exception], at: int) -> None:
    """Trouble is raised: it says nothing about the promise."""
    plan = FaultPlan(Fault(at, verb="create", error=lambda: error("no")))
    with pytest.raises(error):
        honours_create(Faulty(MemoryStore(), plan))


def test_probe_that_may_not_delete() -> None:
    """Its answer stands even if its few bytes must stay."""
    memory = MemoryStore()
    plan = FaultPlan(*[Fault(at, verb="delete", error=lambda: ReadOnly("no")) for at in (1, 2, 3)])
    assert honours_create(Faulty(memory, plan), prefix="elsewhere/") is True
    assert all(entry.key.startswith("elsewhere/") for entry in memory.list(""))
