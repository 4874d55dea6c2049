"""Agents that exist in memory only, and do what they are told: for tests of whoever schedules."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onward.engines.base import EVENTS, Launch, Sighting
from onward.engines.folder import strength


@dataclass
class MemoryAgent:
    """An agent as its test sees it: it runs until it is told how it ends."""

    launch: Launch
    starts: int = 1
    """How often somebody wanted it started."""
    asked: str = ""
    deaf: bool = False
    """Whether it goes on whatever it is asked."""
    outcome: Mapping[str, Any] | None = None
    is_gone: bool = False
    heard_at: float = 0.0
    alive_at: float = 0.0
    leftover: bool = False
    events: list[dict[str, Any]] = field(default_factory=list)

    def tell(self, kind: str, **facts: Any) -> None:
        """Writes an event."""
        event = {"at": 0.0, "kind": kind, **facts}
        self.events.append(event)
        with (self.launch.folder / EVENTS).open("a") as file:
            file.write(json.dumps(event) + "\n")

    def end(
        self, exit_code: int, *, cause: str = "", exit_status: int | None = None, saves: int = 0,
        lost: tuple[str, ...] = (), message: str = "",
    ) -> None:  # fmt: skip
        """It leaves an outcome."""
        status = exit_code if exit_status is None else exit_status
        self.outcome = {
            "exit_code": exit_code,
            "cause": cause,
            "outcome": {
                "exit_code": exit_code, "message": message,
                "attempts": [{"exit_status": status, "saves": saves}],
            },
            "lost": list(lost),
        }  # fmt: skip

    def vanish(self, *, leftover: bool = False) -> None:
        """It is gone without an outcome."""
        self.is_gone, self.leftover = True, leftover


class MemoryEngine:
    """Starts such agents. Engines that share `agents` are one place, as one machine is."""

    name = "memory"

    def __init__(self, agents: dict[str, MemoryAgent | None] | None = None) -> None:
        self._agents = {} if agents is None else agents
        """By attempt; None where nobody may take it any more."""

    def agent(self, attempt: str) -> MemoryAgent:
        """The agent of an attempt, which must have been started."""
        found = self._agents[attempt]
        assert found is not None
        return found

    def again(self) -> MemoryEngine:
        """The same place, as a scheduler sees it that remembers nothing."""
        return MemoryEngine(self._agents)

    def start(self, launch: Launch) -> None:
        if launch.attempt not in self._agents:
            self._agents[launch.attempt] = MemoryAgent(launch)
        elif (agent := self._agents[launch.attempt]) is not None:
            agent.starts += 1

    def look(self, folder: Path) -> Sighting:
        if folder.name not in self._agents:
            return Sighting("absent")
        agent = self._agents[folder.name]
        if agent is None:
            return Sighting("gone")
        if agent.outcome is not None:
            return Sighting("ended", agent.outcome, "memory", 1)
        if agent.is_gone:
            return Sighting("gone", host="memory", pid=1, leftover=agent.leftover)
        return Sighting(
            "running", host="memory", pid=1, heard_at=agent.heard_at, alive_at=agent.alive_at
        )

    def ask(self, folder: Path, what: str) -> None:
        agent = self._agents.get(folder.name)
        if agent is None or strength(what) <= strength(agent.asked):
            return
        agent.asked = what
        if not agent.deaf and agent.outcome is None and not agent.is_gone:
            if what == "stop":
                agent.end(75)
            else:
                agent.end(1, exit_status=-9)

    def destroy(self, folder: Path) -> None:
        agent = self._agents.setdefault(folder.name, None)
        if agent is None or agent.outcome is not None:
            return
        agent.leftover = agent.leftover and not agent.is_gone
        agent.is_gone = True
