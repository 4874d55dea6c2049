"""The arithmetic that hooks need of a framework, so that one hook serves them all.

Tensors of PyTorch and of MindSpore share operators, comparison, slicing by integer tensors,
`.sum()`, `.mean()` and `.shape`; hooks use these directly. What they do not share is here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Maths(Protocol):
    """What `learning/torch.py` and its equals offer."""

    def tensor(self, array: npt.NDArray[Any], *, like: Any) -> Any:
        """A constant with the values and dtype of `array`, where `like` is."""

    def array(self, tensor: Any) -> npt.NDArray[Any]:
        """A host copy without gradients."""

    def log_softmax(self, logits: Any) -> Any:
        """Over the last axis."""

    def parameters(self, model: Any) -> dict[str, Any]:
        """The trainable parameters by name, live."""

    def weights(self, model: Any) -> dict[str, Any]:
        """Parameters and buffers by name, live."""

    def gradients(self, model: Any) -> dict[str, Any]:
        """What the last backward left in each trainable parameter; without those it left none."""

    def copied(self, tensor: Any) -> Any:
        """A copy without gradients."""

    def assign(self, target: Any, value: Any) -> None:
        """Writes `value` into a live tensor, outside of any gradient."""

    def frozen(self, model: Any) -> Any:
        """A copy of the model that never learns, in evaluation mode."""

    def load(self, model: Any, weights: Mapping[str, npt.NDArray[np.generic]]) -> None:
        """Writes weights by name into a model of the same shape."""

    def outputs(self, model: Any, inputs: Any) -> Any:
        """What the model gives in evaluation mode, without gradients and without a trace on it."""
