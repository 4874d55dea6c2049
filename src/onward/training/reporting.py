"""What a run tells: lines or a progress bar for people, JSON lines for an agent."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Protocol

_EVENT_EVERY_S = 0.25
_LINE_EVERY_S = 10.0


class Reporter(Protocol):
    """Receives what happens in a run. Never raises: telling must not stop training."""

    interval_s: float

    def say(self, text: str) -> None:
        """A line for people."""

    def progress(self, **facts: Any) -> None:
        """Where training is: step, epoch, batch, batches, metrics."""

    def tell(self, **facts: Any) -> None:
        """Something for the agent alone, if there is one."""

    def close(self) -> None:
        """Nothing more will come."""


class Events:
    """JSON lines into the agent's pipe; lines for people stay in the script's output."""

    interval_s = _EVENT_EVERY_S

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._open = True
        try:
            os.set_inheritable(fd, False)  # data workers must not keep the pipe open
        except OSError:
            self._open = False

    def say(self, text: str) -> None:
        _say(text)

    def progress(self, **facts: Any) -> None:
        self.tell(**facts)

    def tell(self, **facts: Any) -> None:
        if not self._open:
            return
        try:
            os.write(self._fd, json.dumps(facts, default=str).encode() + b"\n")
        except OSError:
            self._open = False  # the agent is gone; training goes on

    def close(self) -> None:
        self._open = False


class Terminal:
    """A progress bar on a terminal."""

    interval_s = 0.1

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[tail]}"),
            TimeElapsedColumn(), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("training", total=None, tail="")
        self._bar.start()

    def say(self, text: str) -> None:
        self._bar.console.print(f"onward: {text}", markup=False, highlight=False)

    def progress(self, **facts: Any) -> None:
        self._bar.update(
            self._task,
            completed=facts.get("batch", 0),
            total=facts.get("batches") or None,
            description=f"epoch {facts.get('epoch', 0) + 1}",
            tail=progress_text(facts),
        )

    def tell(self, **facts: Any) -> None:
        return

    def close(self) -> None:
        self._bar.stop()


class Lines:
    """A plain line now and then, where output is not a terminal."""

    interval_s = _LINE_EVERY_S

    def say(self, text: str) -> None:
        _say(text)

    def progress(self, **facts: Any) -> None:
        if "saved" in facts:
            _say(f"saved step {facts.get('step', 0):,} as {facts['saved']} ({facts['reason']})")
        else:
            _say(f"epoch {facts.get('epoch', 0) + 1}, {progress_text(facts)}")

    def tell(self, **facts: Any) -> None:
        return

    def close(self) -> None:
        return


def reporter_for(events_fd: int | None) -> Reporter:
    """The agent's pipe if there is one, a bar on a terminal, else lines."""
    if events_fd is not None:
        return Events(events_fd)
    return Terminal() if sys.stderr.isatty() else Lines()


def progress_text(facts: dict[str, Any]) -> str:
    """Such as `step 1,200, batch 40/938, loss 0.3127`; `behind` tells of what is not pushed."""
    words = [f"step {facts.get('step', 0):,}"]
    if facts.get("batches"):
        words.append(f"batch {facts.get('batch', 0)}/{facts['batches']}")
    for name, value in (facts.get("metrics") or {}).items():
        words.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    if facts.get("behind"):
        words.append(str(facts["behind"]))
    return ", ".join(words)


def _say(text: str) -> None:
    try:
        print(f"onward: {text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # stderr is closed or its reader is gone
        return


def monotonic_s() -> float:
    return time.monotonic()
