"""Online elastic weight consolidation: weights that mattered are held where they were.

Where classes are new and no samples are kept this cannot work: `strategies.py` says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from onward.data.order import Indices, derive_seed, permutation
from onward.errors import UsageError
from onward.learning.hooks import Batch, Lessons, Observer, Penalty, Setting
from onward.learning.importance import Importance
from onward.learning.labels import check_labels
from onward.learning.versions import accepted

Fisher = Literal["exact", "sampled", "empirical"]


class OnlineEWC(Penalty, Observer):
    """Adds strength/2 · Σ F (θ - θ*)², with F the Fisher information of all increments so far.

    After each increment F becomes decay · F + F_new and θ* the weights of that moment, so the cost
    does not grow with the number of increments: two tensors for each parameter in the state.

    F_new is the diagonal of the Fisher information over at most `samples` of the increment's items
    (which ones, `seed` and increment decide), in evaluation mode:

    - `"exact"`: the expectation over the model's own outputs; as many backward passes an item as
      there are outputs. Best, says the 2025 source;
    - `"sampled"`: one label an item, drawn from the model's outputs;
    - `"empirical"`: the item's right label; for classes only.

    Classes in a softmax are assumed. Measured by Hsu et al. 2018 on Split-MNIST: 97.7 % where the
    task is told, 58.9 with new domains, 19.8 with new classes (no strategy: 93.5, 55.2, 19.7).

    SOURCE: Kirkpatrick et al. 2017 (PNAS 114:3521), eq. 3; Schwarz et al. 2018 (Progress and
    compress, ICML), online EWC; van de Ven 2025 (On the computation of the Fisher information in
    continual learning) for the three ways and their worth.
    """

    name = "ewc"

    def __init__(
        self,
        strength: float,
        *,
        decay: float = 1.0,
        fisher: Fisher = "exact",
        samples: int = 200,
    ) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise UsageError(f"a strength of {strength}", do="give 0 or more, such as 100")
        if not 0 <= decay <= 1:
            raise UsageError(f"a decay of {decay}", do="give a number in 0 … 1")
        if fisher not in get_args(Fisher):
            raise UsageError(
                f"no way to estimate the Fisher information is called {fisher!r}",
                do="give one of " + ", ".join(get_args(Fisher)),
            )
        if samples < 1:
            raise UsageError(f"a Fisher information of {samples} samples", do="give at least 1")
        self._strength, self._decay = strength, decay
        self._fisher: Fisher = fisher
        self._samples = samples
        self._importance = Importance()

    def begin(self, setting: Setting) -> None:
        self._setting = setting
        self._importance.attach(setting.maths, setting.model)

    def penalty(self, outputs: Any, batch: Batch) -> Any:
        maths = self._setting.maths
        pull = self._importance.pull(maths, self._strength / 2)
        return maths.zero(like=outputs) if pull is None else pull

    def after_increment(self, lessons: Lessons) -> None:
        if not len(lessons.new):
            return
        maths, model = self._setting.maths, self._setting.model
        found = self._information(lessons, _chosen(lessons.new, self._samples, self._setting))
        before = self._importance.amounts
        amounts = {
            name: self._decay * before[name] + fisher if name in before else fisher
            for name, fisher in found.items()
        }
        self._importance.move(maths, model, amounts)

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1, **self._importance.state_dict()}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        self._importance.load_state_dict(accepted(state_dict, self.name, version=1))

    def describe(self) -> str:
        return f"online EWC of strength {self._strength:g} ({self._fisher} Fisher information)"

    def _information(self, lessons: Lessons, chosen: Indices) -> dict[str, Any]:
        maths, model = self._setting.maths, self._setting.model
        sums: dict[str, Any] = {}
        draws = self._draws(len(chosen))
        # One at a time: the square of a sum of gradients is not the sum of their squares.
        for place, batch in enumerate(lessons.batches(chosen, batch_size=1)):
            outputs = maths.array(maths.outputs(model, batch.inputs)).astype(np.float64)
            label = maths.array(batch.labels) if self._fisher == "empirical" else None
            weights = self._weights(outputs, label, draws[place]) / len(chosen)
            found = maths.squared_gradients(model, batch.inputs, weights=weights)
            for name, value in found.items():
                sums[name] = sums[name] + value if name in sums else value
        return sums

    def _weights(
        self, outputs: npt.NDArray[np.float64], label: Any, draw: float
    ) -> npt.NDArray[np.float64]:
        """How much each output's squared gradient counts, shape [1, outputs]."""
        if outputs.ndim != 2:
            raise UsageError(
                f"EWC was given outputs of shape {list(outputs.shape)}",
                why="it estimates how sure the model is of one class an item",
                do="use it for models with outputs of shape [items, classes]",
            )
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        shares = np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float64)
        match self._fisher:
            case "exact":
                return shares
            case "sampled":
                output = int(np.searchsorted(np.cumsum(shares[0]), draw, side="right"))
                output = min(output, outputs.shape[1] - 1)  # a sum of shares may be just below 1
            case "empirical":
                check_labels(label, outputs.shape[1])
                output = int(label.reshape(-1)[0])
        chosen = np.zeros_like(outputs)
        chosen[0, output] = 1
        return chosen

    def _draws(self, count: int) -> npt.NDArray[np.float64]:
        """Numbers in 0 … 1, one for each item."""
        key = derive_seed(self._setting.seed, self._setting.increment, "Fisher labels")
        raw = np.random.Philox(key=key).random_raw(count)
        return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _chosen(new: Indices, samples: int, setting: Setting) -> Indices:
    seed = derive_seed(setting.seed, setting.increment, "Fisher items")
    return np.sort(new[permutation(len(new), seed)[:samples]])
