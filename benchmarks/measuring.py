"""What the benchmarks share: repetitions, medians, the machine's name."""

from __future__ import annotations

import os
import platform
import statistics
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True)
class Result:
    """One figure beside its target. `values` are all repetitions.

    The target is the most that it may be, or with `at_least` the least.
    """

    name: str
    unit: str
    target: float
    values: tuple[float, ...]
    at_least: bool = False

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def line(self) -> str:
        sign = "≥" if self.at_least else "≤"
        met = self.median >= self.target if self.at_least else self.median <= self.target
        verdict = "met" if met else "MISSED"
        spread = f"{min(self.values):.4g} – {max(self.values):.4g}"
        return (
            f"{self.name:<62} {self.median:>9.4g} {self.unit:<9} "
            f"(target {sign} {self.target:g}, {spread}, n={len(self.values)}) {verdict}"
        )


def machine() -> str:
    """Such as `2026-11-22, 2 cores, 24 GiB, Linux …, Python 3.11.7`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"{platform.system()} {platform.release()}, Python {platform.python_version()}"
    )
