"""What people see of a job: lines, and bars on a terminal."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol, TextIO

from onward.training.reporting import progress_text
from onward.training.wording import counted, size

__all__ = ["Display", "Lines", "Passed", "Terminal", "counted", "size"]

Passed = Callable[[int], None]
"""To be called with the number of bytes that passed; from any thread."""

_LINE_EVERY_S = 10.0
_DRAW_EVERY_S = 0.1


class Display(Protocol):
    """Shows what happens in a job. Never raises: showing must not stop it."""

    def say(self, text: str) -> None:
        """A line."""

    def transfer(self, title: str, size_bytes: int) -> AbstractContextManager[Passed]:
        """Shows a transfer of so many bytes while the context lasts."""

    def training(self, facts: dict[str, Any]) -> None:
        """Where training is, as the script's run told."""

    def note(self, kind: str, **facts: Any) -> None:
        """Something for programs, which people are told in another way: `engines/events.py`."""

    def abandon(self) -> None:
        """The process is about to end, whatever is being shown."""


class Lines:
    """Plain lines, now and then, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._next_training_s = 0.0

    def say(self, text: str) -> None:
        _write(self._stream, f"onward: {_harmless(text)}\n")

    @contextmanager
    def transfer(self, title: str, size_bytes: int) -> Iterator[Passed]:
        began_s = next_s = time.monotonic()
        done = 0
        lock = threading.Lock()
        self.say(f"{title}: {size(size_bytes)}")

        def passed(count: int) -> None:
            nonlocal done, next_s
            with lock:
                done += count
                now_s = time.monotonic()
                if now_s - next_s < _LINE_EVERY_S:
                    return
                next_s = now_s
            self.say(f"{title}: {size(done)} of {size(size_bytes)}")

        yield passed
        self.say(f"{title}: done in {time.monotonic() - began_s:.1f} s")

    def training(self, facts: dict[str, Any]) -> None:
        now_s = time.monotonic()
        if now_s < self._next_training_s or not facts.get("step"):
            return
        self._next_training_s = now_s + _LINE_EVERY_S
        self.say(f"epoch {_number(facts, 'epoch') + 1}, {progress_text(facts)}")

    def note(self, kind: str, **facts: Any) -> None:
        return

    def abandon(self) -> None:
        return


class Terminal:
    """Bars on a terminal. While a script runs, the last line is a bar below its output."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._lock = threading.RLock()
        self._bar = ""
        self._drawn = False
        self._at_line_start = True
        self._next_draw_s = 0.0

    def say(self, text: str) -> None:
        with self._lock:
            self._erase()
            if not self._at_line_start:
                self._raw(b"\n")
                self._at_line_start = True
            self._console.print(
                f"onward: {_harmless(text)}", markup=False, highlight=False, soft_wrap=True
            )
            self._draw()

    @contextmanager
    def transfer(self, title: str, size_bytes: int) -> Iterator[Passed]:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        with self._lock:
            self._erase()
        bar = Progress(
            TextColumn("onward: {task.description}"), BarColumn(), DownloadColumn(),
            TransferSpeedColumn(), TimeRemainingColumn(), console=self._console,
        )  # fmt: skip
        with bar:
            task = bar.add_task(title, total=max(size_bytes, 1))
            yield lambda count: bar.advance(task, count)
            bar.update(task, completed=max(size_bytes, 1))

    def training(self, facts: dict[str, Any]) -> None:
        with self._lock:
            now_s = time.monotonic()
            if now_s < self._next_draw_s:
                return
            self._next_draw_s = now_s + _DRAW_EVERY_S
            self._bar = self._bar_text(facts)
            self._erase()
            self._draw()

    def output(self, data: bytes) -> None:
        """Passes the script's output on to the terminal, unaltered, above the bar."""
        with self._lock:
            self._erase()
            self._raw(data)
            self._at_line_start = data.endswith(b"\n")
            self._draw()

    def end(self) -> None:
        """The script has ended: takes the bar away."""
        with self._lock:
            self._erase()
            self._bar = ""
            if not self._at_line_start:
                self._raw(b"\n")
                self._at_line_start = True

    def note(self, kind: str, **facts: Any) -> None:
        return

    def abandon(self) -> None:
        self._console.show_cursor(True)
        self._raw(b"\n")

    def _erase(self) -> None:
        if self._drawn:
            self._raw(b"\r\x1b[2K")
            self._drawn = False

    def _draw(self) -> None:
        # Never into a line that the script has not finished.
        if self._bar and self._at_line_start:
            self._raw(self._bar.encode())
            self._drawn = True

    def _raw(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._console.file.fileno(), data) :]
        except (OSError, ValueError):
            return

    def _bar_text(self, facts: dict[str, Any]) -> str:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        total = facts.get("batches")
        bar = ProgressBar(
            total=float(total) if total else None,
            completed=float(_number(facts, "batch")),
            width=max(10, min(40, self._console.width // 3)),
            animation_time=time.monotonic(),
            pulse=not total,
        )
        row = Table.grid(padding=(0, 1))
        for _ in range(3):
            row.add_column(no_wrap=True, overflow="ellipsis")
        row.add_row(f"epoch {_number(facts, 'epoch') + 1}", bar, progress_text(facts))
        with self._console.capture() as captured:
            self._console.print(row, end="", width=self._console.width - 1)
        return captured.get().rstrip("\n")


def _harmless(text: str) -> str:
    """What others wrote (names of files, of writers) must not act on a terminal."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def _number(facts: dict[str, Any], name: str) -> int:
    value = facts.get(name)
    return int(value) if isinstance(value, (int, float)) else 0


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):  # closed, or its reader is gone
        return
