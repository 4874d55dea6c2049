"""Real processes on one folder: killed, stopped and continued at every operation, and at once."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onward.errors import Fenced
from onward.repository import open_repository
from onward.stores import FaultPlan, LocalStore
from onward.stores.fault import Answer
from tests.repository.outputs import (
    at_step,
    facts,
    going_on,
    look,
    new_output,
    quick_temporary_folder,
    records_of,
    save_next,
    scaled,
    state,
    with_three,
)
from tests.servers import S3Server
from tests.stores.filesystems import FaultyFileSystem

_SAVED, _FENCED, _BROKEN = 0, 7, 9


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_temporary_folder() as made:
        yield made / "out"


class _SignalAt(FaultPlan):
    """The process sends itself a signal at one operation on the file system."""

    def __init__(self, at: int = 0, signal_number: int = 0) -> None:
        super().__init__()
        self.armed = False
        self._at, self._signal = at, signal_number

    def perform(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        if not self.armed:
            return call()
        if self.count() + 1 == self._at:
            self._at = 0
            os.kill(os.getpid(), self._signal)
        return super().perform(verb, key, call)


def _in_child(act: Callable[[], int]) -> int:
    """A new process that does `act` and ends with what it returns; its process id."""
    pid = os.fork()
    if pid:
        return pid
    code = _BROKEN
    try:
        code = act()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _save(folder: Path, plan: _SignalAt) -> int:
    repository = open_repository(LocalStore(folder, filesystem=FaultyFileSystem(plan)))
    writer = going_on(repository)
    parent = at_step(repository, 3)
    plan.armed = True
    try:
        writer.commit(state(4), facts(4, parent))
    except Fenced as error:
        return _FENCED if "the next writer" in str(error) else _BROKEN
    return _SAVED


def _copies_for_each_operation(folder: Path) -> Iterator[tuple[int, Path]]:
    """For each operation of a save its number, and a new copy of one prepared output."""
    prepared = folder / "prepared"
    with_three(LocalStore(prepared))
    shutil.copytree(prepared, folder / "counted")
    plan = _SignalAt()
    assert _save(folder / "counted", plan) == _SAVED
    for at in range(1, plan.count() + 1):
        shutil.copytree(prepared, folder / str(at), copy_function=os.link)
        yield at, folder / str(at)


def _ended(pid: int) -> int:
    """The exit code of a child, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_killed_at_every_operation_of_a_save(folder: Path) -> None:
    """The next process finds the old state or the new one, whole, and its save works."""
    for at, copy in _copies_for_each_operation(folder):
        plan = _SignalAt(at, signal.SIGKILL)
        assert _ended(_in_child(lambda copy=copy, plan=plan: _save(copy, plan))) == -signal.SIGKILL
        found = look(LocalStore(copy)).checkpoints
        assert list(found) in ([1, 2, 3], [1, 2, 3, 4])
        save_next(LocalStore(copy))
        assert len(look(LocalStore(copy)).checkpoints) == len(found) + 1


def test_stopped_at_every_operation_of_a_save_and_taken_over(folder: Path) -> None:
    """A writer that slept past a take-over commits nothing when it wakes, wherever it slept."""
    outcomes: list[int] = []
    for at, copy in _copies_for_each_operation(folder):
        plan = _SignalAt(at, signal.SIGSTOP)
        pid = _in_child(lambda copy=copy, plan=plan: _save(copy, plan))
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        save_next(LocalStore(copy))
        found = look(LocalStore(copy))
        os.kill(pid, signal.SIGCONT)
        outcomes.append(_ended(pid))
        # Its record stood before the take-over, or it never will.
        assert outcomes[-1] == (_SAVED if 4 in found.checkpoints else _FENCED)
        assert look(LocalStore(copy)) == found
    assert set(outcomes) == {_SAVED, _FENCED}


def test_many_processes_claim_and_save_at_once(folder: Path) -> None:
    """The log stays linear; each claim is a generation of its own; nobody saves after another's
    claim; every acknowledged save is there.
    """
    store = LocalStore(folder)
    new_output(store)
    start_reading, start_writing = os.pipe()
    told_reading, told_writing = os.pipe()
    processes = scaled(6, 16)

    def train(number: int) -> int:
        os.close(start_writing)
        os.read(start_reading, 1)  # returns at the end of the file: for everybody at once
        repository = open_repository(LocalStore(folder))
        writer = repository.claim(f"process {number}")
        for round in range(5):
            step = number * 10 + round + 1
            try:
                writer.commit(state(step), facts(step, repository.history.latest()))
            except Fenced:
                return _FENCED
            os.write(told_writing, b"%d\n" % step)
        return _SAVED

    children = [_in_child(lambda number=number: train(number)) for number in range(processes)]
    for end in (start_reading, start_writing, told_writing):
        os.close(end)
    codes = [_ended(pid) for pid in children]
    with os.fdopen(told_reading) as told:
        acknowledged = {int(line) for line in told}

    assert set(codes) <= {_SAVED, _FENCED}
    # A process that is slow to claim fences nobody who was through before.
    assert codes.count(_SAVED) >= 1
    found = look(store)
    assert found.checkpoints.keys() == acknowledged
    assert found.generation == processes == records_of(store).count("claim")


_TRAIN_IN_A_BUCKET = """
import os, sys
from onward.errors import Fenced
from onward.repository import open_or_create
from onward.stores import open_store
from tests.repository.outputs import facts, state
repository = open_or_create(open_store(sys.argv[1]))
writer = repository.claim("the sleeper")
for step in range(1, 1000):
    try:
        writer.commit(state(step), facts(step, repository.history.latest()))
    except Fenced as error:
        print(error, flush=True)
        sys.exit(7)
    print(step, flush=True)
"""


@pytest.mark.servers
def test_stopped_and_taken_over_in_a_bucket(seaweedfs: S3Server) -> None:
    """The same on an object store: asleep past a take-over, it commits nothing when it wakes."""
    url = seaweedfs.url("stopped")
    with subprocess.Popen(
        [sys.executable, "-c", _TRAIN_IN_A_BUCKET, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **seaweedfs.environment, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        assert process.stdout is not None
        saved = [process.stdout.readline() for _ in range(3)]
        assert saved == ["1\n", "2\n", "3\n"]
        process.send_signal(signal.SIGSTOP)
        store = seaweedfs.store("stopped")
        taken = save_next(store)
        found = look(store)
        process.send_signal(signal.SIGCONT)
        *rest, last = process.communicate()[0].splitlines()[:-1]
    assert process.returncode == 7
    assert "the next writer" in last
    acknowledged = {1, 2, 3, *map(int, rest)}
    assert look(store) == found
    assert found.checkpoints.keys() - {taken.step} >= acknowledged
