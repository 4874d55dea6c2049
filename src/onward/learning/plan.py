"""How much an increment may train, and at which learning rate: decided before it begins."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from onward.errors import EmptyBudget, UsageError
from onward.learning.hooks import Counts

Unit = Literal["epochs", "steps", "seconds", "retrain"]

_AMOUNT = r"([0-9]+(?:\.[0-9]+)?)"
_FORMS: tuple[tuple[re.Pattern[str], Unit, float], ...] = (
    (re.compile(rf"{_AMOUNT}\s*epochs?"), "epochs", 1),
    (re.compile(rf"{_AMOUNT}\s*steps?"), "steps", 1),
    (re.compile(rf"{_AMOUNT}\s*(?:s|seconds?)"), "seconds", 1),
    (re.compile(rf"{_AMOUNT}\s*(?:m|min|minutes?)"), "seconds", 60),
    (re.compile(rf"{_AMOUNT}\s*(?:h|hours?)"), "seconds", 3600),
    (re.compile(rf"{_AMOUNT}\s*[x×*]\s*retrain"), "retrain", 1),
    (re.compile(rf"{_AMOUNT}\s*%\s*of\s*(?:a\s*)?retrain"), "retrain", 0.01),
)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much one increment may train; never a total over the model's life.

    An epoch has room for each new item once and for one old item beside each. A share of a retrain
    is a share of the steps that training from scratch on all the data would take.
    """

    unit: Unit
    amount: float

    @classmethod
    def of(cls, value: int | float | str | Budget) -> Budget:
        """From a number of epochs, or text: `3 epochs`, `500 steps`, `10 min`, `0.2 x retrain`.

        Raises `UsageError` for text that says something else, `EmptyBudget` for nothing at all.
        """
        budget = value if isinstance(value, Budget) else cls._read(value)
        if not (budget.amount > 0 and math.isfinite(budget.amount)):
            raise EmptyBudget(
                f"a budget of {budget} would train nothing",
                do="give this increment at least one step",
            )
        return budget

    @classmethod
    def _read(cls, value: int | float | str) -> Budget:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return cls("epochs", float(value))
        for form, unit, factor in _FORMS:
            if isinstance(value, str) and (found := form.fullmatch(value.strip().lower())):
                return cls(unit, float(found[1]) * factor)
        raise UsageError(
            f"{value!r} is no budget",
            do='give epochs as a number, or "3 epochs", "500 steps", "10 min", "0.2 x retrain"',
        )

    def __str__(self) -> str:
        if self.unit == "retrain":
            return f"{self.amount:g} x retrain"
        return f"{self.amount:g} {self.unit if self.amount != 1 else self.unit[:-1]}"


@dataclass(frozen=True, slots=True)
class Retrain:
    """What training from scratch on all the data would take."""

    epochs: float
    samples: int
    steps: int

    @classmethod
    def of(cls, items: int, *, epochs: float, batch_size: int) -> Retrain:
        """`epochs` times through `items`, in batches of `batch_size`."""
        return cls(
            epochs, round(items * epochs), max(1, round(epochs * math.ceil(items / batch_size)))
        )


@dataclass(frozen=True, slots=True)
class Curve:
    """The learning rate over an increment, as a factor of its peak.

    Warmed up linearly over the first `warmup` of the budget, then decayed along a cosine to `final`
    (Loshchilov & Hutter 2017; re-warming and re-decaying when training goes on: Ibrahim et al.
    2024). A model that is trained on at the small rate where its last schedule ended learns next to
    nothing; at a large one that never decays it does not settle.
    """

    warmup: float = 0.05
    final: float = 0.0

    def factor(self, done: float, *, step: float) -> float:
        """The factor for the step that begins at `done` (0 … 1) and takes `step` of the budget.

        Never zero before the end: the decay is over only when the last step is done.
        """
        if done < self.warmup:
            return min(1.0, (done + step) / self.warmup)
        rest = min(1.0, (done - self.warmup) / (1.0 - self.warmup))
        return self.final + (1.0 - self.final) * 0.5 * (1.0 + math.cos(math.pi * rest))


@dataclass(frozen=True, slots=True)
class Plan:
    """What an increment is about to do."""

    increment: int
    budget: Budget
    steps: int | None
    """Optimizer steps; None where the budget is a time."""
    seconds: float | None
    epochs: int | None
    """Epochs that hold these steps; None where the budget is a time."""
    batch_size: int
    counts: Counts | None
    """None where the script's own loader decides what is learned."""
    share: float
    """Of new items in a batch."""
    retrain: Retrain | None
    curve: Curve | None
    """None where the script schedules the learning rate itself."""
    peaks: tuple[float, ...]
    """The highest learning rate of each parameter group, in the order of the optimizers."""
    moments: str
    strategy: str
    caveat: str = ""

    @property
    def whole_epochs(self) -> bool:
        """Whether the budget ends where an epoch does, however many steps that takes."""
        return self.budget.unit == "epochs" and self.budget.amount.is_integer()

    def rates(self, *, done: float, step: float) -> list[float]:
        """The learning rate of each parameter group for the step that begins at `done`."""
        assert self.curve is not None
        factor = self.curve.factor(done, step=step)
        return [peak * factor for peak in self.peaks]

    def sentences(self) -> list[str]:
        """The plan for people."""
        how_much = f"{self.steps:,} steps" if self.steps is not None else f"{self.seconds:g} s"
        part = ""
        if self.retrain is not None and self.steps is not None:
            part = f", {self.steps / self.retrain.steps:.0%} of a full retrain"
        items = "the script's own loader"
        if self.counts is not None:
            items = f"{self.counts.new:,} new items"
            items += f", {self.counts.known:,} known" if self.counts.known else ""
        lines = [f"increment {self.increment}: {items}; {how_much}{part}; {self.strategy}"]
        if self.increment > 1 or self.share < 1.0:
            lines[0] += f" ({self.share:.0%} of a batch is new)"
        if self.curve is not None:
            peak = max(self.peaks)
            lines.append(
                f"learning rate warms up to {peak:g} over {self.curve.warmup:.0%} of the steps, "
                f"then decays to {peak * self.curve.final:g}; moments {self.moments}"
            )
        return [*lines, *([f"caution: {self.caveat}"] if self.caveat else [])]

    def document(self) -> dict[str, Any]:
        """The plan for the record."""
        return {
            "budget": str(self.budget),
            "steps": self.steps,
            "seconds": self.seconds,
            "share_of_new": self.share,
            "warmup": self.curve.warmup if self.curve else None,
            "peak_rates": list(self.peaks),
            "moments": self.moments,
        }


def planned_steps(
    budget: Budget, *, batches: int, retrain: Retrain | None, increment: int
) -> int | None:
    """Optimizer steps of a budget; `batches` is the length of one epoch of the increment.

    The first increment is the retrain of all there is: a share of one means all of it. None for a
    time. Raises `EmptyBudget` for zero steps, `UsageError` where nobody said what a retrain is.
    """
    match budget.unit:
        case "seconds":
            return None
        case "steps":
            steps = round(budget.amount)
        case "epochs":
            steps = round(budget.amount * batches)
        case "retrain":
            if retrain is None:
                raise UsageError(
                    f"{budget} of what",
                    why="nobody said how many epochs training from scratch takes",
                    do='say it: run.plan("0.2 x retrain", retrain_epochs=8)',
                )
            share = budget.amount if increment > 1 else max(1.0, budget.amount)
            steps = round(share * retrain.steps)
    if steps < 1:
        raise EmptyBudget(
            f"a budget of {budget} is zero steps here",
            why=f"an epoch of this increment has {batches} batches"
            + (f", a retrain {retrain.steps} steps" if retrain is not None else ""),
            do="give this increment at least one step",
        )
    return steps
