"""What a scheduler asks of an engine, and the folder through which it and an agent talk.

An attempt is a folder. Whoever schedules writes `job.json` there; the agent writes the rest:

    job.json       what to do: a `JobSpec`, and limits
    agent.json     created once, only if absent: the agent that has this attempt. Nobody else may
    lock           held by the agent as long as it lives; the kernel gives it back
    control        what is asked of the agent: one word of `ASKS`, the strongest so far
    events.jsonl   what happens, in order; grows only. A line that does not end yet is not there yet
    log            what the script and the agent print, secrets taken out; grows only
    log.cut.json   which of its bytes were given back, where it is longer than allowed
    script.json    the script's process
    outcome.json   the end, complete or absent. It comes after everything else

Both sides may die at any moment. Because nothing here is ever taken back, whoever comes later reads
the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

JOB = "job.json"
AGENT = "agent.json"
LOCK = "lock"
CONTROL = "control"
EVENTS = "events.jsonl"
LOG = "log"
LOG_CUT = "log.cut.json"
SCRIPT = "script.json"
OUTCOME = "outcome.json"
WORK = "work"
"""The script's working directory: a copy of its code, for this attempt alone."""

ATTEMPT_VARIABLE = "ONWARD_ATTEMPT"
"""Every process of an attempt has it in its environment, by which they are found again."""

ASKS = ("stop", "kill")
"""`stop`: save, then end within the grace period. `kill`: end now. Both push what was committed."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What an engine needs to start an agent. `environment` may hold secrets: never write it down.

    `secret_names` are variables of `environment` whose values must not appear in the log.
    """

    attempt: str
    folder: Path
    environment: Mapping[str, str] = field(repr=False)
    secret_names: tuple[str, ...] = ()
    resources: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sighting:
    """How an attempt looks: `absent` (no agent took it yet), `running`, `ended` (there is an
    outcome) or `gone` (an agent took it, lives no more, and left no outcome).

    `heard_at` is when its log or its events last grew, `alive_at` when its agent last did something
    at all, in seconds since 1970; 0.0 before that. `leftover`: of what an agent that is gone
    started, something still runs."""

    state: str
    outcome: Mapping[str, Any] | None = None
    host: str = ""
    pid: int = 0
    heard_at: float = 0.0
    alive_at: float = 0.0
    leftover: bool = False


class Engine(Protocol):
    """Starts agents and finds them again. None of these calls waits for training."""

    name: str

    def start(self, launch: Launch) -> None:
        """Starts an agent; harmless if one has this attempt already. Raises `JobError`."""

    def look(self, folder: Path) -> Sighting:
        """How an attempt is, whoever started it."""

    def ask(self, folder: Path, what: str) -> None:
        """Leaves a request of `ASKS` for the agent; a weaker one than before changes nothing."""

    def destroy(self, folder: Path) -> None:
        """Ends an agent that does not react, and asks what it started to stop; called again, ends
        that as well. An attempt that nobody took is taken by nobody after this."""
