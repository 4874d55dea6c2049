"""The arithmetic of hooks for MindSpore: the only file of `learning/` that knows it.

Penalties and observers are Python that runs at every step: in PyNative mode, whose functional loops
(`mindspore.value_and_grad`) call `run.penalty` in the forward function. The network's `construct`
may be compiled there (`@mindspore.jit`), the forward function may not, and in graph mode all of it
would be: `check_penalties` refuses that. What looks at the model between steps works in both modes
(`outputs`, `frozen`, `load`, `weights`), except for `squared_gradients`.

Values are written in place (`copy_`): a compiled network does not see what `set_data` gives it.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
import numpy.typing as npt
from mindspore import nn, ops

from onward.errors import Mismatch, UsageError
from onward.learning.maths import Maths

Tensor = Any
"""A `mindspore.Tensor`; the package has no types of its own."""

_TRAINING, _PREDICTING = "train", "predict"
"""What `Cell.set_train` calls the two phases, for each of which a compiled cell has a graph."""


class MindSporeMaths:
    """`Maths` for MindSpore, which brings tensors to the device where an operator needs them."""

    keeps_gradients = False

    def check_penalties(self) -> None:
        if ms.get_context("mode") == ms.GRAPH_MODE:
            raise UsageError(
                "penalties do not work in MindSpore's graph mode",
                why="they are Python that runs at every step, and graph mode compiles whole steps",
                do="call mindspore.set_context(mode=mindspore.PYNATIVE_MODE) first; for speed, "
                "decorate the network's construct with @mindspore.jit",
            )

    def tensor(self, array: npt.NDArray[Any], *, like: Tensor) -> Tensor:
        return ms.Tensor(np.asarray(array))

    def host_tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return ms.Tensor.from_numpy(np.asarray(array, order="C"))

    def placed(self, tensor: Tensor, *, like: Tensor) -> Tensor:
        return _as_tensor(tensor)

    def array(self, tensor: Tensor) -> npt.NDArray[Any]:
        if isinstance(tensor, ms.Tensor):
            wide = tensor.astype(ms.float32) if tensor.dtype == ms.bfloat16 else tensor
            return np.array(wide.asnumpy())
        return np.array(tensor)

    def zero(self, *, like: Tensor) -> Tensor:
        return ops.zeros((), like.dtype)

    def zeros(self, *, like: Tensor) -> Tensor:
        return ops.zeros(tuple(like.shape), _single(like))

    def log_softmax(self, logits: Tensor) -> Tensor:
        return ops.log_softmax(_in_dtype(logits, _single(logits)), -1)

    def logsumexp(self, logits: Tensor, *, among: Tensor) -> Tensor:
        wide = _in_dtype(logits, _single(logits))
        return ops.logsumexp(wide.masked_fill(~among, -np.inf), -1)

    def parameters(self, model: nn.Cell) -> dict[str, Tensor]:
        named = model.parameters_and_names()
        return {name: value for name, value in named if value.requires_grad}

    def weights(self, model: nn.Cell) -> dict[str, Tensor]:
        # By their path in the model: `Parameter.name` may be anything.
        found = dict(model.parameters_and_names())
        buffers = dict(model.named_buffers())
        if buffers:
            saved = model.state_dict()
            found |= {name: value for name, value in buffers.items() if name in saved}
        return found

    def gradients(self, model: nn.Cell) -> dict[str, Tensor]:
        return {}  # MindSpore gives them to the caller, and leaves none in parameters.

    def copied(self, tensor: Tensor) -> Tensor:
        return _copied(tensor)

    def grown(self, tensor: Tensor, *, like: Tensor) -> Tensor:
        larger = self.array(like)
        larger[tuple(slice(size) for size in tensor.shape)] = self.array(tensor)
        return ms.Tensor(larger).astype(like.dtype)

    def assign(self, target: Tensor, value: Tensor) -> None:
        target.copy_(_as_tensor(value))

    def frozen(self, model: nn.Cell) -> nn.Cell:
        # Left to itself, a deep copy shares the memory of tensors that are no parameters, such as
        # buffers, with the model. What is in the memo is taken instead.
        tensors = [
            value
            for _, cell in model.cells_and_names()
            for value in (*vars(cell).values(), *cell.buffers(recurse=False))
            if isinstance(value, ms.Tensor) and not isinstance(value, ms.Parameter)
        ]
        memo: dict[int, Any] = {id(value): _copied(value) for value in tensors}
        try:
            twin: nn.Cell = copy.deepcopy(model, memo)
        except Exception as error:
            raise UsageError(
                f"the model, a {type(model).__qualname__}, cannot be copied",
                why=str(error),
                do="make it one that copy.deepcopy accepts, or leave the teacher out of the "
                "strategy",
            ) from error
        for value in twin.get_parameters():
            value.requires_grad = False
        for _, cell in twin.cells_and_names():
            # Compiled graphs are found by it and the cell's address: a teacher in the place of one
            # that is gone would answer with the graph, and so with the weights, of that one.
            object.__setattr__(cell, "_create_time", time.time_ns())
            _set_mode(cell, training=False, phase=_PREDICTING)
        return twin

    def load(self, model: nn.Cell, weights: Mapping[str, Any]) -> None:
        live = self.weights(model)
        lines = [
            f"{name}: stored, but the model has no such weight" for name in weights.keys() - live
        ]
        for name, target in live.items():
            if name not in weights:
                lines.append(f"{name}: the model has it, but it was not stored")
            elif tuple(weights[name].shape) != tuple(target.shape):
                stored, here = list(weights[name].shape), list(target.shape)
                lines.append(f"{name}: stored as {stored}, {here} in the model")
        if lines:
            raise Mismatch("the stored weights are not this model's", differences=sorted(lines))
        for name, target in live.items():
            self.assign(target, weights[name])

    def outputs(self, model: nn.Cell, inputs: Any) -> Tensor:
        with _evaluating(model):
            return ops.stop_gradient(_called(model, inputs))

    def pull(
        self,
        parameters: Sequence[Tensor],
        *,
        anchors: Sequence[Tensor],
        amounts: Sequence[Tensor],
        strength: float,
    ) -> Tensor:
        return _Pull(_Distance(anchors, amounts, strength))(*parameters)

    def integrate(
        self, parameters: Sequence[Tensor], *, previous: Sequence[Tensor], path: Sequence[Tensor]
    ) -> bool:
        for here, value in zip(previous, parameters, strict=True):
            here.copy_(value)
        return False  # No gradient is left anywhere, and `keeps_gradients` says so.

    def squared_gradients(
        self, model: nn.Cell, inputs: Any, *, weights: npt.NDArray[np.float64]
    ) -> dict[str, Tensor]:
        """Raises `UsageError` in graph mode, which would compile a graph for each call."""
        self.check_penalties()
        parameters = self.parameters(model)
        tensors = list(parameters.values())
        sums = [self.zeros(like=tensor) for tensor in tensors]

        def log_of(chosen: Tensor) -> Tensor:
            return (self.log_softmax(_called(model, inputs)) * chosen).sum()

        # Forwards again for each output: MindSpore keeps no graph for a second way back.
        gradients = ms.grad(log_of, None, tensors)
        with _evaluating(model):
            for row, output in np.argwhere(weights != 0).tolist():
                chosen = np.zeros(weights.shape, np.float32)
                chosen[row, output] = 1
                found = gradients(ms.Tensor(chosen))
                sums = _with_squares(sums, found, float(weights[row, output]))
        return dict(zip(parameters, sums, strict=True))


maths: Maths = MindSporeMaths()


class _Distance:
    """What a pull is computed from, and on its way back needs again; no attribute of a cell."""

    def __init__(
        self, anchors: Sequence[Tensor], amounts: Sequence[Tensor], strength: float
    ) -> None:
        self.pairs = list(zip(anchors, amounts, strict=True))
        self.strength = strength
        self.weighted: list[Tensor] = []


class _Pull(nn.Cell):  # type: ignore[misc]
    """Three operators forwards and one back for each parameter; autograd would take many more.

    One instance for each call.
    """

    def __init__(self, distance: _Distance) -> None:
        super().__init__(auto_prefix=False)
        self.distance = distance

    def construct(self, *parameters: Tensor) -> Tensor:
        terms, weighted = [], []
        for value, (anchor, amount) in zip(parameters, self.distance.pairs, strict=True):
            away = value - anchor
            # By the dtype of what is given: asking for that of a result waits for it.
            away = away if value.dtype == amount.dtype else away.astype(amount.dtype)
            weighted.append(amount * away)
            if anchor.size:  # the sum of an empty tensor is not 0 on every device
                terms.append((weighted[-1] * away).sum())
        self.distance.weighted = weighted
        return ops.stack(terms).sum() * self.distance.strength

    def bprop(self, *given: Tensor) -> tuple[Tensor, ...]:
        *parameters, _, gradient = given
        by = gradient * (2 * self.distance.strength)
        backwards = [value * by for value in self.distance.weighted]
        given_to = zip(backwards, parameters, self.distance.pairs, strict=True)
        return tuple(
            value if parameter.dtype == amount.dtype else value.astype(parameter.dtype)
            for value, parameter, (_, amount) in given_to
        )


def _single(tensor: Tensor) -> Any:
    """The tensor's dtype, or single precision where that is lower."""
    return ms.float64 if tensor.dtype == ms.float64 else ms.float32


def _in_dtype(tensor: Tensor, dtype: Any) -> Tensor:
    # astype is an operator even where nothing changes.
    return tensor if tensor.dtype == dtype else tensor.astype(dtype)


def _as_tensor(value: Any) -> Tensor:
    """Itself, or of an array, such as data pipelines may give, a tensor."""
    return ms.Tensor(value) if isinstance(value, np.ndarray | np.generic) else value


def _copied(tensor: Tensor) -> Tensor:
    # Neither Tensor(…) nor stop_gradient makes a copy; copy() of a parameter is a parameter.
    return ops.stop_gradient(_as_tensor(tensor).copy())


def _with_squares(sums: Sequence[Tensor], found: Sequence[Tensor], weight: float) -> list[Tensor]:
    wide = [_in_dtype(value, total.dtype) for total, value in zip(sums, found, strict=True)]
    return [total + value * value * weight for total, value in zip(sums, wide, strict=True)]


def _called(model: nn.Cell, inputs: Any) -> Tensor:
    match inputs:
        case Mapping():
            answer = model(**{key: _as_tensor(value) for key, value in inputs.items()})
        case tuple() | list():
            answer = model(*(_as_tensor(value) for value in inputs))
        case _:
            answer = model(_as_tensor(inputs))
    if isinstance(answer, ms.Tensor):
        return answer
    logits = answer.get("logits") if isinstance(answer, Mapping) else None
    logits = getattr(answer, "logits", None) if logits is None else logits
    if isinstance(logits, ms.Tensor):
        return logits
    raise UsageError(
        f"the model gives a {type(answer).__qualname__}, in which no outputs are found",
        do="have construct() return the outputs, or an object whose `logits` they are",
    )


def _set_mode(cell: nn.Cell, *, training: bool, phase: str) -> None:
    """Of this cell alone. A compiled cell goes by its phase, in PyNative mode too."""
    cell.add_flags(training=training)
    cell.phase = phase


@contextmanager
def _evaluating(model: nn.Cell) -> Iterator[None]:
    """Every cell in evaluation mode, and as it was afterwards.

    Not by `set_train`: that changes the phase of the outermost cell alone, and a compiled cell
    within it would go on training.
    """
    before = [
        (cell, cell.training, cell.phase)
        for _, cell in model.cells_and_names()
        if cell.training or cell.phase == _TRAINING
    ]
    for cell, _, _ in before:
        _set_mode(cell, training=False, phase=_PREDICTING)
    try:
        yield
    finally:
        for cell, training, phase in before:
            _set_mode(cell, training=training, phase=phase)
