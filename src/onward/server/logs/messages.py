"""Server-sent events made of what stands in the files of an attempt."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from onward.server.logs.events import open_events, read_events
from onward.server.logs.finding import Place
from onward.server.logs.following import Beginning, Chunk, Read
from onward.server.logs.reading import LARGEST_RANGE, line_before, open_log, read_lines

_NEAR = 64 << 10
_ENCODER = msgspec.json.Encoder()


def message(event: str, data: Any, place: str = "") -> bytes:
    """One event, whole. JSON has no line ends, so that nothing in `data` can begin another."""
    named = f"id: {place}\n" if place else ""
    return f"{named}event: {event}\ndata: ".encode() + _ENCODER.encode(data) + b"\n\n"


def reader_of(kind: str, place: Place) -> tuple[Read, Beginning]:
    """What reads chunks of the kind `log`, `events` or `metrics`, and where it may begin."""
    if kind == "log":
        return _log_reader(place), lambda: start_of("log", place.folder, None, 1)
    shape = _as_events if kind == "events" else _as_points
    return _event_reader(place, shape), lambda: _last_event(place.folder)


def start_of(kind: str, folder: Path, offset: int | None, tail: int | None) -> int:
    """Where a stream begins: at a place, or before so many last lines of a log."""
    if tail is None or kind != "log":
        return offset or 0
    log = open_log(folder)
    if log is None:
        return 0
    with log:
        if not tail:
            return log.size
        return line_before(log, log.size, lines=tail, most_bytes=LARGEST_RANGE)


def _log_reader(place: Place) -> Read:
    def read(start: int, limit: int, until: int | None) -> Chunk | None:
        log = open_log(place.folder)
        if log is None:
            return None
        with log:
            found = read_lines(log, start, limit, until=until)
        lines, is_open = found.lines, bool(found.lines) and found.lines[-1].open
        if is_open and found.next > start:
            lines, is_open = lines[:-1], False  # it comes by itself
        if not lines:
            return Chunk(start, found.next, b"") if found.next > start else None
        document = {
            "attempt": place.number, "offset": start, "next": found.next, "lines": lines
        }  # fmt: skip
        data = message("lines", document, f"{place.number}:{found.next}")
        return Chunk(start, found.next, data, open=is_open)

    return read


def _event_reader(place: Place, shape: Callable[[Place, list[Any], int, int], bytes]) -> Read:
    def read(start: int, limit: int, until: int | None) -> Chunk | None:
        fd = open_events(place.folder)
        if fd is None:
            return None
        try:
            most = limit if until is None else min(limit, until - start)
            items, following = read_events(fd, start, most)
        finally:
            os.close(fd)
        if following == start:
            return None
        return Chunk(start, following, shape(place, items, start, following))

    return read


def _as_events(place: Place, items: list[Any], start: int, following: int) -> bytes:
    document = {"attempt": place.number, "offset": start, "next": following, "items": items}
    return message("events", document, f"{place.number}:{following}")


def _as_points(place: Place, items: list[Any], start: int, following: int) -> bytes:
    points = [
        {"step": item.get("step"), "at": item.get("at"), "metrics": item.get("metrics") or {}}
        for item in items
        if item.get("kind") == "training"
    ]
    if not points:
        return b""
    document = {"attempt": place.number, "points": points}
    return message("points", document, f"{place.number}:{following}")


def _last_event(folder: Path) -> int:
    fd = open_events(folder)
    if fd is None:
        return 0
    try:
        size = os.fstat(fd).st_size
        near = max(0, size - _NEAR)
        newline = os.pread(fd, size - near, near).rfind(b"\n")
        return near + newline + 1 if newline >= 0 else 0
    finally:
        os.close(fd)
