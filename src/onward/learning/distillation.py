"""Distillation: the model of before teaches its answers to the model of now.

Alone, where classes are new and no samples are kept, it cannot work: `strategies.py` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices
from onward.errors import UsageError
from onward.learning.hooks import Batch, Lessons, Observer, Penalty, Setting
from onward.learning.versions import accepted


class Distillation(Penalty, Observer):
    """Adds weight · temperature² · KL(teacher ‖ model), over old outputs, meaned over the batch.

    The teacher is a frozen copy of the model, made where an increment after the first begins, and
    gone when it ends. Old outputs are those of classes that an earlier increment learned; where
    the loader was not told the classes, all that the model then had. So what a head has grown by
    takes no part. The teacher answers in evaluation mode, one forward pass a step, a third of what
    a step costs; its weights are in every checkpoint until the increment ends.

    Measured by Hsu et al. 2018 on Split-MNIST, without samples: 99.6 % where the task is told, 71.0
    with new domains, 24.2 with new classes (no strategy: 93.5, 55.2, 19.7). Beside a memory it is
    of use with new classes too: 91.8 % with 1,000 samples in 300 steps a task, replay alone 90.5.

    SOURCE: Li and Hoiem 2016 (Learning without forgetting, ECCV), eq. 2 and 3; Hinton et al. 2015
    (Distilling the knowledge in a neural network), section 2, for temperature and its square.
    """

    name = "distillation"

    def __init__(self, weight: float = 1.0, temperature: float = 2.0) -> None:
        if not (math.isfinite(weight) and weight >= 0):
            raise UsageError(f"a weight of {weight}", do="give 0 or more, such as 1")
        if not (math.isfinite(temperature) and temperature > 0):
            raise UsageError(f"a temperature of {temperature}", do="give more than 0, such as 2")
        self._weight, self._temperature = weight, temperature
        self._teacher: Any = None
        self._stored_teacher: dict[str, Any] = {}
        self._taught_in = 0
        self._taught: Indices | None = None
        self._picked: _Outputs | None = None

    def begin(self, setting: Setting) -> None:
        self._setting = setting
        maths = setting.maths
        # The teacher is of this increment, or there is none: another one's may be of other shapes.
        if self._stored_teacher and self._taught_in == setting.increment:
            self._teacher = maths.frozen(setting.model)
            maths.load(self._teacher, self._stored_teacher)
        self._stored_teacher = {}

    def before_increment(self, lessons: Lessons) -> None:
        if self._setting.increment > 1:
            self._teacher = self._setting.maths.frozen(self._setting.model)
            self._taught_in = self._setting.increment

    def penalty(self, outputs: Any, batch: Batch) -> Any:
        maths = self._setting.maths
        if self._teacher is None:
            return maths.zero(like=outputs)
        if self._picked is None:
            self._picked = _Outputs(maths, self._taught, outputs)
        heat = self._temperature
        teacher = maths.outputs(self._teacher, batch.inputs)
        old = maths.log_softmax(self._picked.of(teacher) / heat)
        now = maths.log_softmax(self._picked.of(outputs) / heat)
        # Meaned over all axes but the last, so that a token of a text counts as an item.
        return (old.exp() * (old - now)).sum(-1).mean() * (self._weight * heat**2)

    def after_increment(self, lessons: Lessons) -> None:
        self._teacher = None
        self._picked = None
        if lessons.labels is not None:
            learned = np.unique(lessons.labels[lessons.new])
            known = np.empty(0, np.int64) if self._taught is None else self._taught
            self._taught = np.union1d(known, learned).astype(np.int64)
        elif len(lessons.new):
            maths = self._setting.maths
            (batch,) = lessons.batches(lessons.new[:1], batch_size=1)
            width = maths.outputs(self._setting.model, batch.inputs).shape[-1]
            self._taught = np.arange(width, dtype=np.int64)

    def state_dict(self) -> dict[str, Any]:
        weights = self._stored_teacher
        if self._teacher is not None:
            weights = self._setting.maths.weights(self._teacher)
        return {
            "version": 1,
            "taught": self._taught,
            "taught in": self._taught_in,
            "teacher": dict(weights),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        state = accepted(state_dict, self.name, version=1)
        taught = state["taught"]
        self._taught = None if taught is None else np.array(taught, np.int64)
        self._taught_in = int(state["taught in"])
        self._stored_teacher = dict(state["teacher"])
        self._teacher = None
        self._picked = None

    def describe(self) -> str:
        return f"distillation of weight {self._weight:g} at temperature {self._temperature:g}"


class _Outputs:
    """The outputs that were taught, of all that there are."""

    def __init__(self, maths: Any, taught: npt.NDArray[np.int64] | None, outputs: Any) -> None:
        width = int(outputs.shape[-1])
        self._count = width if taught is None else len(taught)
        first = taught is None or np.array_equal(taught, np.arange(len(taught)))
        # A slice costs less, forwards and backwards, than picking by index.
        self._index = None if first else maths.tensor(taught, like=outputs)

    def of(self, outputs: Any) -> Any:
        if self._index is not None:
            return outputs[..., self._index]
        return outputs if outputs.shape[-1] == self._count else outputs[..., : self._count]
