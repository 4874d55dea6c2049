"""How a command ends when it does not simply succeed: one message, one exit status."""

from __future__ import annotations

import errno
import json
import os
import sys
from dataclasses import dataclass

import click

from onward.cli.text import clean, painted
from onward.errors import Mismatch, NothingNew, OnwardError, Stopped

INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is said and returned. `kind` is the name of an error type, empty for silence."""

    code: int
    kind: str = ""
    what: str = ""
    why: str = ""
    do: str = ""
    differences: tuple[str, ...] = ()
    word: str = "error"


def as_outcome(error: BaseException) -> Outcome | None:
    """The outcome that an exception stands for; None if it is a bug of ours."""
    match error:
        case NothingNew():
            return Outcome(0, "NothingNew", error.what, error.why, error.do, word="nothing new")
        case OnwardError():
            differences = tuple(error.differences) if isinstance(error, Mismatch) else ()
            kind = type(error).__name__
            return Outcome(error.exit_code, kind, error.what, error.why, error.do, differences)
        case Stopped():
            code = error.code if isinstance(error.code, int) else 1
            return Outcome(code, "Stopped", error.reason, word="stopped")
        case click.UsageError():
            where = error.ctx.command_path if error.ctx is not None else "onward"
            what = error.format_message().rstrip(".")
            what = what[:1].lower() + what[1:] if what[1:2].islower() else what
            return Outcome(2, "UsageError", what, do=f"see `{where} --help`")
        case click.ClickException():
            return Outcome(error.exit_code, type(error).__name__, error.format_message())
        case click.Abort() | KeyboardInterrupt():
            return Outcome(INTERRUPTED)
        case BrokenPipeError():
            _silence_stdout()
            return Outcome(1)
        case OSError() if error.errno == errno.EPIPE:
            _silence_stdout()
            return Outcome(1)
        case SystemExit():
            return Outcome(error.code if isinstance(error.code, int) else int(bool(error.code)))
    return None


def report(outcome: Outcome, *, as_json: bool) -> int:
    """Says it, on stderr for people, with `as_json` on stdout for programs; returns the status."""
    if outcome.kind:
        click.echo(_sentence(outcome), err=True)
        if as_json:
            error: dict[str, object] = {
                "type": outcome.kind, "what": outcome.what, "why": outcome.why, "do": outcome.do
            }  # fmt: skip
            if outcome.differences:
                error["differences"] = list(outcome.differences)
            click.echo(json.dumps({"error": error}))
    return outcome.code


def _sentence(outcome: Outcome) -> str:
    word = painted(f"{outcome.word}:", "red" if outcome.word == "error" else "yellow", err=True)
    lines = [f"{word} {_lines(outcome.what)}" + (f": {_lines(outcome.why)}" if outcome.why else "")]
    lines += [f"  - {_lines(difference)}" for difference in outcome.differences]
    if outcome.do:
        lines.append(f"what to do: {_lines(outcome.do)}")
    return "\n".join(lines)


def _lines(text: str) -> str:
    # Our own messages may have several lines; what they quote must not begin one.
    return "\n    ".join(clean(line) for line in text.split("\n"))


def _silence_stdout() -> None:
    # The reader went away (`| head`). What is still buffered would raise again at exit.
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (OSError, ValueError):
        return
