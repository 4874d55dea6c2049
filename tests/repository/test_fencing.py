"""Two writers on one output: one proceeds, the other is told who took over."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest

from onward.errors import Conflict, Fenced, UnsafeStore, UsageError
from onward.repository import Repository, Writer, open_or_create, open_repository
from onward.stores import LocalStore, MemoryStore, Store
from tests.repository.outputs import (
    Careless,
    Meanwhile,
    at_step,
    copied,
    facts,
    look,
    new_output,
    opened,
    records_of,
    state,
    with_three,
)
from tests.servers import S3Server

_fresh = count()


@pytest.fixture(params=["memory", "local", pytest.param("seaweedfs", marks=pytest.mark.servers)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each kind that keeps writers apart."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path / "out")
    server: S3Server = request.getfixturevalue("seaweedfs")
    return server.store(f"fencing/{next(_fresh)}")


def _save(writer: Writer, step: int) -> None:
    writer.commit(state(step), facts(step, writer.history.latest()))


def _is_fenced(act: Callable[[], object], by: str) -> None:
    with pytest.raises(Fenced) as caught:
        act()
    assert by in str(caught.value)
    assert "generation" in str(caught.value)


def test_second_writer_takes_over(store: Store) -> None:
    """The first is fenced, for good and by name; the second proceeds; nothing is lost."""
    first = open_or_create(store).claim("host-a pid 1")
    _save(first, 1)
    second = open_or_create(store).claim("host-b pid 2")
    for step in (2, 3):
        _is_fenced(lambda step=step: _save(first, step), by="host-b pid 2")
    _save(second, 4)
    _is_fenced(lambda: _save(first, 5), by="host-b pid 2")
    _save(second, 6)
    assert list(look(store).checkpoints) == [1, 4, 6]
    assert records_of(store) == ["open", "claim", "commit", "claim", "commit", "commit"]


def test_writer_that_pauses_between_its_last_look_and_its_record(store: Store) -> None:
    """Nobody can look and append at once; the slot itself decides, and the sleeper lost it."""
    open_or_create(store)
    meanwhile = Meanwhile(store)
    first = opened(meanwhile).claim("the sleeper")
    _save(first, 1)
    taken: list[Writer] = []

    def take_over() -> None:
        taken.append(opened(store).claim("the successor"))
        _save(taken[0], 2)

    meanwhile.acts.append(take_over)
    _is_fenced(lambda: _save(first, 3), by="the successor")
    _save(taken[0], 4)
    assert list(look(store).checkpoints) == [1, 2, 4]


def test_many_claims_at_once(store: Store) -> None:
    """Every claim succeeds, each in a generation of its own; only the last may save."""
    open_or_create(store)
    threads = 16 if isinstance(store, MemoryStore | LocalStore) else 6
    start = threading.Barrier(threads)

    def claim(number: int) -> Writer:
        repository = opened(store)
        start.wait()
        return repository.claim(f"thread {number}")

    with ThreadPoolExecutor(threads) as pool:
        writers = sorted(pool.map(claim, range(threads)), key=lambda writer: writer.generation)
    assert [writer.generation for writer in writers] == list(range(1, threads + 1))
    assert records_of(store) == ["open"] + ["claim"] * threads
    *fenced, last = writers
    for writer in fenced:
        _is_fenced(lambda writer=writer: _save(writer, 1), by="thread")
    _save(last, 2)
    assert list(look(store).checkpoints) == [2]


def test_many_outputs_made_at_once(store: Store) -> None:
    """One of them is made, and everybody has that one."""
    threads = 4
    start = threading.Barrier(threads)

    def make(_: int) -> str:
        start.wait()
        return open_or_create(store).history.repository

    with ThreadPoolExecutor(threads) as pool:
        assert len(set(pool.map(make, range(threads)))) == 1
    assert records_of(store) == ["open"]


# --- what does not fence


@pytest.fixture
def memory() -> MemoryStore:
    store = MemoryStore()
    with_three(store)
    return store


def test_names_and_drops_by_others(memory: MemoryStore) -> None:
    """Promoting or dropping a checkpoint must not end the training that goes on."""
    writer = opened(memory).claim("the writer")
    other = opened(memory)
    _save(writer, 4)
    other.set_alias("best-so-far", at_step(other, 1).checkpoint)
    _save(writer, 5)
    other.drop([at_step(other, 2).checkpoint])
    _save(writer, 6)
    assert list(look(memory).checkpoints) == [1, 3, 4, 5, 6]


@pytest.mark.parametrize("records", [1, 2, 5])
def test_names_by_others_between_look_and_record(memory: MemoryStore, records: int) -> None:
    """The commit takes the next free slot."""
    meanwhile = Meanwhile(memory)
    writer = opened(meanwhile).claim("the writer")
    other = opened(memory)
    for number in range(records):
        id_ = at_step(other, 1).checkpoint
        meanwhile.acts.append(lambda n=number, id_=id_: other.set_alias(f"name{n}", id_))
    _save(writer, 4)
    assert records_of(memory)[-records - 1 :] == ["alias"] * records + ["commit"]
    assert 4 in look(memory).checkpoints


def test_reused_packs_that_are_dropped_between_look_and_record(memory: MemoryStore) -> None:
    """A commit that meets its packs in a drop writes their bytes anew before it counts."""
    meanwhile = Meanwhile(memory)
    repository = opened(meanwhile)
    writer = repository.claim("the writer")
    second, third = at_step(repository, 2), at_step(repository, 3)
    writer.base_on(repository.manifest(second))
    assert repository.manifest(second).packs.keys() - repository.manifest(third).packs.keys()
    other = opened(memory)
    meanwhile.acts.append(lambda: other.drop([second.checkpoint]))
    writer.commit(state(2), facts(4, second))  # the very same tensors as at step 2
    found = look(memory)
    assert list(found.checkpoints) == [1, 3, 4]
    assert records_of(memory)[-2:] == ["drop", "commit"]


def test_fenced_process_may_claim_again(memory: MemoryStore) -> None:
    """Somebody who restarts it takes over in turn; its old writer stays fenced."""
    repository = opened(memory)
    first = repository.claim("first")
    opened(memory).claim("second")
    _is_fenced(lambda: _save(first, 4), by="second")
    third = repository.claim("third")
    _save(third, 5)
    _is_fenced(lambda: _save(first, 6), by="third")


# --- going on under a claim that was made for this process


def test_claim_that_was_made_by_an_agent(memory: MemoryStore) -> None:
    """The process commits under it without another record."""
    agent = opened(memory).claim("the agent")
    repository = opened(memory)
    writer = repository.claim("", generation=agent.generation, writer=agent.writer)
    _save(writer, 4)
    assert records_of(memory).count("claim") == 2


def test_claim_by_an_agent_that_was_overtaken(memory: MemoryStore) -> None:
    """It is fenced before it begins."""
    agent = opened(memory).claim("the agent")
    opened(memory).claim("somebody else")
    repository = opened(memory)
    _is_fenced(
        lambda: repository.claim("", generation=agent.generation, writer=agent.writer),
        by="somebody else",
    )


@pytest.mark.parametrize(("generation", "writer"), [(2, "f" * 32), (7, "f" * 32), (2, "")])
def test_claim_that_nobody_made(memory: MemoryStore, generation: int, writer: str) -> None:
    """An environment left over from somewhere else is a usage error."""
    opened(memory).claim("the writer")
    with pytest.raises(UsageError, match="no claim"):
        opened(memory).claim("", generation=generation, writer=writer)


# --- stores that take create for put


@pytest.fixture
def careless() -> Careless:
    store = MemoryStore()
    new_output(store)
    return Careless(store)


def test_careless_store_is_refused(careless: Careless) -> None:
    """Two writers could destroy each other's checkpoints there: only a promise opens it."""
    with pytest.raises(UnsafeStore, match="--single-writer"):
        open_or_create(careless)
    writer = open_or_create(careless, single_writer=True).claim("the only one")
    _save(writer, 1)
    assert list(look(careless).checkpoints) == [1]


@pytest.mark.parametrize(
    "act",
    [
        lambda repository: repository.claim("x"),
        lambda repository: repository.set_alias("name", None),
        lambda repository: repository.drop(["0" * 16]),
    ],
)
def test_careless_store_opened_to_look(
    careless: Careless, act: Callable[[Repository], object]
) -> None:
    """Looking is safe; the first change finds out that changing is not."""
    _save(open_or_create(careless, single_writer=True).claim("the only one"), 1)
    repository = open_repository(careless)
    before = records_of(careless)
    with pytest.raises((UnsafeStore, UsageError)):
        act(repository)
    assert records_of(careless) == before


def test_careless_store_with_a_broken_promise(careless: Careless) -> None:
    """A second writer that overwrites one's record is found at the next append, and named."""
    first = opened(careless, exclusive=False).claim("first")
    _save(first, 1)
    meanwhile = Meanwhile(careless)
    second = opened(meanwhile, exclusive=False)
    meanwhile.acts.append(lambda: _save(first, 2))
    second.claim("second")  # in the slot of the save that came before
    with pytest.raises(Conflict, match="record is a claim of writer"):
        _save(first, 3)


def test_careless_store_whose_slot_is_taken_within_an_append(careless: Careless) -> None:
    """What is read back after a write is not one's own record: `Conflict`."""
    memory = careless.store
    assert isinstance(memory, MemoryStore)
    writer = opened(careless, exclusive=False).claim("first")
    elsewhere = copied(memory)
    opened(elsewhere).claim("second")

    class Overwritten(Careless):
        def create(self, key: str, data: bytes) -> None:
            super().create(key, elsewhere.read(key))

    writer.log.store = Overwritten(memory)
    with pytest.raises(Conflict, match="record is a claim of writer"):
        _save(writer, 1)


def test_careless_store_that_others_wrote_to(careless: Careless) -> None:
    """What came before is read before one's own record is put in a slot, so that it stays."""
    writer = opened(careless, exclusive=False).claim("first")
    _save(writer, 1)
    other = opened(careless, exclusive=False)
    other.set_alias("champion", at_step(other, 1).checkpoint)
    _save(writer, 2)
    assert records_of(careless) == ["open", "claim", "commit", "alias", "commit"]
    assert look(careless).aliases == {"champion": 1}


def test_record_that_vanished_from_a_careless_store(careless: Careless) -> None:
    """The head is looked at before it is built upon."""
    writer = opened(careless, exclusive=False).claim("first")
    careless.delete(f"onward/log/{writer.history.seq:020d}.json")
    with pytest.raises(Conflict, match="it is gone"):
        _save(writer, 1)


@pytest.mark.servers
def test_server_that_takes_create_for_put(rclone: S3Server) -> None:
    """A real one is refused, and used by whoever promises to be alone."""
    store = rclone.store("fencing")
    with pytest.raises(UnsafeStore):
        open_or_create(store)
    repository = open_or_create(store, single_writer=True)
    writer = repository.claim("the only one")
    _save(writer, 1)
    _save(writer, 2)
    assert list(look(store).checkpoints) == [1, 2]
    other = open_or_create(store, single_writer=True).claim("another")
    _is_fenced(lambda: _save(writer, 3), by="another")
    _save(other, 4)
    assert list(look(store).checkpoints) == [1, 2, 4]
