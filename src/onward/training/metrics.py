"""The numbers that a loop tells, kept until someone looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onward.errors import UsageError


class Metrics:
    """The last value of each metric, by name."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def remember(self, values: Mapping[str, Any]) -> None:
        """Takes numbers or one-element tensors."""
        for name, value in values.items():
            # Detached, so that a loss does not keep its graph; turned into a number only when
            # someone looks, so that a step never waits for an accelerator.
            detach = getattr(value, "detach", None)
            self._values[name] = value if detach is None else detach()

    @property
    def latest(self) -> Mapping[str, Any]:
        """All of them as they were told: numbers, or tensors that may still be on their way."""
        return self._values

    def numbers(self) -> dict[str, float | None]:
        """All of them; None for one that is not finite. Raises `UsageError` for what is none."""
        found = {name: number(value, name) for name, value in self._values.items()}
        return {name: value if math.isfinite(value) else None for name, value in found.items()}


def number(value: Any, name: str) -> float:
    """`value` as a float, or `UsageError`."""
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"the metric {name!r} is a {type(value).__name__}", do="log single numbers"
        ) from error
