"""What happened to a job, for people: its moves and its attempts' events as one timeline."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.engines.base import EVENTS
from onward.engines.plain_files import open_plain
from onward.errors import Damaged
from onward.server.console.languages import Language
from onward.server.console.words import TONES
from onward.server.database.tables import Attempt, Move

_HEAD_BYTES, _TAIL_BYTES = 256 << 10, 512 << 10
_MOST_ENTRIES = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of a timeline. `done` and `total` are bytes of a transfer that goes on."""

    at: float
    tone: str
    title: str
    text: str = ""
    by: str = ""
    done: int | None = None
    total: int | None = None


def events_of(folder: Path) -> list[dict[str, Any]]:
    """What an attempt told: the beginning and the end, where there is very much of it."""
    try:
        found_fd = open_plain(folder / EVENTS)
        if found_fd is None:
            return []
        with open(found_fd, "rb") as file:
            head = file.read(_HEAD_BYTES)
            size = file.seek(0, 2)
            tail = b""
            if size > _HEAD_BYTES:
                file.seek(max(_HEAD_BYTES, size - _TAIL_BYTES))
                tail = file.read(_TAIL_BYTES)
                if size > _HEAD_BYTES + _TAIL_BYTES:
                    tail = tail.partition(b"\n")[2]
                    head = head.rpartition(b"\n")[0] + b"\n"
    except (OSError, Damaged):
        return []  # a page shows what it can
    found = []
    for line in (head + tail).split(b"\n")[:-1]:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue  # what a page shows is no truth; who decides reads them itself
        if isinstance(event, dict) and _is_time(event.get("at")):
            found.append(event)
    return found


def timeline(
    spoken: Language, moves: Iterable[Move], told: Sequence[tuple[Attempt, list[dict[str, Any]]]]
) -> list[Entry]:
    """Newest first."""
    entries = [_moved(spoken, move, {attempt.id: attempt for attempt, _ in told}) for move in moves]
    for attempt, events in told:
        entries += _happened(spoken, attempt, events)
    entries.sort(key=lambda entry: entry.at, reverse=True)
    return entries[:_MOST_ENTRIES]


def _moved(spoken: Language, move: Move, attempts: dict[str, Attempt]) -> Entry:
    state = spoken.t(move.after)
    if move.attempt is None:
        title = spoken.t("Job {state}", state=state)
    else:
        attempt = attempts.get(move.attempt)
        title = spoken.t("Attempt {n} {state}", n=attempt.number if attempt else "?", state=state)
    return Entry(move.at, TONES.get(move.after, "off"), title, move.reason, move.by)


def _happened(spoken: Language, attempt: Attempt, events: list[dict[str, Any]]) -> list[Entry]:
    found: list[Entry] = []
    transfers: dict[tuple[str, str], Entry] = {}
    saved: list[dict[str, Any]] = []
    for event in events:
        at, kind = float(event["at"]), event.get("kind")
        if kind == "begin":
            verb = str(event.get("verb", ""))
            title = spoken.t("Fresh start") if verb == "fresh" else spoken.t(verb)
            found.append(Entry(at, "live", title, str(event.get("why", ""))))
        elif kind == "transfer":
            name, direction = str(event.get("title", "")), str(event.get("direction", ""))
            transfers[direction, name] = _transfer(spoken, at, name, direction, event, attempt)
        elif kind == "saved":
            saved.append(event)
        elif kind == "end":
            code = event.get("exit_code")
            text = str(event.get("message") or "")
            if code:
                found.append(
                    Entry(at, "bad", spoken.t("The script ended with {code}", code=code), text)
                )
    if saved:
        last = saved[-1]
        step = last.get("step")
        found.append(
            Entry(
                float(last["at"]), "good", spoken.tn("{n} checkpoints saved", len(saved)),
                spoken.t("the newest at step {step}", step=spoken.number(step))
                if isinstance(step, int) else "",
            )
        )  # fmt: skip
    return [*found, *transfers.values()]


def _transfer(
    spoken: Language, at: float, name: str, direction: str, event: dict[str, Any], attempt: Attempt
) -> Entry:
    done, total = (_count(event.get(key)) for key in ("done", "total"))
    title = spoken.t("Predownload") if direction == "fetch" else spoken.t("Push")
    if done >= total or attempt.ended_at is not None:
        amount = spoken.size(done)
        return Entry(at, "good" if done >= total else "warn", title, f"{name} · {amount}")
    amount = spoken.t("{done} of {total}", done=spoken.size(done), total=spoken.size(total))
    return Entry(at, "live", title, f"{name} · {amount}", done=done, total=total)


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**63 else 0


def _is_time(value: Any) -> bool:
    # Not a year that no calendar has, nor infinity: JSON as Python reads it has both.
    return isinstance(value, int | float) and 0 <= value < 2**37
