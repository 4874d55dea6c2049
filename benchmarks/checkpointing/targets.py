"""What Onward promises about its checkpoints' costs, as ratios within one run."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

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
    """Every promise. Without values where a part did not run, or where we restored wrongly."""
    if results.scenarios() != ["m"]:
        yield from _in_pytorch(results)
    if "m" in results.scenarios():
        yield _beside_peer(results, "m", "stall_s", 1.0, "stall, (m)")
        yield _beside_peer(results, "m", "call_s", 1.0, "call, (m)")


def _in_pytorch(results: Results) -> Iterator[Verdict]:
    ours = partial(_ours, results)
    yield _beside_peer(results, "a", "stall_s", 0.4, "stall, (a)", asynchronous=True)
    copies = {number: limit["copy_s"] for number, limit in enumerate(results.limits)}
    stalls = _ratios(ours("a", "stall_s"), copies)
    yield Verdict("stall, (a) / bare copy by all cores", 1.5, stalls)
    yield _beside_peer(results, "c", "stall_s", 0.6, "stall, (c)", asynchronous=True)
    yield Verdict(
        "steps per second while a save is written, (a)", 0.9, _plain(ours("a", "pace")), True
    )
    yield _beside_peer(results, "a", "durable_s", 0.8, "seconds to durable, (a)")
    yield _beside_peer(results, "a", "cold_s", 1.1, "cold restore, verified, (a)")
    for scenario, limit in (("b", 1.35), ("c", 2.7)):
        stored = _plain(ours(scenario, "bytes"))
        yield Verdict(f"bytes after all saves / state, ({scenario})", limit, stored)
    full = _plain(ours("d", "full_saves"))
    yield Verdict("bytes after all saves / as many full saves, (d)", 1.01, full)
    peak = _plain(ours("a", "peak_less_256"))
    yield Verdict("memory added by saving, less 256 MiB / state, (a)", 1.1, peak)


def _beside_peer(
    results: Results, scenario: str, figure: str, limit: float, what: str, *,
    asynchronous: bool = False,
) -> Verdict:  # fmt: skip
    peer = results.best_peer(scenario, figure, asynchronous=asynchronous)
    theirs = results.by_repetition(scenario, peer, figure)
    ratios = _ratios(_ours(results, scenario, figure), theirs)
    return Verdict(f"{what} / {peer or 'best peer'}", limit, ratios)


def _ours(results: Results, scenario: str, figure: str) -> dict[int, float]:
    if not results.is_right(scenario, OURS):
        return {}
    return results.by_repetition(scenario, OURS, figure)


def _ratios(ours: dict[int, float], theirs: dict[int, float]) -> tuple[float, ...]:
    """Of the same repetition: what slows a machine for a while slows both."""
    return tuple(mine / theirs[at] for at, mine in ours.items() if theirs.get(at))


def _plain(values: dict[int, float]) -> tuple[float, ...]:
    return tuple(values.values())
