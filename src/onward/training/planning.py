"""The plan of a run: made once an increment's data and strategy are known, then followed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from onward.errors import EmptyBudget, UsageError
from onward.frameworks.base import Framework
from onward.learning.hooks import Counts
from onward.learning.plan import Budget, Curve, Plan, Retrain, planned_steps

Moments = Literal["kept", "reset"]


@dataclass(frozen=True, slots=True)
class AskedPlan:
    """What a script asks of a plan; see `Run.plan`."""

    budget: Budget
    retrain_epochs: float | None = None
    warmup: float = 0.05
    final: float = 0.0
    moments: Moments = "kept"
    schedule: bool = False
    accumulate: int = 1
    """Batches of an optimizer step."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.warmup < 1.0:
            raise UsageError(
                f"warmup is {self.warmup}", do="give a share of the budget: 0 or more, below 1"
            )
        if not 0.0 <= self.final <= 1.0:
            raise UsageError(f"final is {self.final}", do="give a share of the peak rate, 0 … 1")
        if self.accumulate < 1:
            raise UsageError(f"accumulate is {self.accumulate}", do="give 1 batch a step, or more")
        if self.moments not in ("kept", "reset"):
            raise UsageError(f"moments is {self.moments!r}", do='use "kept" or "reset"')
        epochs = self.retrain_epochs
        if epochs is not None and not (epochs > 0 and math.isfinite(epochs)):
            raise UsageError(f"retrain_epochs is {epochs}", do="give a finite number above zero")


@dataclass(frozen=True, slots=True)
class Increment:
    """What a plan is made of: the increment, its data, its mix."""

    number: int
    counts: Counts | None
    batch_size: int
    batches: int
    """Of one epoch."""
    share: float
    strategy: str
    caveat: str


class Planner:
    """Makes the plan and follows it: how many steps, and at which learning rate each.

    What was decided when an increment began (the peak rates, what a retrain is) is its state.
    """

    def __init__(self, framework: Framework, objects: Mapping[str, Any]) -> None:
        self.plan: Plan | None = None
        self._framework = framework
        self._optimizers = [v for v in objects.values() if framework.learning_rates(v)]
        self._retrain_epochs: float | None = None
        self._peaks: tuple[float, ...] | None = None

    def steps(
        self, asked: AskedPlan, increment: int, *, batches: int, items: int, size: int
    ) -> int | None:
        """How many optimizer steps `asked` means; None for a time.

        `batches` is the length of an epoch, `size` the rows of a batch.
        """
        return planned_steps(
            asked.budget,
            batches=-(-batches // asked.accumulate),
            retrain=self._retrain(asked, items, size * asked.accumulate),
            increment=increment,
        )

    def make(self, asked: AskedPlan, increment: Increment) -> Plan:
        """The plan; raises `EmptyBudget` if it would train nothing, or at a rate of zero."""
        counts = increment.counts
        items = increment.batches if counts is None else counts.new + counts.known
        steps = self.steps(
            asked, increment.number, batches=increment.batches, items=items,
            size=increment.batch_size,
        )  # fmt: skip
        if self._peaks is None:
            self._peaks = self._live_rates()
            if asked.schedule and increment.share == 1.0 and counts and counts.known:
                # Nothing holds on to what was learned but a smaller step.
                self._peaks = tuple(0.5 * peak for peak in self._peaks)
        if asked.schedule and max(self._peaks, default=0.0) == 0.0:
            raise EmptyBudget(
                f"increment {increment.number} would train at a learning rate of zero",
                why="every parameter group of the optimizer has lr=0",
                do="build the optimizer with the peak learning rate",
            )
        self.plan = Plan(
            increment=increment.number,
            budget=asked.budget,
            steps=steps,
            seconds=asked.budget.amount if asked.budget.unit == "seconds" else None,
            epochs=_epochs(asked, steps, increment.batches),
            batch_size=increment.batch_size,
            counts=counts,
            share=increment.share,
            retrain=self._retrain(asked, items, increment.batch_size * asked.accumulate),
            curve=Curve(asked.warmup, asked.final) if asked.schedule else None,
            peaks=self._peaks,
            moments=asked.moments,
            strategy=increment.strategy,
            caveat=increment.caveat,
        )
        return self.plan

    def forget_moments(self) -> None:
        """Lets the optimizers begin anew with the weights that they have."""
        for optimizer in self._optimizers:
            self._framework.forget_moments(optimizer)

    def follow(self, *, steps: int, seconds: float) -> None:
        """Sets the learning rates for the step that comes after `steps` and `seconds`."""
        plan = self.plan
        if plan is None or plan.curve is None:
            return
        if plan.steps is not None:
            if steps >= plan.steps:
                return
            done, step = steps / plan.steps, 1.0 / plan.steps
        else:
            assert plan.seconds is not None
            done = min(1.0, seconds / plan.seconds)
            step = done / steps if steps else plan.curve.warmup / 10
        rates = plan.rates(done=done, step=step)
        for optimizer in self._optimizers:
            count = len(self._framework.learning_rates(optimizer))
            self._framework.set_learning_rates(optimizer, rates[:count])
            rates = rates[count:]

    def spent(self, *, steps: int, seconds: float) -> bool:
        """Whether the budget is used up."""
        if self.plan is None:
            return False
        if self.plan.whole_epochs:
            return False  # the loop over epochs ends by itself
        if self.plan.steps is not None:
            return steps >= self.plan.steps
        assert self.plan.seconds is not None
        return seconds >= self.plan.seconds

    def state_dict(self) -> dict[str, Any]:
        return {
            "retrain_epochs": self._retrain_epochs,
            "peaks": None if self._peaks is None else list(self._peaks),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, new_increment: bool) -> None:
        self._retrain_epochs = state["retrain_epochs"]
        if not new_increment and state["peaks"] is not None:
            self._peaks = tuple(state["peaks"])

    def _live_rates(self) -> tuple[float, ...]:
        return tuple(r for o in self._optimizers for r in self._framework.learning_rates(o))

    def _retrain(self, asked: AskedPlan, items: int, batch_size: int) -> Retrain | None:
        if asked.retrain_epochs is not None:
            self._retrain_epochs = asked.retrain_epochs
        elif self._retrain_epochs is None and asked.budget.unit == "epochs":
            # How the first increment was trained is how a retrain would be.
            self._retrain_epochs = asked.budget.amount
        if self._retrain_epochs is None:
            return None
        return Retrain.of(items, epochs=self._retrain_epochs, batch_size=batch_size)


def _epochs(asked: AskedPlan, steps: int | None, batches: int) -> int | None:
    """How many epochs hold these steps; more may be needed only where the budget is a time."""
    if steps is None:
        return None
    if asked.budget.unit == "epochs" and asked.budget.amount.is_integer():
        return int(asked.budget.amount)
    # An epoch's last step may be of fewer batches, or its last batches of no step.
    return -(-steps // max(1, batches // asked.accumulate))
