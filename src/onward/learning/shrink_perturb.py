"""Shrink and perturb: a warm start that learns like a cold one, at the price of a cold one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.errors import Mismatch, UsageError
from onward.learning.hooks import Setting, Transform
from onward.learning.versions import accepted


class ShrinkPerturb(Transform):
    """Where an increment begins, each trainable parameter p becomes shrink · p + perturb · fresh.

    `fresh` is the parameter as the script has just initialised it. Buffers, such as the statistics
    of batch normalisation, stay.

    A tool for full budgets, and off by default: with as many steps as a full retrain it ends higher
    than plain warm start on long training; with few it does harm. Measured on Fashion-MNIST, 20 %
    more data, as a share of the full retrain's accuracy at 10 % of its steps: 96.4 with it (0.4 and
    0.1), 99.5 without; at 40 % of the steps 98.9 and 100.1.

    SOURCE: Ash and Adams 2020 (On warm-starting neural network training, NeurIPS), section 4.
    """

    name = "shrink and perturb"

    def __init__(self, shrink: float = 0.4, perturb: float = 0.1) -> None:
        for what, value in (("shrink", shrink), ("perturb", perturb)):
            if not (math.isfinite(value) and 0 <= value <= 1):
                raise UsageError(f"{what}={value}", do="give a number in 0 … 1")
        self._shrink, self._perturb = shrink, perturb

    def begin(self, setting: Setting) -> None:
        self._setting = setting

    def at_start(self, fresh: Mapping[str, Any]) -> None:
        """Changes the model. Raises `Mismatch`, and does not, if `fresh` is another's."""
        maths = self._setting.maths
        live = maths.parameters(self._setting.model)
        lines = [
            f"{name}: {list(value.shape)} in the model, "
            + (f"{list(fresh[name].shape)} fresh" if name in fresh else "nothing fresh")
            for name, value in live.items()
            if name not in fresh or tuple(fresh[name].shape) != tuple(value.shape)
        ]
        if lines:
            raise Mismatch("the fresh weights are not those of this model", differences=lines)
        for name, value in live.items():
            new = fresh[name]
            if isinstance(new, np.ndarray):
                new = maths.tensor(new, like=value)
            new = maths.placed(maths.copied(new), like=value)
            maths.assign(value, self._shrink * maths.copied(value) + self._perturb * new)

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        accepted(state_dict, self.name, version=1)

    def describe(self) -> str:
        return f"shrink and perturb ({self._shrink:g}, {self._perturb:g})"
