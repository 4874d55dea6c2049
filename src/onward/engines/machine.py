"""This machine: every agent is a process of its own, which outlives whoever started it."""

from __future__ import annotations

from pathlib import Path

from onward.engines.base import Launch, Sighting


class ThisMachine:
    """Starts agents here. See `engines/attempt.py` for what they do."""

    name = "machine"

    def start(self, launch: Launch) -> None:
        raise NotImplementedError

    def look(self, folder: Path) -> Sighting:
        raise NotImplementedError

    def ask(self, folder: Path, what: str) -> None:
        raise NotImplementedError

    def destroy(self, folder: Path) -> None:
        raise NotImplementedError
