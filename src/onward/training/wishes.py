"""What whoever runs a script asks of its increments: it wins over what the script says, out loud.

`onward run` and the server pass them on in the environment (`environment.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from onward.errors import UsageError
from onward.learning.hooks import Hook
from onward.learning.plan import Budget
from onward.learning.strategies import hooks_of, known
from onward.learning.strategies import strategy as make_strategy
from onward.training.planning import AskedPlan

_MOST_SAMPLES = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wishes:
    """Empty: as the script says.

    `strategy` is a name, or NAME:SAMPLES for one that has a replay memory. `budget` is as
    `Run.plan` understands it. `margin` is the gate's. `promote`: whether a checkpoint that passes
    the gate becomes the champion by itself.
    """

    strategy: str = ""
    budget: str = ""
    margin: float | None = None
    promote: bool = True

    def check(self) -> None:
        """Raises `UsageError` or `EmptyBudget` for what cannot be meant."""
        if self.strategy:
            self._hooks()
        if self.budget:
            read_budget(self.budget)
        if self.margin is not None and not (math.isfinite(self.margin) and 0 <= self.margin <= 1):
            raise UsageError(
                f"the margin is {self.margin}", do="give a share from 0 to 1, such as 0.01"
            )

    def hooks(
        self, chosen: str | Hook | Sequence[Hook], *, say: Callable[[str], None]
    ) -> list[Hook]:
        """The hooks of the strategy that is wished for, else of the script's."""
        scripts = hooks_of(chosen)
        if not self.strategy:
            return scripts
        said = " + ".join(hook.describe() for hook in scripts) or "uniform"
        say(f"strategy {self.strategy}, as the job asks; the script says {said}")
        return self._hooks()

    def plan(self, asked: AskedPlan | None, *, say: Callable[[str], None]) -> AskedPlan | None:
        """What the script asks of a plan, with the budget that is wished for."""
        if not self.budget:
            return asked
        if asked is None:
            raise UsageError(
                f"the job asks for a budget of {self.budget}, which the script cannot be held to",
                why="it neither calls run.plan nor loops over run.epochs",
                do="call run.plan in the script, or leave the budget away",
            )
        budget = self.budget_of(asked.budget, say=say)
        assert budget is not None
        return replace(asked, budget=Budget.of(budget))

    def budget_of(
        self, scripts: int | float | str | Budget | None, *, say: Callable[[str], None]
    ) -> int | float | str | Budget | None:
        """The budget that is wished for, else the script's."""
        if not self.budget:
            return scripts
        budget = read_budget(self.budget)
        if scripts is None:
            say(f"budget {budget}, as the job asks")
        elif budget != Budget.of(scripts):
            say(f"budget {budget}, as the job asks; the script says {Budget.of(scripts)}")
        return budget

    def margin_of(self, scripts: float, *, say: Callable[[str], None]) -> float:
        """The gate's margin."""
        if self.margin is None or self.margin == scripts:
            return scripts
        say(f"margin {self.margin:g}, as the job asks; the script says {scripts:g}")
        return self.margin

    def _hooks(self) -> list[Hook]:
        name, colon, samples = self.strategy.partition(":")
        known(name)
        if not colon:
            return make_strategy(name)
        if not (samples.isascii() and samples.isdigit() and 0 < int(samples) <= _MOST_SAMPLES):
            raise UsageError(
                f"{self.strategy!r} is no strategy",
                do="write NAME, or NAME:SAMPLES such as er:1000",
            )
        return make_strategy(name, memory=int(samples))


NO_WISHES = Wishes()


def read_budget(text: str) -> Budget:
    """A budget as text, such as `3`, `500 steps` or `0.2 x retrain`. Raises `UsageError`."""
    try:
        return Budget.of(float(text))
    except ValueError:
        return Budget.of(text)


def read_margin(text: str) -> float | None:
    """A margin as text; None for ''. Raises `UsageError`."""
    try:
        return float(text) if text else None
    except ValueError as error:
        raise UsageError(f"the margin is {text!r}", do="give a number such as 0.01") from error
