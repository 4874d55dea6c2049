"""Watching optimizers: that one has stepped, that one is about to, whether any learns at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from onward.frameworks.base import Framework

_RATES_LOOKED_AT = 100


class Watch:
    """Over the optimizers among `objects`; sees nothing where there is none."""

    def __init__(self, framework: Framework, objects: Mapping[str, Any]) -> None:
        self._framework = framework
        self._objects = objects
        self._ends: list[Callable[[], None]] = []
        self._stepped = False
        self._counted: list[int] = []
        self._best_rate = 0.0
        self._looked = 0
        self.sees_steps = False
        """Whether some optimizer tells when it has stepped, or counts its steps."""
        self.sees_beginnings = False
        """Whether some optimizer tells before it steps."""

    def begin(self, before_step: Callable[[], None]) -> None:
        """From here on, `before_step` is called right before any of them changes parameters."""
        for value in self._objects.values():
            for end in (
                self._framework.after_optimizer_step(value, self._on_step),
                self._framework.before_optimizer_step(value, before_step),
            ):
                if end is not None:
                    self._ends.append(end)
        self._counted = self._count()
        self.sees_beginnings = bool(self._ends)
        self.sees_steps = bool(self._ends) or bool(self._counted)

    def recount(self) -> None:
        """Optimizers that were made to begin anew count anew: that is no step."""
        self._counted = self._count()

    def end(self) -> None:
        """Nothing is called any more."""
        for end in self._ends:
            end()

    def before_first_step(self, call: Callable[[], None]) -> None:
        """Calls once, right before parameters first change; at once where nobody would tell."""
        ends: list[Callable[[], None]] = []

        def once() -> None:
            for end in ends:
                end()
            call()

        for value in self._objects.values():
            end = self._framework.before_optimizer_step(value, once)
            if end is not None:
                ends.append(end)
        self._ends += ends
        if not ends:
            call()

    def take_step(self) -> bool:
        """Whether some optimizer has stepped since this was last asked."""
        stepped, self._stepped = self._stepped, False
        if self._counted:
            before, self._counted = self._counted, self._count()
            stepped = stepped or before != self._counted
        return stepped

    def look_at_rates(self) -> None:
        """Notes the learning rates of a step, of the first hundred."""
        if self._looked >= _RATES_LOOKED_AT:
            return
        rates = [r for v in self._objects.values() for r in self._framework.learning_rates(v)]
        if rates:
            self._looked += 1
            self._best_rate = max(self._best_rate, *rates)

    @property
    def learned_nothing(self) -> bool:
        """Whether every learning rate that was seen was zero."""
        return bool(self._looked) and self._best_rate == 0.0

    def _count(self) -> list[int]:
        counts = map(self._framework.optimizer_steps, self._objects.values())
        return [count for count in counts if count is not None]

    def _on_step(self) -> None:
        self._stepped = True
