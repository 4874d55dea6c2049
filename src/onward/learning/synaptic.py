"""Synaptic intelligence: weights are held by what they did for the loss on the way.

Where classes are new and no samples are kept this cannot work: `strategies.py` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from onward.errors import UsageError
from onward.learning.hooks import Batch, Lessons, Observer, Penalty, Setting
from onward.learning.importance import Importance, check_fits
from onward.learning.versions import accepted


class SynapticIntelligence(Penalty, Observer):
    """Adds strength · Σ Ω (θ - θ*)², with Ω how much each weight lowered the loss so far.

    Along the path of an increment, ω collects -gradient · movement of every step. When it is over,
    Ω becomes max(0, Ω + ω / ((θ - θ*)² + damping)), and θ* the weights of that moment; in the first
    increment θ* is where they began. Gradients are those that the optimizer's step used, the
    penalty's share included, and clipped if the loop clips. Gradients must still be there after the
    step: a loop that has dropped them by then is refused, and so is MindSpore, which leaves none.

    The state is three tensors for each parameter; the step before is a fourth in memory.

    Measured by Hsu et al. 2018 on Split-MNIST: 98.6 % where the task is told, 64.8 with new
    domains, 19.7 with new classes (no strategy: 93.5, 55.2, 19.7).

    SOURCE: Zenke, Poole and Ganguli 2017 (ICML), eq. 3 to 5, and their code for the max with 0.
    """

    name = "si"

    def __init__(self, strength: float, *, damping: float = 0.1) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise UsageError(f"a strength of {strength}", do="give 0 or more, such as 1")
        if not (math.isfinite(damping) and damping > 0):
            raise UsageError(f"a damping of {damping}", do="give more than 0, such as 0.1")
        self._strength, self._damping = strength, damping
        self._importance = Importance()
        self._path: dict[str, Any] = {}
        self._walking: list[list[Any]] = []

    def begin(self, setting: Setting) -> None:
        self._setting = setting
        maths, model = setting.maths, setting.model
        if not maths.keeps_gradients:
            raise UsageError(
                "synaptic intelligence needs gradients that this framework does not leave behind",
                why="it adds up gradient times movement after every step, and here gradients are "
                "only the loop's, who may clip or scale them before the optimizer has them",
                do="use OnlineEWC, the penalty whose importance is found when an increment ends, "
                "or a replay memory with LogitReplay",
            )
        self._importance.attach(maths, model)
        live = maths.parameters(model)
        check_fits(self._path, {**maths.weights(model), **live}, what="path")
        for name, value in live.items():
            zeros = maths.zeros(like=value)
            here = self._path.get(name)
            self._path[name] = zeros if here is None else maths.grown(here, like=zeros)
        # Between steps the parameters are where the last one left them: no need to store that.
        self._start_walking()

    def before_increment(self, lessons: Lessons) -> None:
        # What changed the model until now (growth, a transform) is no step of the optimizer.
        maths, importance = self._setting.maths, self._importance
        live = maths.parameters(self._setting.model)
        for name, value in live.items():
            if name not in importance.anchors:
                importance.anchors[name] = maths.copied(value)
        self._start_walking()

    def penalty(self, outputs: Any, batch: Batch) -> Any:
        maths = self._setting.maths
        pull = self._importance.pull(maths, self._strength)
        return maths.zero(like=outputs) if pull is None else pull

    def after_step(self) -> None:
        parameters, previous, path = self._walking
        if not self._setting.maths.integrate(parameters, previous=previous, path=path):
            raise UsageError(
                "no gradient is left after the optimizer's step",
                why="synaptic intelligence learns from the gradients that the step used",
                do="call run.step() before optimizer.zero_grad(), or use another strategy",
            )

    def after_increment(self, lessons: Lessons) -> None:
        maths, importance = self._setting.maths, self._importance
        live = maths.parameters(self._setting.model)
        amounts = {}
        for name, value in live.items():
            away = maths.copied(value) - importance.anchors[name]
            found = self._path[name] / (away * away + self._damping)
            amount = importance.amounts[name] + found if name in importance.amounts else found
            amounts[name] = amount * (amount > 0)
        importance.move(maths, self._setting.model, amounts)
        self._path = {name: maths.zeros(like=value) for name, value in live.items()}
        self._start_walking()

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, "path": dict(self._path), **self._importance.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        state = accepted(state_dict, self.name, version=1)
        self._importance.load_state_dict(state)
        self._path = dict(state["path"])

    def describe(self) -> str:
        return f"synaptic intelligence of strength {self._strength:g}"

    def _start_walking(self) -> None:
        maths = self._setting.maths
        live = maths.parameters(self._setting.model)
        self._walking = [
            list(live.values()),
            [maths.copied(value) for value in live.values()],
            [self._path[name] for name in live],
        ]
