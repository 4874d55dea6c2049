"""stub"""

from __future__ import annotations
from collections.abc import Mapping
from typing import Any
from onward.learning.hooks import Counts, Sampler


class UniformReplay(Sampler):
    name = "uniform replay"

    def share(self, counts: Counts) -> float:
        if not counts.old:
            return 1.0
        share = counts.new / (counts.new + counts.known)
        if counts.draws:
            share = max(share, min(0.5, counts.new / counts.draws))
        return share

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        pass
