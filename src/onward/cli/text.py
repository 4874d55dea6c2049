"""Text for people: made safe for a terminal, sizes, times, tables, a little colour."""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import click

# Control characters, invisible formatting (bidirectional overrides among them), lone surrogates,
# line and paragraph separators: what can make a terminal show something else than the text.
_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean(text: object) -> str:
    """`text` in one line that shows what it holds and moves nothing on a terminal.

    Whatever was written by others (names, configuration, messages) goes through here.
    """
    shown = str(text)
    if shown.isascii() and shown.isprintable():
        return shown
    return "".join(_visible(char) for char in shown)


def _visible(char: str) -> str:
    if unicodedata.category(char) not in _UNSAFE:
        return char
    return char.encode("unicode_escape", "surrogatepass").decode("ascii")


def on_terminal() -> bool:
    """Whether standard output is a terminal."""
    return sys.stdout.isatty()


def painted(text: str, colour: str, *, err: bool = False) -> str:
    """`text` in a colour where that is wanted: a terminal, and no NO_COLOR."""
    stream = sys.stderr if err else sys.stdout
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return click.style(text, fg=colour)


def width() -> int:
    """Columns to fill; 80 where there is no terminal."""
    return max(40, shutil.get_terminal_size((80, 24)).columns) if on_terminal() else 80


def size(size_bytes: float) -> str:
    """`12.3 MB`; units of a thousand."""
    if size_bytes < 1000:
        return f"{size_bytes:.0f} B"
    units = ["TB", "GB", "MB", "kB"]
    size_bytes /= 1000
    while size_bytes >= 999.5 and len(units) > 1:
        size_bytes /= 1000
        units.pop()
    return (
        f"{size_bytes:,.0f} {units[-1]}" if size_bytes >= 100 else f"{size_bytes:.3g} {units[-1]}"
    )


def number(value: float | None) -> str:
    """A metric, short: six digits that matter; `None` stands for one that was not finite."""
    return "not finite" if value is None else f"{value:.6g}"


def when(time: str, now: datetime) -> str:
    """A stored time as `5 minutes ago (2026-03-04 05:06)`, in `now`'s time zone."""
    moment = _parsed(time)
    if moment is None:
        return clean(time)
    local = moment.astimezone(now.tzinfo)
    return f"{_ago(now - moment)}({local:%Y-%m-%d %H:%M})"


def _parsed(time: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(time)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _ago(passed: timedelta) -> str:
    seconds = passed.total_seconds()
    if seconds < -60:
        return ""  # a clock is wrong somewhere: the time itself says more
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count:,} {unit}{'s' if count > 1 else ''} ago "
    return "just now "


def waiting_text(waiting_bytes: int) -> str:
    """That bytes were condemned and are still there."""
    held = size(waiting_bytes)
    return f"{held} stay for readers until their grace time has passed: prune again later"


def count(number_: int, noun: str) -> str:
    """`1 checkpoint`, `2,000 checkpoints`."""
    return f"{number_:,} {noun}" + ("" if number_ == 1 else "s")


def table(
    rows: Iterable[Sequence[str]], *, right: Sequence[int] = (), indent: str = ""
) -> list[str]:
    """Aligned lines; the columns numbered in `right` are aligned there. The last may be long."""
    held = [list(row) for row in rows]
    if not held:
        return []
    widths = [max(_columns(cell) for cell in column) for column in zip(*held, strict=True)]
    lines = []
    for row in held:
        cells = []
        for position, (cell, wide) in enumerate(zip(row, widths, strict=True)):
            padding = " " * (wide - _columns(cell))
            cells.append(padding + cell if position in right else cell + padding)
        lines.append((indent + "  ".join(cells)).rstrip())
    return lines


def wrapped(items: Iterable[str], *, indent: str, separator: str = "  ") -> list[str]:
    """The items one after the other, in as many lines as the width asks for."""
    lines: list[str] = []
    line = ""
    limit = width()
    for item in items:
        if line and len(indent) + _columns(line + separator + item) > limit:
            lines.append(indent + line)
            line = item
        else:
            line = line + separator + item if line else item
    return [*lines, indent + line] if line else lines


def _columns(text: str) -> int:
    if "\x1b" in text:  # our own colours: the text of others is clean by now
        text = click.unstyle(text)
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) != 0 for char in text)
