"""The metrics of an increment over its steps, thinned to what a picture can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

_POINTS = 200


class Curve:
    """At most 200 points (step, metrics); when there are more, every second one goes.

    What is noted may still be on an accelerator: it is turned into numbers when someone asks.
    """

    def __init__(self) -> None:
        self._points: list[tuple[int, dict[str, Any]]] = []
        self._stride = 1

    def note(self, step: int, values: Mapping[str, Any]) -> None:
        """The metrics after this step of the increment."""
        if step % self._stride or not values:
            return
        self._points.append((step, dict(values)))
        if len(self._points) > _POINTS:
            self._stride *= 2
            self._points = [point for point in self._points if point[0] % self._stride == 0]

    def points(self) -> list[list[Any]]:
        """`[[step, {name: number or None}], …]`, plain."""
        self._points = [(step, _numbers(values)) for step, values in self._points]
        return [[step, dict(values)] for step, values in self._points]

    def go_on_from(self, points: Sequence[Sequence[Any]]) -> None:
        """Takes up what `points` once returned."""
        self._points = [(int(step), dict(values)) for step, values in points]
        while any(step % self._stride == 0 for step, _ in self._points) and all(
            step % (2 * self._stride) == 0 for step, _ in self._points
        ):
            self._stride *= 2


def _numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
    found = {}
    for name, value in values.items():
        number = None if value is None else float(value)
        found[name] = number if number is not None and math.isfinite(number) else None
    return found
