"""What an agent tells of pushes that lag behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from onward.jobs import pushing as module
from onward.jobs.pushing import Pushing
from onward.repository.working import Lag
from onward.training.reporting import progress_text


class Heard:
    """A display that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.waiting = threading.Event()

    def say(self, text: str) -> None:
        self.lines.append(text)
        if "waiting" in text:
            self.waiting.set()


class SlowOutput:
    """An output whose push takes until `go_on`."""

    def __init__(self, lag: Lag) -> None:
        self.go_on = threading.Event()
        self.busy = threading.Event()
        self.now = lag

    def push(self, open_files: Any) -> None:
        self.busy.set()
        assert self.go_on.wait(60)
        self.now = Lag()

    def push_rest(self, *, in_order: bool) -> None:
        return

    def lag(self) -> Lag:
        return self.now


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUIET_S", 0.001)
    monkeypatch.setattr(module, "_LOOK_EVERY_S", 0.0)


def pushing(output: SlowOutput, display: Heard) -> Pushing:
    started = Pushing(output, display, set, every_s=0.001)  # type: ignore[arg-type]
    started.start()
    assert output.busy.wait(60)
    return started


def test_the_lag_is_shown_while_a_push_waits_for_the_store() -> None:
    """Beside the step all the time, as a line of its own once it has grown."""
    output, display = SlowOutput(Lag(1, 1000, 3)), Heard()
    started = pushing(output, display)
    behind = started.look()
    assert progress_text({"step": 7, "behind": behind}) == (
        "step 7, 1 checkpoint (1.0 kB, oldest 3 s) not pushed"
    )
    assert display.lines == []
    output.now = Lag(2, 2000, 33)
    started.look()
    started.look()
    assert len(display.lines) == 1
    output.now = Lag()
    output.go_on.set()
    started.finish(in_order=True, abandon=lambda: False)
    assert started.look() == ""
    assert display.lines[1:] == ["pushing has caught up"]


def test_the_end_of_a_job_says_what_it_waits_for() -> None:
    """The script has ended, the store has not."""
    output, display = SlowOutput(Lag(2, 1_200_000_000, 33)), Heard()
    started = pushing(output, display)
    ending = threading.Thread(
        target=started.finish, kwargs={"in_order": True, "abandon": lambda: False}
    )
    ending.start()
    assert display.waiting.wait(60)
    output.go_on.set()
    ending.join()
    assert "waiting for 2 checkpoints, 1.2 GB, to be pushed" in display.lines
