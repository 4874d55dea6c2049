"""The arithmetic that hooks need of a framework, so that one hook serves them all.

Tensors of PyTorch and of MindSpore share operators, comparison, slicing, `.reshape()`, `.exp()`,
`.sum(axis)`, `.any(axis)`, `.mean()` and `.shape`; hooks use these directly. What they do not
share, and what is worth fusing because every step does it, is here. `learning/torch.py` is one,
`learning/mindspore.py` the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt


class Maths(Protocol):
    """What `learning/torch.py` and its equals offer."""

    keeps_gradients: bool
    """Whether the gradients of a step are in the parameters when it is done."""

    def check_penalties(self) -> None:
        """Raises `UsageError` where the framework would compile whole steps, penalties included."""

    def tensor(self, array: npt.NDArray[Any], *, like: Any) -> Any:
        """A constant with the values and dtype of `array`, where `like` is."""

    def host_tensor(self, array: npt.NDArray[Any]) -> Any:
        """A tensor on the host with the values and dtype of `array`, whose memory it may share."""

    def placed(self, tensor: Any, *, like: Any) -> Any:
        """The tensor where `like` is; itself if it is there already."""

    def array(self, tensor: Any) -> npt.NDArray[Any]:
        """A host copy without gradients; lower precisions than NumPy has come as float32."""

    def zero(self, *, like: Any) -> Any:
        """The scalar 0 where `like` is, in its dtype, without gradients."""

    def zeros(self, *, like: Any) -> Any:
        """Zeros in the shape of `like`, where it is, at least in single precision."""

    def log_softmax(self, logits: Any) -> Any:
        """Over the last axis, at least in single precision."""

    def logsumexp(self, logits: Any, *, among: Any) -> Any:
        """Over the last axis, of the outputs that the booleans `among`, one for each, mark.

        At least in single precision.
        """

    def parameters(self, model: Any) -> dict[str, Any]:
        """The trainable parameters by name, live."""

    def weights(self, model: Any) -> dict[str, Any]:
        """Parameters, and buffers that are saved, by name, live."""

    def gradients(self, model: Any) -> dict[str, Any]:
        """What the last backward left in each trainable parameter; without those it left none."""

    def copied(self, tensor: Any) -> Any:
        """A copy without gradients."""

    def grown(self, tensor: Any, *, like: Any) -> Any:
        """A copy of `like` that begins, along every axis, with the values of `tensor`."""

    def assign(self, target: Any, value: Any) -> None:
        """Writes `value` into a live tensor, outside of any gradient."""

    def frozen(self, model: Any) -> Any:
        """A copy of the model that never learns, in evaluation mode."""

    def load(self, model: Any, weights: Mapping[str, Any]) -> None:
        """Writes weights by name, tensors or arrays, into a model of the same shape.

        Raises `Mismatch` with every name or shape that differs, before anything is written.
        """

    def outputs(self, model: Any, inputs: Any) -> Any:
        """What the model gives in evaluation mode, without gradients and without a trace on it.

        `inputs` may lie elsewhere than the model. A mapping is given as keywords, a tuple or list
        as arguments. Of an answer with `logits`, those.
        """

    def pull(
        self,
        parameters: Sequence[Any],
        *,
        anchors: Sequence[Any],
        amounts: Sequence[Any],
        strength: float,
    ) -> Any:
        """strength · Σ amount · (parameter - anchor)², a scalar with gradients.

        Amounts are never negative.
        """

    def integrate(
        self, parameters: Sequence[Any], *, previous: Sequence[Any], path: Sequence[Any]
    ) -> bool:
        """In place: path -= gradient · (parameter - previous), then previous = parameter.

        The gradient is what the last backward left in the parameter, zero where it left none.
        Returns whether it left any.
        """

    def squared_gradients(
        self, model: Any, inputs: Any, *, weights: npt.NDArray[np.float64]
    ) -> dict[str, Any]:
        """For each trainable parameter Σ over rows n and outputs c of weights[n, c] · g².

        g is the gradient of log softmax(outputs)[n, c], in evaluation mode. Shape of `weights`:
        [rows, outputs].
        """
