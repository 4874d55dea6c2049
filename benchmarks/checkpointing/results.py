"""The document that a run writes, and the figures that are read out of it."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.checkpointing.subjects import OURS

MIB = 1 << 20


@dataclass
class Measured:
    """One library in one scenario in one repetition: what its processes printed."""

    subject: str
    scenario: str
    repetition: int
    saved: dict[str, Any]
    restored: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By variant; `""` is the usual one."""

    @property
    def right(self) -> bool:
        """Whether each restore gave, bit for bit, the state at the moment of the save."""
        return all(
            set(found["digests"]) == {self.saved["digest"]} for found in self.restored.values()
        )


@dataclass
class Results:
    """All of one run."""

    machine: str
    command: str
    repetitions: int
    scale: float
    versions: dict[str, str]
    limits: list[dict[str, float]] = field(default_factory=list)
    measured: list[Measured] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def read(cls, file: Path) -> Results:
        document = json.loads(file.read_text())
        document["measured"] = [Measured(**one) for one in document["measured"]]
        return cls(**document)

    def with_more(self, other: Results) -> Results:
        """Two runs on one machine as one document: scenarios of `other` that are not here."""
        more = [one for one in other.measured if one.scenario not in self.scenarios()]
        return replace(
            self,
            command=f"{self.command}; {other.command}",
            measured=self.measured + more,
            unavailable=self.unavailable | other.unavailable,
            failed=self.failed + other.failed,
        )

    def scenarios(self) -> list[str]:
        return sorted({one.scenario for one in self.measured})

    def subjects(self, scenario: str) -> list[str]:
        return list(dict.fromkeys(m.subject for m in self._ordered() if m.scenario == scenario))

    def of(self, scenario: str, subject: str) -> list[Measured]:
        """By repetition."""
        return [m for m in self._ordered() if (m.scenario, m.subject) == (scenario, subject)]

    def wrong(self) -> list[Measured]:
        return [one for one in self.measured if not one.right]

    def by_repetition(self, scenario: str, subject: str, figure: str) -> dict[int, float]:
        """See `FIGURES`. Empty where the figure does not apply."""
        found = {one.repetition: FIGURES[figure](one) for one in self.of(scenario, subject)}
        return {repetition: value for repetition, value in found.items() if value is not None}

    def values(self, scenario: str, subject: str, figure: str) -> list[float]:
        return list(self.by_repetition(scenario, subject, figure).values())

    def is_right(self, scenario: str, subject: str) -> bool:
        """Whether it restored what it was given, whenever it did, which was at least once."""
        found = self.of(scenario, subject)
        return all(one.right for one in found) and any(one.restored for one in found)

    def best_peer(self, scenario: str, figure: str, *, asynchronous: bool = False) -> str:
        """Whose median is lowest among the peers that are right; `""` without any."""
        peers = []
        for subject in self.subjects(scenario):
            if subject == OURS or not self.is_right(scenario, subject):
                continue
            if asynchronous and not self.of(scenario, subject)[0].saved["asynchronous"]:
                continue
            if values := self.values(scenario, subject, figure):
                peers.append((statistics.median(values), subject))
        return min(peers)[1] if peers else ""

    def _ordered(self) -> list[Measured]:
        return sorted(self.measured, key=lambda one: one.repetition)


def _median(name: str) -> Callable[[Measured], float | None]:
    def read(one: Measured) -> float | None:
        values = one.saved[name]
        return statistics.median(values) if values else None

    return read


def _restore(variant: str, name: str) -> Callable[[Measured], float | None]:
    return lambda one: one.restored[variant][name] if variant in one.restored else None


FIGURES: dict[str, Callable[[Measured], float | None]] = {
    "step_s": lambda one: one.saved["step_s"],
    "first_stall_s": lambda one: one.saved["first_stall_s"],
    "stall_s": _median("stall_s"),
    "call_s": _median("call_s"),
    "lost_s": _median("lost_s"),
    "pace": _median("pace"),
    "durable_s": _median("durable_s"),
    "cpu_s": _median("cpu_s"),
    "cold_s": _restore("", "cold_s"),
    "warm_s": _restore("", "warm_s"),
    "cold_unverified_s": _restore("unverified", "cold_s"),
    "warm_unverified_s": _restore("unverified", "warm_s"),
    "bytes": lambda one: one.saved["stored_bytes"] / one.saved["state_bytes"],
    "full_saves": lambda one: (
        one.saved["stored_bytes"] / one.saved["first_bytes"] / (one.saved["last"] + 1)
    ),
    "peak": lambda one: one.saved["peak_extra_bytes"] / one.saved["state_bytes"],
    "peak_less_256": lambda one: (
        (one.saved["peak_extra_bytes"] - 256 * MIB) / one.saved["state_bytes"]
    ),
}
"""One number of one library in one scenario in one repetition: the median over its saves."""
