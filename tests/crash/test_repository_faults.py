"""A fault at every operation of everything that changes an output: the old state or the new one."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pytest

from onward.errors import Fenced, Indeterminate, NoSpace, OnwardError, Unreachable
from onward.repository import Repository, Writer, open_or_create, pack_key, verify
from onward.repository.collecting import Collector
from onward.repository.leftovers import Leftovers
from onward.repository.repacking import Repacker
from onward.repository.retention import Retention
from onward.repository.staging import Staging
from onward.stores import (
    Died,
    Fault,
    FaultPlan,
    Faulty,
    LocalStore,
    MemoryStore,
    RealFileSystem,
    Store,
    dies,
)
from onward.stores.fault import Answer, When
from tests.repository.outputs import (
    FULL,
    Picture,
    RecordFirst,
    Wrapped,
    at_step,
    copied,
    facts,
    filled,
    going_on,
    leaf,
    look,
    objects,
    opened,
    quick_temporary_folder,
    save_next,
    state,
    with_three,
)
from tests.stores.filesystems import FaultyFileSystem

# --- what is done, and what it makes of an output


@dataclass(frozen=True)
class Operation:
    """Something that changes an output, and the picture of it that this makes of the old one."""

    name: str
    act: Callable[[Repository, Writer], object]
    changed: Callable[[Picture], Picture]
    prepare: Callable[[Repository, Writer], object] = lambda repository, writer: None

    def __str__(self) -> str:
        return self.name


def _save(repository: Repository, writer: Writer) -> None:
    writer.commit(state(4), facts(4, at_step(repository, 3)))


def _base_on_what_is_dropped(repository: Repository, writer: Writer) -> None:
    writer.base_on(repository.manifest(at_step(repository, 2)))
    repository.drop([at_step(repository, 2).checkpoint])


def _many_records(repository: Repository, writer: Writer) -> None:
    while repository.history.seq < 30:
        repository.set_alias("other", at_step(repository, 1).checkpoint)
    repository.set_alias("other", None)


def _with_table(step: int, *, every: int) -> dict[str, Any]:
    """A state with a table of which one row in so many is other at each step."""
    table = np.zeros((256, 256), dtype=np.uint8)
    for number in range(step + 1):
        table[number % every :: every] = number
    return {**state(step), "table": leaf(table)}


def _stage(repository: Repository, writer: Writer, *, steps: range, every: int) -> None:
    writer.staging = Staging(threads=1)
    parent = at_step(repository, 3)
    for step in steps:
        parent = writer.commit(_with_table(step, every=every), facts(step, parent))


def _save_rows(repository: Repository, writer: Writer) -> None:
    writer.commit(_with_table(11, every=10), facts(11, at_step(repository, 10)))
    assert _parts_of_table(writer) == ["Full", "Rows"]


def _rebase(repository: Repository, writer: Writer) -> None:
    writer.commit(_with_table(16, every=3), facts(16, at_step(repository, 15)))
    assert _parts_of_table(writer) == ["Full"]


def _parts_of_table(writer: Writer) -> list[str]:
    # Not read from the store, where that would be one more call that may fail.
    return [type(part).__name__ for part in writer._base.by_name["table"].parts]


def _prune(repository: Repository, writer: Writer) -> None:
    collector = Collector(repository)
    collector.prune(Retention(keep_last=1))
    Leftovers(collector).sweep()
    collector.sweep(grace_s=0, now_s=0)


def _sweep(repository: Repository, writer: Writer) -> None:
    Collector(repository).sweep(grace_s=0, now_s=0)


def _drop_only(repository: Repository, writer: Writer) -> None:
    Collector(repository).drop([at_step(repository, 2).checkpoint])


def _repack(repository: Repository, writer: Writer) -> None:
    collector = Collector(repository)
    assert len(Repacker(collector).repack().packs) == 1
    collector.sweep(grace_s=0, now_s=0)


def _make_sparse(repository: Repository, writer: Writer) -> None:
    """The pack of step 7 holds what steps 8 and 9 need too, and much that only it needed."""
    for step in (7, 8, 9):
        tree = {"kept": leaf(np.arange(9)), **({"gone": leaf(np.zeros(50))} if step == 7 else {})}
        writer.commit(tree, facts(step))
    repository.drop([at_step(repository, 7).checkpoint])


def _leave_leftovers(repository: Repository, writer: Writer) -> None:
    """A save of an earlier generation that was cut off, and noted."""
    for name in ("a" * 32, "b" * 32):
        repository.store.put(pack_key(name), [b"x"], 1)
    Leftovers(Collector(repository)).sweep()
    taken = repository.claim("another writer")
    writer.writer, writer.generation = taken.writer, taken.generation


_SAVE = Operation("save", _save, lambda old: old.and_checkpoint(4, state(4)))
_OPERATIONS = [
    _SAVE,
    Operation(
        "claim",
        lambda repository, _: repository.claim("another writer"),
        lambda old: replace(old, generation=old.generation + 1),
    ),
    Operation(
        "alias",
        lambda repository, _: repository.set_alias("champion", at_step(repository, 3).checkpoint),
        lambda old: replace(old, aliases={"champion": 3}),
    ),
    Operation(
        "remove-alias",
        lambda repository, _: repository.set_alias("champion", None),
        lambda old: replace(old, aliases={}),
    ),
    Operation(
        "drop",
        lambda repository, _: repository.drop([at_step(repository, 2).checkpoint]),
        lambda old: old.without(2),
    ),
    Operation(
        "save-with-rows",
        _save_rows,
        lambda old: old.and_checkpoint(11, _with_table(11, every=10)),
        partial(_stage, steps=range(10, 11), every=10),
    ),
    Operation(
        "save-that-rebases",
        _rebase,
        lambda old: old.and_checkpoint(16, _with_table(16, every=3)),
        partial(_stage, steps=range(10, 16), every=3),
    ),
    Operation("prune", _prune, lambda old: old.without(2), _leave_leftovers),
    Operation("sweep", _sweep, lambda old: old, _drop_only),
    Operation("repack", _repack, lambda old: old, _make_sparse),
    replace(_SAVE, name="save-with-a-summary", prepare=_many_records),
    replace(_SAVE, name="save-whose-packs-were-dropped", prepare=_base_on_what_is_dropped),
]


# --- where it is done: a store that fails on purpose, above one that does not


_DELETING = ("drop", "prune", "sweep", "repack")


class Ground(Protocol):
    """Many copies of one prepared output, each with a plan of faults."""

    def copy(self, plan: FaultPlan) -> tuple[Store, Store]:
        """A store that follows the plan, and a healthy one with the same content."""

    def end_process(self) -> None:
        """What the system does when the process that used the last copy is gone."""


class _Silent(FaultPlan):
    """From some call on, every call is `Unreachable`, with its effect or without."""

    def __init__(self, at: int, when: When) -> None:
        super().__init__()
        self._at, self._when = at, when

    def perform(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        silent = self.count() + 1 >= self._at
        if silent and self._when == "before":
            super().perform(verb, key, lambda: None)
            raise Unreachable("silence, on purpose")
        answer = super().perform(verb, key, call)
        if silent:
            raise Unreachable("silence, on purpose")
        return answer


class MemoryGround:
    """Every operation of a store is a point where it may fail."""

    def __init__(self, prepared: MemoryStore, wrap: Callable[[Store], Store] = lambda s: s) -> None:
        self._prepared = prepared
        self._wrap = wrap

    def copy(self, plan: FaultPlan) -> tuple[Store, Store]:
        healthy = copied(self._prepared)
        return self._wrap(Faulty(healthy, plan)), healthy

    def end_process(self) -> None:
        return


class Unsynced(RealFileSystem):
    """Quick, and just as good as long as the power stays on."""

    def fsync(self, file: int) -> None:
        return

    def fsync_folder(self, path: Path) -> None:
        return


class LocalGround:
    """Every operation on the file system is a point where it may fail."""

    def __init__(self, prepared: Path, copies: Path) -> None:
        self._prepared, self._copies = prepared, copies
        self._count = 0
        self._filesystem = FaultyFileSystem()

    def copy(self, plan: FaultPlan) -> tuple[Store, Store]:
        shutil.rmtree(self._copies / str(self._count), ignore_errors=True)
        self._count += 1
        folder = self._copies / str(self._count)
        # Second names are enough: nothing that is stored is ever written to again.
        shutil.copytree(self._prepared, folder, copy_function=os.link)
        self._filesystem = FaultyFileSystem(plan, Unsynced())
        failing = LocalStore(folder, filesystem=self._filesystem)
        return failing, LocalStore(folder, filesystem=Unsynced())

    def end_process(self) -> None:
        self._filesystem.end_process()


# --- one try


class _Switch(FaultPlan):
    """No faults until `plan` is given."""

    plan: FaultPlan | None = None

    def perform(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        return call() if self.plan is None else self.plan.perform(verb, key, call)


def _calls(ground: Ground, operation: Operation) -> int:
    """How many calls the operation makes when nothing fails."""
    plan = FaultPlan()
    assert _violations(ground, operation, plan) == []
    return plan.count()


def _violations(ground: Ground, operation: Operation, plan: FaultPlan) -> list[str]:
    """What went wrong that must not, although the plan of faults was followed."""
    switch = _Switch()
    store, healthy = ground.copy(switch)
    repository = opened(store)
    writer = going_on(repository)
    operation.prepare(repository, writer)
    old = _known_look(operation, healthy)
    new = operation.changed(old)

    switch.plan = plan
    outcome: BaseException | None = None
    try:
        operation.act(repository, writer)
    except (Died, OnwardError) as error:
        outcome = error
    switch.plan = None
    if isinstance(outcome, Died):
        ground.end_process()

    if outcome is None:
        allowed = [new]
    elif isinstance(outcome, Died | Indeterminate) or operation.name in _DELETING:
        allowed = [old, new]  # they may fail when only deleting is left to be done
    else:
        allowed = [old]
    try:
        found = look(filled(objects(healthy)))
        if found not in allowed:
            return [f"after {outcome!r} the output is {found}"]
        if not isinstance(outcome, Died):
            found = _goes_on(repository, writer, found)
        after = filled(objects(healthy))
        commit = save_next(after)
        expected = found.and_checkpoint(commit.step, state(commit.step))
        if look(after) != replace(expected, generation=found.generation + 1):
            return [f"after {outcome!r} the next saves changed something else"]
        if operation.name in _DELETING and _again(after, operation, new) != []:
            return [f"after {outcome!r} doing it again leaves {_again(after, operation, new)}"]
    except (AssertionError, OnwardError) as error:
        return [f"after {outcome!r} the output is broken: {error}"]
    return []


def _again(store: MemoryStore, operation: Operation, new: Picture) -> list[str]:
    """What is left over once somebody does it again under later claims: it should be nothing."""
    repository = opened(store)
    dropped = [c for c in repository.history.live() if c.step not in (*new.checkpoints, 50)]
    gone = [c.checkpoint for c in dropped if c.step < 1000]
    Collector(repository).drop(gone) if gone else None
    Leftovers(Collector(repository)).sweep()
    opened(store).claim("again")
    collector = Collector(opened(store))
    Leftovers(collector).sweep()
    Repacker(collector).repack()
    collector.sweep(grace_s=0, now_s=0)
    before = objects(store)
    Repacker(collector).repack()
    assert objects(store) == before
    look(store)
    return verify(opened(store)).leftovers


def _goes_on(repository: Repository, writer: Writer, found: Picture) -> Picture:
    """The process that met the fault, if it lives, saves once more; what is there then."""
    try:
        writer.commit(state(50), facts(50, repository.refresh().latest()))
    except Fenced:
        if found.generation > writer.generation:
            return found
        raise
    return found.and_checkpoint(50, state(50))


_LOOKS: dict[str, Picture] = {}


def _known_look(operation: Operation, store: Store) -> Picture:
    """What an operation finds is the same each time, so that it is looked at once."""
    if operation.name not in _LOOKS:
        _LOOKS[operation.name] = look(store)
    return _LOOKS[operation.name]


Kind = Literal["fails", "refuses", "dies", "silent"]
_KINDS: list[Kind] = ["fails", "refuses", "dies", "silent"]
_WHENS: list[When] = ["before", "after"]


def _plan(kind: Kind, at: int, when: When) -> FaultPlan:
    match kind:
        case "fails":
            return FaultPlan(Fault(at, when))
        case "refuses":
            return FaultPlan(Fault(at, when, error=lambda: NoSpace("full, on purpose")))
        case "dies":
            return FaultPlan(dies(at, when=when))
        case "silent":
            return _Silent(at, when)


def _all_violations(ground: Ground, operation: Operation, kind: Kind, when: When) -> list[str]:
    return [
        f"{operation} {kind} {when} call {at}: {violation}"
        for at in range(1, _calls(ground, operation) + 1)
        for violation in _violations(ground, operation, _plan(kind, at, when))
    ]


# --- stores


@pytest.fixture(scope="module")
def prepared() -> MemoryStore:
    store = MemoryStore("prepared")
    with_three(store)
    return store


@pytest.mark.parametrize("when", _WHENS)
@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("operation", _OPERATIONS, ids=str)
def test_fault_at_every_call_of_the_store(
    prepared: MemoryStore, operation: Operation, kind: Kind, when: When
) -> None:
    """The next reader finds the old state or the new one, whole; what succeeded is there; what
    failed is not, unless it said that it did not know; and the next save works.
    """
    assert _all_violations(MemoryGround(prepared), operation, kind, when) == []


@pytest.mark.parametrize("when", _WHENS)
@pytest.mark.parametrize("kind", ["fails", "refuses", "dies"])
def test_fault_at_every_call_of_making_an_output(kind: Kind, when: When) -> None:
    """There is no output yet or a whole one, and the next try works; two tries make one output."""
    plan = FaultPlan()
    open_or_create(Faulty(MemoryStore(), plan))
    for at in range(1, plan.count() + 1):
        healthy = MemoryStore()
        with suppress(Died, OnwardError):
            open_or_create(Faulty(healthy, _plan(kind, at, when)))
        open_or_create(healthy)
        save_next(healthy)
        picture = look(healthy)
        assert list(picture.checkpoints) == [1000]
        assert picture.generation == 1


# --- local files


@pytest.fixture(scope="module")
def prepared_folder() -> Iterator[Path]:
    with quick_temporary_folder() as folder:
        with_three(LocalStore(folder))
        yield folder


@pytest.fixture
def quick_folder() -> Iterator[Path]:
    with quick_temporary_folder() as folder:
        yield folder


_LOCAL_FAULTS: list[tuple[str, When, int | None]] = [
    ("dies", "after", None),  # which is also before the next
    ("EIO", "before", errno.EIO),
    ("EIO", "after", errno.EIO),
    ("ESTALE", "after", errno.ESTALE),
]
if FULL:
    _LOCAL_FAULTS += [
        ("dies", "before", None),
        ("ENOSPC", "before", errno.ENOSPC),
        ("ENOSPC", "after", errno.ENOSPC),
        ("ESTALE", "before", errno.ESTALE),
        ("EROFS", "before", errno.EROFS),
    ]


@pytest.mark.parametrize(
    ("operation", "when", "code"),
    [
        pytest.param(operation, when, code, id=f"{operation}-{name}-{when}")
        for operation in _OPERATIONS
        for name, when, code in _LOCAL_FAULTS
        # A claim and an alias do what the end of a save does.
        if operation.name in ("save", "drop", "repack")
        or (name == "dies" and "-" not in operation.name)
        or FULL
    ],
)
def test_fault_at_every_file_operation(
    prepared_folder: Path, quick_folder: Path, operation: Operation, when: When, code: int | None
) -> None:
    """The same law, one level deeper: for every call that a local store makes to the system."""
    ground = LocalGround(prepared_folder, quick_folder)
    found: list[str] = []
    for at in range(1, _calls(ground, operation) + 1):
        fault = dies(at, when=when)
        if code is not None:
            fault = Fault(at, when, error=_system_error(code))
        violations = _violations(ground, operation, FaultPlan(fault))
        found += [f"{operation}, call {at}: {violation}" for violation in violations]
    assert found == []


def _system_error(code: int) -> Callable[[], BaseException]:
    return lambda: OSError(code, os.strerror(code))


# --- mistakes that the above must find


class Hasty(Wrapped):
    """Believes that a create which got no reply was stored."""

    def create(self, key: str, data: bytes) -> None:
        try:
            super().create(key, data)
        except Unreachable:
            return


class Pessimist(Wrapped):
    """Believes that a create which got no reply was not stored, and says so for good."""

    def create(self, key: str, data: bytes) -> None:
        try:
            super().create(key, data)
        except Unreachable as error:
            raise Fenced("given up") from error


@pytest.mark.parametrize(
    ("mistake", "kind", "when"),
    [
        (RecordFirst, "dies", "before"),
        (Hasty, "silent", "before"),
        (Pessimist, "fails", "after"),
    ],
)
def test_mistaken_writers_are_found_out(
    prepared: MemoryStore, mistake: type[Wrapped], kind: Kind, when: When
) -> None:
    """The check above has teeth: each of these mistakes violates its law at some call."""
    ground = MemoryGround(prepared, wrap=mistake)
    assert _all_violations(ground, _SAVE, kind, when) != []
