"""How often to save: as often as is cheap, measured against how often a machine fails."""

from __future__ import annotations

import math
import statistics
from collections import deque

_FIRST_INTERVAL_S = 60.0
_REMEMBERED = 5


def young_daly(cost_s: float, mtbf_s: float) -> float:
    """Seconds of training between two saves that lose the least time.

    `cost_s` is what one save costs the training, `mtbf_s` the mean time between failures.
    J. T. Daly, "A higher order estimate of the optimum checkpoint interval for restart dumps",
    Future Generation Computer Systems 22 (2006), equation 37; its first term is J. W. Young's
    (Communications of the ACM 17, 1974).
    """
    if cost_s >= 2 * mtbf_s:
        return mtbf_s
    share = cost_s / (2 * mtbf_s)
    return math.sqrt(2 * cost_s * mtbf_s) * (1 + math.sqrt(share) / 3 + share / 9) - cost_s


class MeasuredInterval:
    """The interval that the measured saves call for: the median of the last five.

    Never shorter than a save takes to become durable, because only one is on its way at a time.
    """

    def __init__(self, mtbf_s: float) -> None:
        self.mtbf_s = mtbf_s
        self._stalls_s: deque[float] = deque(maxlen=_REMEMBERED)
        self._durables_s: deque[float] = deque(maxlen=_REMEMBERED)

    def observe(self, *, stall_s: float, durable_s: float) -> None:
        self._stalls_s.append(stall_s)
        self._durables_s.append(durable_s)

    @property
    def seconds(self) -> float:
        """The present interval; a minute before anything was measured."""
        if not self._stalls_s:
            return min(_FIRST_INTERVAL_S, self.mtbf_s)
        best_s = young_daly(statistics.median(self._stalls_s), self.mtbf_s)
        return max(best_s, statistics.median(self._durables_s))

    def about(self) -> dict[str, float]:
        """What was measured and what follows, for people."""
        facts = {"mtbf_s": self.mtbf_s, "interval_s": round(self.seconds, 3)}
        if self._stalls_s:
            facts["stall_s"] = round(statistics.median(self._stalls_s), 4)
            facts["durable_s"] = round(statistics.median(self._durables_s), 4)
        return facts
