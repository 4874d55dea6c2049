"""How much each weight matters, and the value it should stay near: what EWC and SI share.

Kept by the names of parameters, so that it survives growth: a parameter that has grown matters as
before where it was, and not at all where it is new.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.errors import Diverged, Mismatch
from onward.learning.maths import Maths


class Importance:
    """Amounts (Fisher information, Ω; never negative) and anchors (θ*), by parameter.

    Both are tensors in the shape of the parameter. `attach` comes before anything else, after
    `load_state_dict`.
    """

    def __init__(self) -> None:
        self.amounts: dict[str, Any] = {}
        self.anchors: dict[str, Any] = {}
        self._pulled: list[list[Any]] = []

    def state_dict(self) -> dict[str, Any]:
        """Both, by name."""
        return {"amounts": dict(self.amounts), "anchors": dict(self.anchors)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Becomes what `state_dict` once returned."""
        self.amounts = dict(state_dict["amounts"])
        self.anchors = dict(state_dict["anchors"])
        self._pulled = []

    def attach(self, maths: Maths, model: Any) -> None:
        """Brings everything where the parameters are, and to the size that they have grown to.

        Raises `Mismatch` that names each parameter which is gone, smaller, or of other axes.
        """
        live, known = maths.parameters(model), maths.weights(model)
        check_fits(self.anchors, {**known, **live}, what="anchor")
        for name, value in live.items():
            if name in self.amounts:
                amount = self.amounts[name]
                self.amounts[name] = maths.grown(amount, like=maths.zeros(like=value))
            if name in self.anchors:
                self.anchors[name] = maths.grown(self.anchors[name], like=value)
        self._pair(live)

    def pull(self, maths: Maths, strength: float) -> Any:
        """strength · Σ amount · (θ - θ*)², a scalar with gradients; None if nothing matters yet."""
        if not self._pulled:
            return None
        parameters, anchors, amounts = self._pulled
        return maths.pull(parameters, anchors=anchors, amounts=amounts, strength=strength)

    def move(self, maths: Maths, model: Any, amounts: Mapping[str, Any]) -> None:
        """Takes new amounts, by name, and today's parameters as anchors.

        Raises `Diverged`, and changes nothing, if an amount is no finite number.
        """
        for name, amount in amounts.items():
            if not np.isfinite(maths.array(amount.sum())):
                raise Diverged(
                    f"the importance of {name} is not a finite number",
                    why="the model's weights, outputs or gradients are not",
                    do="go on from an earlier checkpoint with a lower learning rate",
                )
        live = maths.parameters(model)
        self.amounts |= amounts
        self.anchors |= {name: maths.copied(live[name]) for name in amounts}
        self._pair(live)

    def _pair(self, live: Mapping[str, Any]) -> None:
        # A parameter that is frozen now keeps what it has, and is not pulled.
        names = [name for name in live if name in self.amounts]
        chosen = [(live[name], self.anchors[name], self.amounts[name]) for name in names]
        self._pulled = [list(column) for column in zip(*chosen, strict=True)]


def check_fits(stored: Mapping[str, Any], live: Mapping[str, Any], *, what: str) -> None:
    """Raises `Mismatch` unless each tensor's name is live, in at least that shape."""
    lines = []
    for name, tensor in stored.items():
        there = list(tensor.shape)
        if name not in live:
            lines.append(
                f"{name}: the checkpoint has its {what}, the live model has no such weight"
            )
            continue
        here = list(live[name].shape)
        if len(here) != len(there) or any(a < b for a, b in zip(here, there, strict=True)):
            lines.append(f"{name}: the checkpoint has its {what} in {there}, the model is {here}")
    if lines:
        raise Mismatch(
            f"the {what} of earlier increments does not fit the model",
            differences=lines,
            why="parameters may grow between increments, and are known by their names",
            do="give the model its former names and sizes back, or start a branch without this "
            "strategy",
        )
