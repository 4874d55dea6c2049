"""What attempts tell, by range: one JSON object in each line of `events.jsonl`."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from onward.engines.base import EVENTS
from onward.engines.plain_files import open_plain

LARGEST_RANGE = 1 << 20
_LONGEST_EVENT = 1 << 20


def open_events(folder: Path) -> int | None:
    """A file descriptor; None while nothing was told. Raises `Damaged`."""
    return open_plain(folder / EVENTS)


def read_events(fd: int, offset: int, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The whole events in about so many bytes from `offset` on, and where the next ones begin.

    A line without its end is not there yet. One that is no JSON is told as an event of the kind
    `unreadable`, so that nothing is missing without a word.
    """
    block = os.pread(fd, limit, offset)
    whole = block.rfind(b"\n") + 1
    if not whole and len(block) == limit and limit < _LONGEST_EVENT:
        block = os.pread(fd, _LONGEST_EVENT, offset)
        whole = block.rfind(b"\n") + 1
    if not whole and len(block) == _LONGEST_EVENT:
        # No event is so long: pass over what cannot be one, in pieces.
        return [{"at": 0.0, "kind": "unreadable", "text": ""}], offset + len(block)
    return list(_events(block[:whole])), offset + whole


def _events(block: bytes) -> Iterator[dict[str, Any]]:
    for line in block.split(b"\n"):
        if line:
            yield _event(line)


def _event(line: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        try:  # Python writes NaN, which is no JSON
            found = _finite(json.loads(line))
        except (ValueError, RecursionError):
            found = None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        return {"at": 0.0, "kind": "unreadable", "text": line[:200].decode("utf-8", "replace")}
    return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return value
