"""From the events that an agent wrote to what the database tells of its attempt."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onward.engines.base import EVENTS
from onward.engines.plain_files import open_plain
from onward.errors import Damaged

_MOST_BYTES = 1 << 20


@dataclass(slots=True)
class News:
    """What events tell, folded: columns of the attempt, and keys of the job's progress."""

    offset: int
    attempt: dict[str, Any] = field(default_factory=dict)
    progress: dict[str, Any] = field(default_factory=dict)
    saves: int = 0
    claims: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.attempt or self.progress or self.saves or self.claims)


def read_news(folder: Path, offset: int) -> News:
    """What was written from `offset` on, up to some limit; call it again from `News.offset`.

    A line that does not end yet is left for the next call.
    """
    news = News(offset)
    try:
        fd = open_plain(folder / EVENTS)
    except Damaged:
        return news  # the script put something in its place: it has no news any more
    if fd is None:
        return news
    with open(fd, "rb") as file:
        file.seek(offset)
        data = file.read(_MOST_BYTES)
    end = data.rfind(b"\n") + 1
    if not end and len(data) == _MOST_BYTES:
        end = len(data)  # no line of ours is that long
    news.offset = offset + end
    for line in data[:end].splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict):
            _fold(news, event)
    return news


def _fold(news: News, event: dict[str, Any]) -> None:
    match event.get("kind"):
        case "begin":
            news.attempt["verb"] = str(event.get("verb") or "")[:16]
            news.attempt["checkpoint"] = str(event.get("checkpoint") or "")[:64]
            news.progress["increment"] = event.get("increment")
            if isinstance(event.get("generation"), int):
                news.claims.append(event["generation"])
        case "training":
            step = event.get("step")
            if isinstance(step, int) and abs(step) < 1 << 53:
                news.attempt["step"] = step
            for name in ("step", "epoch", "batch", "batches", "metrics", "behind"):
                if name in event:
                    news.progress[name] = event[name]
        case "saved":
            news.saves += 1
            news.progress["checkpoint"] = event.get("checkpoint")
            news.progress["saved_at"] = event.get("at")
        case "transfer":
            news.progress["transfer"] = {
                name: event.get(name) for name in ("title", "direction", "done", "total")
            }
        case "pushed":
            news.progress["pushed"] = {name: event.get(name) for name in ("size_bytes", "files")}
        case "say":
            news.progress["said"] = str(event.get("text") or "")[:500]
