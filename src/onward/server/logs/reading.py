"""Lines of a log by range. However long the log or a line in it, little of it is in memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from onward.engines.base import LOG
from onward.engines.plain_files import open_plain
from onward.server.logs.cleaning import LONGEST_LINE, readable, whole_characters
from onward.server.logs.cuts import Cut, cuts_of

LARGEST_RANGE = 1 << 20
_SCAN = 256 << 10
_LONGEST_SCAN = 256 << 20
_LONGEST_OPEN = 64 << 10


class Line(msgspec.Struct, omit_defaults=True, frozen=True):
    """A line of a log as text, which begins at the byte `at`.

    `cut`: so many of its bytes are not shown; a range that begins within it shows them.
    `continues`: what comes before it in its line is not shown. `open`: it has no end yet, and comes
    again when it has grown.
    """

    at: int
    text: str
    cut: int = 0
    continues: bool = False
    open: bool = False


@dataclass(frozen=True, slots=True)
class Lines:
    """What stands from `offset` to before `next`. An open line stands at `next`."""

    offset: int
    next: int
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class OpenLog:
    """A log as it was when it was opened: what comes later is behind `size`."""

    fd: int
    size: int
    cuts: Sequence[Cut]

    def read(self, offset: int, count: int) -> bytes:
        return os.pread(self.fd, max(0, min(count, self.size - offset)), offset)

    def __enter__(self) -> OpenLog:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)


def open_log(folder: Path) -> OpenLog | None:
    """The log of an attempt; None while it has none. To be used in a `with`. Raises `Damaged`."""
    fd = open_plain(folder / LOG)
    return None if fd is None else OpenLog(fd, os.fstat(fd).st_size, cuts_of(folder))


def read_lines(log: OpenLog, offset: int, limit: int, *, until: int | None = None) -> Lines:
    """The lines from `offset` on, up to about `limit` bytes of them.

    A line that is longer than what is shown of it is passed over as a whole. `until` counts as the
    end of a line. Nothing is left out: either `next` is beyond `offset`, or all that follows is a
    line that is still open.
    """
    end = log.size if until is None else min(until, log.size)
    offset = position = min(offset, end)
    most = offset + limit
    lines: list[Line] = []
    while position < min(end, most):
        position, stop = stretch(log.cuts, position, end)
        block = log.read(position, min(max(limit, LONGEST_LINE + 1), stop - position))
        if not block:
            break
        continues = _is_within_line(log, position)
        whole = block.rfind(b"\n") + 1
        for data in block[:whole].split(b"\n")[:-1]:
            lines.append(_line(position, data, len(data), continues))
            position += len(data) + 1
            continues = False
        rest = block[whole:]
        if not rest:
            continue
        if position + len(rest) < stop:  # it is the block that ended here
            if whole:
                continue
            length, ended = _length(log, position, stop)
            lines.append(_line(position, rest, length, continues))
            position += length + ended
        elif stop < log.size or len(rest) > _LONGEST_OPEN:
            lines.append(_line(position, rest, len(rest), continues))
            position = stop
        else:
            shown = _line(position, rest, len(rest), continues)
            lines.append(msgspec.structs.replace(shown, open=True))
            break
    return Lines(offset, position, lines)


def line_before(log: OpenLog, offset: int, *, lines: int, most_bytes: int) -> int:
    """Where the reading begins that shows so many lines before `offset`, within so many bytes."""
    offset = min(offset, log.size)
    lowest, position = max(0, offset - most_bytes), offset
    found = -1 if offset and log.read(offset - 1, 1) == b"\n" else 0
    while position > lowest:
        start = max(lowest, position - _SCAN)
        if any(first <= start and position <= last for first, last in log.cuts):
            return position  # nothing is left there
        block = log.read(start, position - start)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            found += 1
            if found == lines:
                return start + at + 1
        position = start
    if lowest == 0:
        return 0
    # Within a line: the next one that begins is a better start, where there is any.
    block = log.read(lowest, _SCAN)
    newline = block.find(b"\n")
    return lowest + newline + 1 if newline >= 0 and lowest + newline + 1 < offset else lowest


def stretch(cuts: Sequence[Cut], position: int, end: int) -> tuple[int, int]:
    """Where reading goes on, behind what was given back, and how far nothing else was."""
    for first, last in cuts:
        if first <= position < last:
            position = min(last, end)
    return position, min([end, *(first for first, _ in cuts if first > position)])


def _is_within_line(log: OpenLog, position: int) -> bool:
    if position == 0:
        return False
    return any(last == position for _, last in log.cuts) or log.read(position - 1, 1) != b"\n"


def _length(log: OpenLog, start: int, stop: int) -> tuple[int, bool]:
    """How long the line is that begins at `start`, and whether it ends with a newline. One that is
    longer than anybody waits for is taken in pieces."""
    position = start
    stop = min(stop, start + _LONGEST_SCAN)
    while position < stop:
        block = log.read(position, min(_SCAN, stop - position))
        if not block:
            break
        newline = block.find(b"\n")
        if newline >= 0:
            return position + newline - start, True
        position += len(block)
    return position - start, False


def _line(at: int, data: bytes, length: int, continues: bool) -> Line:
    if len(data) > LONGEST_LINE:
        data = whole_characters(data[:LONGEST_LINE])
    return Line(at, readable(data), max(0, length - len(data)), continues)
