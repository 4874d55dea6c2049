"""The promise of `Engine`, which every engine keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from onward.engines import Engine, Launch, Sighting
from onward.engines.folder import prepare_folder
from onward.engines.machine import ThisMachine
from onward.engines.memory import MemoryEngine
from onward.engines.processes import processes_of
from onward.jobs.spec import JobSpec

# Runs until it is asked to stop.
SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
print("ready", flush=True)
time.sleep(600)
"""


class Place:
    """An engine, and attempts for it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine = engine
        self.folder = folder

    def attempt(self, name: str) -> Launch:
        """One that runs until it is told otherwise."""
        code = self.folder / "code"
        code.mkdir(exist_ok=True)
        (code / "train.py").write_text(SCRIPT)
        folder = self.folder / name
        spec = JobSpec("train.py", str(self.folder / f"out-{name}"), grace_s=20.0)
        prepare_folder(folder, {"spec": spec.document(), "code": str(code)})
        return Launch(name, folder, dict(os.environ))

    def again(self) -> Engine:
        """Another engine over the same place, which remembers nothing."""
        return self.engine.again() if isinstance(self.engine, MemoryEngine) else ThisMachine()

    def until(self, launch: Launch, state: str) -> Sighting:
        end_s = time.monotonic() + 60
        while (found := self.engine.look(launch.folder)).state != state or found.leftover:
            assert time.monotonic() < end_s, found
            time.sleep(0.02)
        return found

    def until_nobody_comes(self, launch: Launch) -> None:
        """Until those who were started have seen that they may not take it."""
        end_s = time.monotonic() + 60
        while processes_of(launch.attempt):
            assert time.monotonic() < end_s
            time.sleep(0.02)

    def run(self, name: str) -> Launch:
        """An attempt whose script listens."""
        launch = self.attempt(name)
        self.engine.start(launch)
        self.until(launch, "running")
        log = launch.folder / "log"
        end_s = time.monotonic() + 60
        while isinstance(self.engine, ThisMachine) and not (
            log.exists() and b"ready" in log.read_bytes()
        ):
            assert time.monotonic() < end_s
            time.sleep(0.02)
        return launch


@pytest.fixture(params=["memory", "machine"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A place of each kind."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    engine: Engine = MemoryEngine() if request.param == "memory" else ThisMachine()
    yield Place(engine, tmp_path)
    for folder in tmp_path.glob("*"):
        if (folder / "job.json").exists():
            engine.destroy(folder)
            engine.destroy(folder)


def test_an_attempt_that_nobody_started_is_absent(place: Place) -> None:
    assert place.engine.look(place.attempt("a").folder).state == "absent"


def test_what_was_started_runs_and_says_where(place: Place) -> None:
    launch = place.run("a")
    found = place.engine.look(launch.folder)
    assert (found.state, bool(found.host), bool(found.pid)) == ("running", True, True)


def test_starting_twice_gives_one_agent(place: Place) -> None:
    """Also by an engine that does not know of the first start."""
    launch = place.run("a")
    before = place.engine.look(launch.folder).pid
    place.again().start(launch)
    place.engine.ask(launch.folder, "stop")
    assert place.until(launch, "ended").pid == before
    place.engine.start(launch)
    assert place.again().look(launch.folder).state == "ended"


def test_another_engine_finds_what_runs(place: Place) -> None:
    launch = place.run("a")
    found = place.again().look(launch.folder)
    assert (found.state, found.pid) == ("running", place.engine.look(launch.folder).pid)
    place.again().ask(launch.folder, "stop")
    place.until(launch, "ended")


def test_stop_ends_in_order(place: Place) -> None:
    launch = place.run("a")
    place.engine.ask(launch.folder, "stop")
    found = place.until(launch, "ended")
    assert found.outcome is not None
    assert found.outcome["exit_code"] == 75


def test_kill_does_not_wait_for_the_script(place: Place) -> None:
    launch = place.run("a")
    place.engine.ask(launch.folder, "kill")
    found = place.until(launch, "ended")
    assert found.outcome is not None
    assert found.outcome["outcome"]["attempts"][-1]["exit_status"] == -9


def test_what_is_destroyed_is_gone_for_good(place: Place) -> None:
    launch = place.run("a")
    place.engine.destroy(launch.folder)
    place.until(launch, "gone")
    place.engine.start(launch)
    place.again().start(launch)
    place.until_nobody_comes(launch)
    assert place.engine.look(launch.folder).state == "gone"


def test_what_was_destroyed_before_it_began_never_begins(place: Place) -> None:
    launch = place.attempt("a")
    place.engine.destroy(launch.folder)
    place.engine.start(launch)
    place.until_nobody_comes(launch)
    found = place.engine.look(launch.folder)
    assert (found.state, found.pid) == ("gone", 0)


def test_destroying_what_has_ended_changes_nothing(place: Place) -> None:
    launch = place.run("a")
    place.engine.ask(launch.folder, "stop")
    place.until(launch, "ended")
    place.engine.destroy(launch.folder)
    assert place.engine.look(launch.folder).state == "ended"


def test_asking_where_nobody_is_changes_nothing(place: Place) -> None:
    """A request that comes before the agent is there when it comes; after its end, for nothing."""
    launch = place.run("a")
    for what in ("stop", "stop", "kill", "stop"):
        place.engine.ask(launch.folder, what)
    place.until(launch, "ended")
    place.engine.ask(launch.folder, "kill")
    assert place.engine.look(launch.folder).state == "ended"
