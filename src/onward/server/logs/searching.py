"""Searching a log: once through its bytes, a block at a time, for as long as one request may take.

What comes back says where the search stopped, so that the next request goes on from there.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import msgspec

from onward.server.logs.cleaning import readable, whole_characters
from onward.server.logs.reading import OpenLog, stretch

LONGEST_QUERY = 200
_BLOCK = 256 << 10
_BEFORE, _AFTER = 120, 240
_ONE_HIT_IN = 8192
_LONGEST_S = 2.0

_Find = Callable[[bytes], tuple[int, int]]
"""Where the first hit in a block begins and ends; -1 if there is none."""


class Hit(msgspec.Struct, frozen=True):
    """A hit at the byte `at`, with what stands around it in its line. A range from `line` shows
    it: that is where its line begins, or a place in the line if it is long."""

    at: int
    line: int
    before: str
    match: str
    after: str


class Hits(msgspec.Struct, frozen=True):
    """Hits in order. `next` is where to go on from; None once the end of the log was reached."""

    hits: list[Hit]
    next: int | None
    size: int


def search(
    log: OpenLog, text: str, start: int, *, limit: int, ignore_case: bool,
    clock: Callable[[], float] = time.monotonic,
) -> Hits:  # fmt: skip
    """Looks for `text` as it stands. A line is told once; a very long one once in 8 KiB."""
    find, longest = _finder(text, ignore_case=ignore_case)
    hits: list[Hit] = []
    position, until_s = start, clock() + _LONGEST_S
    while position < log.size and len(hits) < limit:
        position, stop = stretch(log.cuts, position, log.size)
        # So much more than a block that a hit which begins in the block is whole.
        block = log.read(position, min(_BLOCK + longest - 1, stop - position))
        at, end = find(block)
        if at < 0:
            position = min(position + _BLOCK, stop)
        else:
            hits.append(_hit(log, position + at, position + end, stop))
            newline = block.find(b"\n", end, at + _ONE_HIT_IN)
            position += newline + 1 if newline >= 0 else max(end, at + _ONE_HIT_IN)
            position = min(position, stop)
        if clock() >= until_s:
            break
    return Hits(hits, position if position < log.size else None, log.size)


def _finder(text: str, *, ignore_case: bool) -> tuple[_Find, int]:
    """What finds the text, and how many bytes a hit has at most."""
    wanted = text.encode("utf-8", "surrogatepass")
    if not ignore_case:
        return lambda block: _span(block.find(wanted), len(wanted)), len(wanted)
    if text.isascii():
        low = wanted.lower()
        return lambda block: _span(block.lower().find(low), len(low)), len(low)
    # Bytes know the case of ASCII alone: each character is looked for in either case.
    forms = [{form.encode("utf-8", "surrogatepass") for form in (c, c.lower(), c.upper())}
             for c in text]  # fmt: skip
    pattern = re.compile(
        b"".join(b"(?:" + b"|".join(map(re.escape, sorted(each))) + b")" for each in forms)
    )

    def find(block: bytes) -> tuple[int, int]:
        match = pattern.search(block)
        return match.span() if match else (-1, -1)

    return find, sum(max(map(len, each)) for each in forms)


def _span(at: int, length: int) -> tuple[int, int]:
    return (at, at + length) if at >= 0 else (-1, -1)


def _hit(log: OpenLog, at: int, end: int, stop: int) -> Hit:
    first = max(0, at - _BEFORE, *(last for _, last in log.cuts if last <= at), 0)
    before = log.read(first, at - first)
    newline = before.rfind(b"\n")
    before = before[newline + 1 :]
    while newline < 0 and before and 0x80 <= before[0] < 0xC0:
        before = before[1:]
    after = log.read(end, min(_AFTER, stop - end)).partition(b"\n")[0]
    return Hit(
        at, at - len(before), readable(before), readable(log.read(at, end - at)),
        readable(whole_characters(after)),
    )  # fmt: skip
