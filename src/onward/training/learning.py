"""How a run learns: the strategy, the plan and the holdouts of its increment, as one thing."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.items import Digests
from onward.errors import UsageError
from onward.learning.gate import Verdict
from onward.learning.plan import Budget
from onward.learning.strategies import caveat
from onward.training.curve import Curve
from onward.training.judging import Judging
from onward.training.learner import Learner
from onward.training.lessons import LoaderLessons
from onward.training.planning import AskedPlan, Increment, Planner
from onward.training.wishes import NO_WISHES, Wishes


class Learning:
    """Between the loop, which calls it, and the parts that know how.

    An increment begins once its loader and its budget are known: at `run.plan`, `run.epochs` or
    the first batch, whichever comes first.
    """

    def __init__(
        self,
        learner: Learner,
        planner: Planner,
        judging: Judging,
        *,
        increment: int,
        wishes: Wishes = NO_WISHES,
    ) -> None:
        self.learner = learner
        self.planner = planner
        self.judging = judging
        self.wishes = wishes
        self.curve = Curve()
        self.samples_before = 0
        """Rows of this increment that earlier processes handed out."""
        self.elapsed_s: Callable[[], float] = lambda: 0.0
        """Seconds of this increment so far."""
        self.say: Callable[[str], None] = lambda text: None
        self._increment = increment
        self._known = 0
        self._classes: set[int] = set()  # of earlier increments
        self._begun = False
        self._resumed = False

    # What loaders tell.

    def held_out(self, digests: Callable[[], Digests], count: int) -> npt.NDArray[np.bool_]:
        """Which of a dataset's items belong to a holdout."""
        if not self.judging.holdouts.names:
            return np.zeros(count, bool)
        return self.judging.holdouts.contains(digests())

    def teach(self, lessons: LoaderLessons, *, known: int, removed: Digests) -> None:
        """A loader is there: its lessons, how many items were known before, and what is gone."""
        first = self.learner.lessons is None
        self.learner.teach(lessons)
        if not first:
            return
        self._known = known
        forgotten = 0 if self._resumed else self.learner.forget(lessons, removed)
        if forgotten:
            self.say(f"{forgotten:,} items that are gone or changed left the replay memory")
        self.learner.draw_from_memory()

    # What the loop does.

    def begin(self, asked: AskedPlan | None, *, batches: int | None) -> None:
        """The increment begins, or goes on; only the first call counts.

        `batches` is the length of an epoch of the script's own loader, where it uses one.
        """
        if self._begun:
            if asked is not None and (asked.schedule or self.planner.plan is not None):
                raise UsageError(
                    "the increment has begun, and cannot be planned any more",
                    do="call run.plan once, after run.loader and before the loop",
                )
            return
        asked = self.wishes.plan(asked, say=self.say)
        self._begun = True
        fresh_start = not self.learner.begun
        if fresh_start and asked is not None and asked.moments == "reset":
            self.planner.forget_moments()
        self.learner.get_ready()
        if self.learner.lessons is not None:
            self._mix(asked)
        elif asked is not None and batches:
            self._plan_for_users_loader(asked, batches)
        self.judging.begin(resumed=not fresh_start)

    def _mix(self, asked: AskedPlan | None) -> None:
        lessons = self.learner.lessons
        assert lessons is not None
        loader = lessons.loader
        batches, size = len(loader), loader.batch_size
        steps = None
        if asked is not None:
            steps = self.planner.steps(
                asked, self._increment, batches=batches,
                items=len(lessons.new) + self._known, size=size,
            )  # fmt: skip
        draws = size * batches
        if asked is not None and steps is not None:
            draws = size * asked.accumulate * steps
        counts = self.learner.counts(self._known, draws=draws)
        if loader.replay == "uniform":
            share = self.learner.mix(counts)
        else:
            share = 1 / (1 + loader.replay)
            if self.learner.memory is not None:
                share = self.learner.mix(counts, share=share)
        if not counts.old:
            share = 1.0
        if asked is not None:
            self.planner.make(
                asked,
                Increment(
                    self._increment, counts, size, batches, share, self.learner.describe(),
                    self._caveat(lessons),
                ),
            )  # fmt: skip

    def _plan_for_users_loader(self, asked: AskedPlan, batches: int) -> None:
        # Its batches are what is counted: nobody knows its items.
        strategy = self.learner.describe()
        self.planner.make(asked, Increment(self._increment, None, 1, batches, 1.0, strategy, ""))

    def _caveat(self, lessons: LoaderLessons) -> str:
        return caveat(
            self.learner.hooks,
            new_classes=bool(self._classes) and not _classes(lessons) <= self._classes,
        )

    def after_step(self, *, steps: int, metrics: Mapping[str, Any]) -> None:
        """An optimizer step is done, the `steps`-th of this increment."""
        self.learner.after_step()
        self.judging.after_step()
        self.curve.note(steps, metrics)
        self.follow(steps)

    def follow(self, steps: int) -> None:
        """Sets the learning rates for the step that comes after `steps`."""
        self.planner.follow(steps=steps, seconds=self.elapsed_s())

    @property
    def budget(self) -> Budget | None:
        """What is planned."""
        return self.planner.plan.budget if self.planner.plan is not None else None

    def is_over(self, epoch: int, steps: int) -> bool:
        """Whether there is nothing left to train, of steps or of whole epochs."""
        plan = self.planner.plan
        whole = plan is not None and plan.epochs is not None and epoch >= plan.epochs
        return whole or self.spent(steps)

    def epochs_left(
        self, budget: int | float | str | Budget | None, *, first: int, steps: Callable[[], int]
    ) -> Iterator[int]:
        """The epochs still to train, from `first`; `budget` is for a loop that nothing is known of.

        Raises `UsageError` where nobody said how much to train.
        """
        plan = self.planner.plan
        if plan is not None:
            numbers = itertools.count(first) if plan.epochs is None else range(first, plan.epochs)
            return itertools.takewhile(lambda _: not self.spent(steps()), numbers)
        if budget is None:
            raise UsageError(
                "run.epochs needs a budget",
                do="give it epochs, such as run.epochs(3), or call run.plan before",
            )
        count = Budget.of(budget)
        return iter(range(first, math.ceil(count.amount) if count.unit == "epochs" else first + 1))

    def spent(self, steps: int) -> bool:
        """Whether the budget is used up."""
        return self.planner.spent(steps=steps, seconds=self.elapsed_s())

    def finish(self) -> Verdict | None:
        """All steps are made: holdouts are scored, the champion challenged, memories filled."""
        # First what calls the script's own code: if that raises, `finish` may be called again.
        verdict = self.judging.finish()
        loader = self.learner.lessons.loader if self.learner.lessons else None
        met = loader.met() if loader is not None else None
        self.learner.look_back(met)
        if self.learner.lessons is not None:
            self._classes |= _classes(self.learner.lessons)
        for sentence in self.judging.omissions():
            self.say(sentence)
        return verdict

    @property
    def samples(self) -> int:
        """Rows handed out in this increment."""
        lessons = self.learner.lessons
        return self.samples_before + (lessons.loader.samples if lessons else 0)

    # For the record, and its state.

    def about(self, *, steps: int) -> dict[str, Any]:
        """What the bill is made of."""
        lessons, plan, memory = self.learner.lessons, self.planner.plan, self.learner.memory
        retrain = plan.retrain if plan is not None else None
        return {
            "steps": steps,
            "samples": self.samples,
            "seconds": round(self.elapsed_s(), 3),
            "batch_size": lessons.loader.batch_size if lessons else None,
            "new": len(lessons.new) if lessons else None,
            "known": self._known if lessons else None,
            "strategy": self.learner.describe(),
            "memory": None if memory is None else {
                "items": len(memory), "bytes": memory.size_bytes,
            },
            "plan": plan.document() if plan is not None else None,
            "retrain": None if retrain is None else {
                "steps": retrain.steps, "samples": retrain.samples, "epochs": retrain.epochs,
            },
            "margin": self.judging.margin,
            "curve": self.curve.points(),
        }  # fmt: skip

    def go_on_from(self, about: Mapping[str, Any]) -> None:
        """Takes up what `about` said when the checkpoint of a resumed increment was made."""
        self.samples_before = int(about.get("samples") or 0)
        self.curve.go_on_from(about.get("curve") or [])

    def state_dict(self) -> dict[str, Any]:
        return {
            "strategy": self.learner.state_dict(),
            "plan": self.planner.state_dict(),
            "holdouts": self.judging.holdouts.state_dict(),
            "classes": sorted(self._classes),
        }

    def load_state_dict(self, state: Mapping[str, Any], *, new_increment: bool) -> None:
        self._resumed = not new_increment
        self.learner.load_state_dict(state["strategy"], new_increment=new_increment)
        self.planner.load_state_dict(state["plan"], new_increment=new_increment)
        self.judging.holdouts.load_state_dict(state["holdouts"])
        if new_increment:
            self.judging.holdouts.begin()
        self._classes = set(state["classes"])


def _classes(lessons: LoaderLessons) -> set[int]:
    if lessons.labels is None:
        return set()
    return set(np.unique(lessons.labels[lessons.new]).tolist())
