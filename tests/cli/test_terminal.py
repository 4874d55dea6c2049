"""What is different on a terminal: colours, fewer lines, questions, bars."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.cli.outputs import Output

OnTerminal = Callable[..., tuple[int, str]]


@pytest.fixture
def on_terminal() -> OnTerminal:
    """Runs a command on a pseudo-terminal of 80 columns; gives its status and all it wrote."""

    def call(
        *args: str, typed: str = "", interrupted_at: bytes = b"", **environment: str
    ) -> tuple[int, str]:
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "onward.cli", *args],
            stdin=theirs, stdout=theirs, stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "80", **environment},
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, typed.encode())
        written = b""
        while True:
            if interrupted_at and interrupted_at in written:
                # Again as long as it is silent: a signal just before a read goes unnoticed.
                while not select.select([ours], [], [], 0.5)[0]:
                    process.send_signal(signal.SIGINT)
            try:
                piece = os.read(ours, 65536)
            except OSError:  # what Linux says once the other side is closed
                break
            if not piece:
                break
            written += piece
        os.close(ours)
        return process.wait(), written.decode("utf-8", "replace")

    return call


def test_log_shows_the_newest_twenty_in_colour(on_terminal: OnTerminal, output: Output) -> None:
    """The rest is counted; --all shows it; NO_COLOR is obeyed; names still drive nothing."""
    output.chain(20)
    output.save(metrics={"\x1b[2Jloss": 1.0})

    code, text = on_terminal("log", output.url)
    assert code == 0
    assert "1 older checkpoint: --all shows them" in text
    assert "\x1b[33mv21\x1b[0m" in text
    assert "\x1b[2J" not in text
    assert "v1 " not in text

    _, text = on_terminal("log", output.url, "--all", NO_COLOR="1")
    assert "\x1b" not in text
    assert "● v1 " in text


def test_drop_asks_first(on_terminal: OnTerminal, output: Output) -> None:
    output.chain(2)
    code, text = on_terminal("drop", output.url, "v1", typed="n\n")
    assert code == 1
    assert "Drop 1 checkpoint for good" in text
    assert "nothing was dropped" in text
    code, text = on_terminal("drop", output.url, "v1", typed="y\n")
    assert code == 0
    assert "dropped v1" in text


def test_ctrl_c_at_a_question_ends_with_130(on_terminal: OnTerminal, output: Output) -> None:
    output.chain(2)
    code, text = on_terminal("drop", output.url, "v1", interrupted_at=b"[y/N]")
    assert code == 130
    assert "Traceback" not in text
    output.repository.refresh()
    assert len(output.repository.history.live()) == 2


def test_a_bar_shows_what_is_read(on_terminal: OnTerminal, output: Output) -> None:
    (commit,) = output.chain(1)
    _, text = on_terminal("verify", output.url, "--every-byte")
    assert "verifying" in text
    output.flip(output.file("manifests", f"{commit.checkpoint}.json"))
    code, text = on_terminal("verify", output.url, "v1", "--every-byte")
    assert code == 1
    assert "damaged" in text
