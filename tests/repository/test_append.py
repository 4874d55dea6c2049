"""Appending a record when the store's answers are lost, late, wrong or missing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest

from onward.errors import (
    AlreadyExists,
    Damaged,
    Indeterminate,
    Missing,
    NoSpace,
    OnwardError,
    StoreError,
    UnknownCheckpoint,
    Unreachable,
    Unstorable,
)
from onward.repository import Repository, Writer, open_repository, record_key
from onward.stores import Fault, FaultPlan, Faulty, MemoryStore, Store
from tests.repository.outputs import (
    Clock,
    Meanwhile,
    Wrapped,
    at_step,
    facts,
    going_on,
    look,
    opened,
    records_of,
    state,
    with_three,
)

_BEFORE = ["open", "claim", "commit", "commit", "commit", "alias"]


class Odd(Wrapped):
    """A store whose next calls are replaced by a test; each replacement is used once."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.creates: list[Callable[[str, bytes], None]] = []
        self.reads: list[Callable[[str], bytes]] = []
        self.always_read: Callable[[str], bytes] | None = None
        self.always_create: Callable[[str, bytes], None] | None = None

    def create(self, key: str, data: bytes) -> None:
        act = self.creates.pop(0) if self.creates else self.always_create or self.store.create
        act(key, data)

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        if self.reads:
            return self.reads.pop(0)(key)
        if self.always_read is not None:
            return self.always_read(key)
        return self.store.read(key, start, size_bytes)

    def heal(self) -> None:
        self.creates.clear()
        self.reads.clear()
        self.always_read = self.always_create = None


@pytest.fixture
def memory() -> MemoryStore:
    store = MemoryStore()
    with_three(store)
    return store


@pytest.fixture
def odd(memory: MemoryStore) -> Odd:
    return Odd(memory)


@pytest.fixture
def repository(odd: Odd) -> Repository:
    return opened(odd)


@pytest.fixture
def writer(repository: Repository) -> Writer:
    return going_on(repository)


def _silence(*_: Any) -> Any:
    raise Unreachable("silence, on purpose")


def _save(writer: Writer, step: int) -> None:
    assert writer.commit(state(step), facts(step, writer.history.latest())).step == step


def _steps(store: Store) -> list[int]:
    return list(look(store).checkpoints)


# --- lost replies


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_reply_that_was_lost(memory: MemoryStore, lost: int) -> None:
    """What was performed is a success, found by the record's own id, and is not repeated."""
    plan = FaultPlan(*[Fault(at, "after", verb="create") for at in range(1, lost + 1)])
    _save(going_on(opened(Faulty(memory, plan))), 4)
    assert records_of(memory) == [*_BEFORE, "commit"]


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_request_that_was_lost(memory: MemoryStore, lost: int) -> None:
    """What was not performed is done again, as often as it takes."""
    plan = FaultPlan(*[Fault(at, "before", verb="create") for at in range(1, lost + 1)])
    _save(going_on(opened(Faulty(memory, plan))), 4)
    assert records_of(memory) == [*_BEFORE, "commit"]


def test_store_that_repeats_a_create_by_itself(
    odd: Odd, writer: Writer, memory: MemoryStore
) -> None:
    """*Exists* is not an answer: the record in the slot is one's own, so that it is a success."""

    def twice(key: str, data: bytes) -> None:
        memory.create(key, data)
        memory.create(key, data)

    odd.always_create = twice
    _save(writer, 4)
    assert records_of(memory) == [*_BEFORE, "commit"]


def test_request_that_arrives_late(odd: Odd, writer: Writer, memory: MemoryStore) -> None:
    """A create that seemed lost lands while it is repeated: one record, one success."""
    late: list[tuple[str, bytes]] = []

    def lose(key: str, data: bytes) -> None:
        late.append((key, data))
        raise Unreachable("lost, so it seems")

    def after_the_late_one(key: str, data: bytes) -> None:
        memory.create(*late.pop())
        memory.create(key, data)

    odd.creates = [lose, after_the_late_one]
    _save(writer, 4)
    assert records_of(memory) == [*_BEFORE, "commit"]


def test_exists_although_the_slot_still_reads_as_empty(odd: Odd, writer: Writer) -> None:
    """A stale read after *exists* is asked again, not believed."""

    def exists(key: str, data: bytes) -> None:
        odd.store.create(key, data)
        odd.reads = [_missing, _missing]
        raise AlreadyExists("so it does")

    odd.creates = [exists]
    _save(writer, 4)


def _missing(key: str) -> bytes:
    raise Missing("a stale answer")


# --- no answer at all


@pytest.mark.parametrize("performed", [False, True])
def test_store_that_falls_silent(
    odd: Odd, writer: Writer, memory: MemoryStore, performed: bool
) -> None:
    """At the deadline it is unknown whether the record exists, and the error says so. The next
    append finds out and goes on, with or without it.
    """

    def fall_silent(key: str, data: bytes) -> None:
        if performed:
            odd.store.create(key, data)
        odd.always_create = odd.always_read = _silence
        raise Unreachable("silence, on purpose")

    odd.creates = [fall_silent]
    with pytest.raises(Indeterminate, match="unknown whether log record 6 was stored") as caught:
        _save(writer, 4)
    assert isinstance(caught.value.__cause__, Unreachable)

    odd.heal()
    _save(writer, 5)
    assert _steps(memory) == ([1, 2, 3, 4, 5] if performed else [1, 2, 3, 5])


def test_request_that_arrives_after_its_writer_gave_up(
    odd: Odd, writer: Writer, memory: MemoryStore
) -> None:
    """*Indeterminate* was the truth: the record turns up later, and the log goes on behind it."""
    late: list[tuple[str, bytes]] = []

    def lose(key: str, data: bytes) -> None:
        late.append((key, data))
        raise Unreachable("lost, so it seems")

    odd.always_create = lose
    with pytest.raises(Indeterminate):
        _save(writer, 4)

    def land_first(key: str, data: bytes) -> None:
        memory.create(*late[0])
        memory.create(key, data)

    odd.heal()
    odd.creates = [land_first]
    _save(writer, 5)
    assert _steps(memory) == [1, 2, 3, 4, 5]


def test_silence_lasts_no_longer_than_the_deadline(memory: MemoryStore) -> None:
    """Waiting is bounded, and its pauses grow: a store that comes back is not besieged."""
    odd = Odd(memory)
    repository = opened(odd, deadline_s=30)
    clock = repository.log._clock
    assert isinstance(clock, Clock)
    asked: list[float] = []

    def lose(key: str, data: bytes) -> None:
        asked.append(clock())
        raise Unreachable("silence, on purpose")

    odd.always_create = lose
    with pytest.raises(Indeterminate):
        repository.set_alias("name", at_step(repository, 1).checkpoint)
    assert 30 <= clock() <= 33
    assert asked[:2] == [0, 0]
    assert len(asked) < 30


def test_silence_before_anything_was_tried(odd: Odd, writer: Writer) -> None:
    """A store that is away from the start gets a plain `Unreachable`: nothing was appended."""
    odd.always_create = odd.always_read = _silence
    with pytest.raises(Unreachable):
        _save(writer, 4)
    odd.heal()
    _save(writer, 4)


# --- refusals


def test_refusal_that_was_one(odd: Odd, writer: Writer, memory: MemoryStore) -> None:
    """Where the slot is empty a refusal is raised as it is, and at once."""

    def refuse(key: str, data: bytes) -> None:
        raise NoSpace("full, on purpose")

    odd.creates = [refuse]
    with pytest.raises(NoSpace):
        _save(writer, 4)
    assert records_of(memory) == _BEFORE
    _save(writer, 5)


def test_refusal_that_was_none(odd: Odd, writer: Writer, memory: MemoryStore) -> None:
    """An error after the fact (of the last sync, say): the record is there, but not vouched for."""

    def create_and_refuse(key: str, data: bytes) -> None:
        memory.create(key, data)
        raise StoreError("the disk reports errors")

    odd.creates = [create_and_refuse]
    with pytest.raises(Indeterminate, match="the disk reports errors"):
        _save(writer, 4)
    _save(writer, 5)
    assert _steps(memory) == [1, 2, 3, 4, 5]


def test_slot_that_cannot_be_read_back(odd: Odd, writer: Writer) -> None:
    """If nobody can see who won the slot, it is unknown."""

    def create_badly(key: str, data: bytes) -> None:
        odd.reads = [_broken]
        raise AlreadyExists("somebody's")

    odd.creates = [create_badly]
    with pytest.raises(Indeterminate):
        _save(writer, 4)
    _save(writer, 5)


def _broken(key: str) -> bytes:
    raise StoreError("the disk reports errors")


# --- lost slots


def test_slot_that_somebody_else_took(memory: MemoryStore) -> None:
    """The record follows the winner's, in the next slot."""
    meanwhile = Meanwhile(memory)
    writer = going_on(opened(meanwhile))
    other = opened(memory)
    for name in ("one", "two", "three"):
        first = at_step(other, 1).checkpoint
        meanwhile.acts.append(lambda name=name, first=first: other.set_alias(name, first))
    _save(writer, 4)
    assert records_of(memory) == [*_BEFORE, "alias", "alias", "alias", "commit"]
    assert list(look(memory).aliases) == ["champion", "one", "two", "three"]


def test_name_that_somebody_else_removed_meanwhile(memory: MemoryStore) -> None:
    """A record is checked again against what won the slot before it."""
    meanwhile = Meanwhile(memory)
    repository = opened(meanwhile)
    meanwhile.acts.append(lambda: opened(memory).set_alias("champion", None))
    with pytest.raises(UnknownCheckpoint, match="no alias 'champion'"):
        repository.set_alias("champion", None)


def test_damaged_record_in_the_slot(odd: Odd, writer: Writer, memory: MemoryStore) -> None:
    """Something unreadable in the next slot stops the writer; it is never appended behind."""

    def after_rubbish(key: str, data: bytes) -> None:
        memory.create(key, b"rubbish")
        memory.create(key, data)

    odd.creates = [after_rubbish]
    for step in (4, 5):
        with pytest.raises(Damaged, match="log record 6"):
            _save(writer, step)
    assert [e.key for e in memory.list("onward/log/")][-1] == record_key(6)


# --- what may not be appended


@pytest.mark.parametrize(
    "bad",
    [
        {"step": -1},
        {"step": 2**53},
        {"epoch": -1},
        {"metrics": {f"metric {number}": 0.5 for number in range(100_000)}},
        {"metrics": {"half a pair \ud800": 0.5}},
        {"about": {"not a number": float("nan")}},
        {"about": {"an object": object()}},
        {"about": {"a half pair": "\udfff"}},
        {"origin": {"url": "\ud800"}},
    ],
    ids=lambda bad: next(iter(bad)),
)
def test_facts_that_no_reader_would_accept(
    writer: Writer, memory: MemoryStore, bad: dict[str, Any]
) -> None:
    """They are refused before they are recorded: a record stays for ever, and damage with it."""
    with pytest.raises(Unstorable):
        writer.commit(state(4), facts(**{"step": 4, **bad}))
    assert records_of(memory) == _BEFORE
    _save(writer, 5)
    assert _steps(memory) == [1, 2, 3, 5]


def test_unknown_parent(writer: Writer, memory: MemoryStore) -> None:
    """A commit names a parent that exists or none."""
    with pytest.raises(UnknownCheckpoint, match="0123456789abcdef"):
        writer.commit(state(4), replace(facts(4), parent="0123456789abcdef"))
    assert records_of(memory) == _BEFORE


def test_words_for_people_never_stop_a_writer(memory: MemoryStore) -> None:
    """Too long, half a surrogate pair (from a file name, say): they are mended, not refused."""
    writer = opened(memory).claim("python \udcff.py " + "x" * 5000)
    commit = writer.commit(state(4), facts(4, reason="y" * 5000, verb="\ud800"))
    history = open_repository(memory).history
    assert history.who.startswith("python ?.py xxx")
    assert len(history.who) == len(commit.reason) == 2000
    look(memory)


def test_metrics_that_are_not_finite(writer: Writer, memory: MemoryStore) -> None:
    """They are recorded as null: a diverged loss must not cost the checkpoint."""
    metrics = {"loss": float("nan"), "worst": float("-inf"), "none": None, "good": 0.5, "whole": 3}
    writer.commit(state(4), facts(4, metrics=metrics))
    latest = open_repository(memory).history.latest()
    assert latest is not None
    assert latest.metrics == {"loss": None, "worst": None, "none": None, "good": 0.5, "whole": 3.0}


def test_summary_that_cannot_be_stored(memory: MemoryStore) -> None:
    """It is only a cache: appending goes on without it, and tries again next time."""

    class NoSummary(Wrapped):
        tries = 0

        def put(self, key: str, chunks: Any, size_bytes: int) -> None:
            if key == "onward/summary.json":
                self.tries += 1
                raise NoSpace("full, on purpose")
            super().put(key, chunks, size_bytes)

    store = NoSummary(memory)
    repository = opened(store)
    for number in range(40):
        repository.set_alias("name", at_step(repository, number % 3 + 1).checkpoint)
    assert store.tries > 1
    assert open_repository(memory).history.aliases == repository.history.aliases


def test_interrupted_wherever(odd: Odd, writer: Writer, memory: MemoryStore) -> None:
    """Ctrl-C within a create, before or after its effect: the same writer can still go on."""

    def interrupted_before(key: str, data: bytes) -> None:
        raise KeyboardInterrupt

    def interrupted_after(key: str, data: bytes) -> None:
        memory.create(key, data)
        raise KeyboardInterrupt

    odd.creates = [interrupted_before, interrupted_after]
    for step in (4, 5):
        with pytest.raises(KeyboardInterrupt):
            _save(writer, step)
    _save(writer, 6)
    assert _steps(memory) == [1, 2, 3, 5, 6]


def test_every_error_of_an_append_is_ours(odd: Odd, repository: Repository) -> None:
    """Whatever combination of answers comes, only `OnwardError`s come out, and the log is whole."""
    answers: list[Callable[[str, bytes], None]] = [
        _silence,
        lambda key, data: odd.store.create(key, data),
        lambda key, data: (odd.store.create(key, data), _silence()),  # type: ignore[func-returns-value]
        lambda key, data: _raise(AlreadyExists("no")),
        lambda key, data: _raise(NoSpace("no")),
    ]
    reads = [_silence, _missing, _broken, odd.store.read]
    first = at_step(repository, 1).checkpoint
    for a in answers:
        for b in answers:
            for read in reads:
                odd.creates = [a, b]
                create = odd.creates[0]

                def with_read(
                    key: str, data: bytes, create: Any = create, read: Any = read
                ) -> None:
                    odd.reads = [read]
                    create(key, data)

                odd.creates[0] = with_read
                with suppress(OnwardError):
                    repository.set_alias("name", first)
                odd.heal()
                repository.refresh()
    look(odd.store)


def _raise(error: BaseException) -> None:
    raise error
