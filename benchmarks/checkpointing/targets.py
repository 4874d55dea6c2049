"""What Onward promises about its checkpoints' costs, as ratios within one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.checkpointing.results import Results
from benchmarks.checkpointing.subjects import OURS


@dataclass(frozen=True)
class Verdict:
    """One promise beside what was measured. `values` has one ratio per repetition."""

    what: str
    limit: float
    values: tuple[float, ...]
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def word(self) -> str:
        if not self.values:
            return "not measured"
        met = self.median >= self.limit if self.at_least else self.median <= self.limit
        return "met" if met else "MISSED"

    @property
    def target(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"

    @property
    def spread(self) -> str:
        return f"{min(self.values):.3g} – {max(self.values):.3g}" if self.values else ""


def verdicts(results: Results) -> Iterator[Verdict]:
    """Every promise, in the order of the issue; with no values where a part did not run."""
    yield _against_peer(results, "a", "stall_s", 0.4, "stall, (a)", asynchronous=True)
    copies = [limit["copy_s"] for limit in results.limits]
    stalls = results.values("a", OURS, "stall_s")
    yield Verdict("stall, (a) / bare copy by all cores", 1.5, _ratios(stalls, copies))
    yield _against_peer(results, "c", "stall_s", 0.6, "stall, (c)", asynchronous=True)
    pace = tuple(results.values("a", OURS, "pace"))
    yield Verdict("steps per second while a save is written, (a)", 0.9, pace, at_least=True)
    yield _against_peer(results, "a", "durable_s", 0.8, "seconds to durable, (a)")
    yield _against_peer(results, "a", "cold_s", 1.1, "cold restore, verified, (a)")
    for scenario, limit in (("b", 1.35), ("c", 2.7)):
        values = tuple(results.values(scenario, OURS, "bytes"))
        yield Verdict(f"bytes after all saves / state, ({scenario})", limit, values)
    full = tuple(results.values("d", OURS, "full_saves"))
    yield Verdict("bytes after all saves / as many full saves, (d)", 1.01, full)
    peak = tuple(results.values("a", OURS, "peak_less_256"))
    yield Verdict("memory added by saving, less 256 MiB / state, (a)", 1.1, peak)


def _against_peer(
    results: Results, scenario: str, figure: str, limit: float, what: str, *,
    asynchronous: bool = False,
) -> Verdict:  # fmt: skip
    peer, theirs = results.best_peer(scenario, figure, asynchronous=asynchronous)
    ours = results.values(scenario, OURS, figure)
    return Verdict(f"{what} / {peer or 'best peer'}", limit, _ratios(ours, theirs))


def _ratios(ours: list[float], theirs: list[float]) -> tuple[float, ...]:
    return tuple(mine / their for mine, their in zip(ours, theirs, strict=False) if their)
