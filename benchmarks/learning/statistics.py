"""A mean and how far it can be trusted: Student's t over seeds, without SciPy."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""The 97.5 % quantile of Student's t for 1 … 30 degrees of freedom."""


@dataclass(frozen=True)
class Mean:
    """The mean of some values, and half the width of its two-sided 95 % interval."""

    value: float
    half_width: float
    """NaN for a single value: nothing is known about its spread."""

    @property
    def low(self) -> float:
        return self.value - self.half_width

    @property
    def high(self) -> float:
        return self.value + self.half_width

    def text(self, digits: int) -> str:
        """Such as `91.70 ± 0.35`."""
        if math.isnan(self.half_width):
            return f"{self.value:.{digits}f}"
        return f"{self.value:.{digits}f} ± {self.half_width:.{digits}f}"


def mean(values: Sequence[float]) -> Mean:
    """Over independent seeds. More than 31 values are judged as 31 would be: a bit too wide."""
    center = statistics.fmean(values)
    if len(values) == 1:
        return Mean(center, math.nan)
    quantile = T_975[min(len(values) - 1, len(T_975)) - 1]
    return Mean(center, quantile * statistics.stdev(values) / math.sqrt(len(values)))
