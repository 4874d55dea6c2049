"""The arithmetic of hooks for PyTorch: the only file of `learning/` that knows it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from onward.errors import Mismatch, UsageError
from onward.frameworks.torch_modules import plain_name, unwrap
from onward.learning.maths import Maths


class TorchMaths:
    """`Maths` for PyTorch. Nothing in what runs at every step waits for an accelerator."""

    keeps_gradients = True

    def check_penalties(self) -> None:
        pass  # A compiled step leaves its graph where it meets Python of ours.

    def tensor(self, array: npt.NDArray[Any], *, like: Tensor) -> Tensor:
        return self.placed(torch.from_numpy(np.asarray(array, order="C")), like=like)

    def host_tensor(self, array: npt.NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.asarray(array, order="C"))

    def placed(self, tensor: Tensor, *, like: Tensor) -> Tensor:
        return tensor if tensor.device == like.device else tensor.to(like.device, non_blocking=True)

    def array(self, tensor: Tensor) -> npt.NDArray[Any]:
        host = tensor.detach().cpu()
        if host.dtype == torch.bfloat16:
            host = host.float()
        return np.array(host.numpy())

    def zero(self, *, like: Tensor) -> Tensor:
        return like.new_zeros(())

    def zeros(self, *, like: Tensor) -> Tensor:
        return torch.zeros_like(like, dtype=_single(like), requires_grad=False)

    def log_softmax(self, logits: Tensor) -> Tensor:
        return torch.log_softmax(logits, -1, dtype=_single(logits))

    def logsumexp(self, logits: Tensor, *, among: Tensor) -> Tensor:
        chosen = logits.to(_single(logits)).masked_fill(~among, -torch.inf)
        return torch.logsumexp(chosen, -1)

    def parameters(self, model: nn.Module) -> dict[str, Tensor]:
        named = unwrap(model).named_parameters()
        return {plain_name(name): value for name, value in named if value.requires_grad}

    def weights(self, model: nn.Module) -> dict[str, Tensor]:
        saved = unwrap(model).state_dict(keep_vars=True)
        return {
            plain_name(name): value for name, value in saved.items() if isinstance(value, Tensor)
        }

    def gradients(self, model: nn.Module) -> dict[str, Tensor]:
        parameters = self.parameters(model).items()
        return {name: value.grad for name, value in parameters if value.grad is not None}

    def copied(self, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    def grown(self, tensor: Tensor, *, like: Tensor) -> Tensor:
        larger = self.copied(like)
        larger[tuple(slice(size) for size in tensor.shape)] = tensor.detach().to(larger.device)
        return larger

    @torch.no_grad()
    def assign(self, target: Tensor, value: Tensor) -> None:
        target.copy_(value)

    def frozen(self, model: nn.Module) -> nn.Module:
        try:
            twin: nn.Module = copy.deepcopy(unwrap(model))
        except Exception as error:
            raise UsageError(
                f"the model, a {type(model).__qualname__}, cannot be copied",
                why=str(error),
                do="make it one that copy.deepcopy accepts (a tensor in it may be the result of a "
                "computation), or leave the teacher out of the strategy",
            ) from error
        for parameter in twin.parameters():
            parameter.requires_grad = False
            parameter.grad = None
        return twin.eval()

    @torch.no_grad()
    def load(self, model: nn.Module, weights: Mapping[str, Any]) -> None:
        live = self.weights(model)
        given = {name: torch.as_tensor(value) for name, value in weights.items()}
        lines = [
            f"{name}: stored, but the model has no such weight" for name in given.keys() - live
        ]
        for name, target in live.items():
            if name not in given:
                lines.append(f"{name}: the model has it, but it was not stored")
            elif given[name].shape != target.shape:
                stored, here = list(given[name].shape), list(target.shape)
                lines.append(f"{name}: stored as {stored}, {here} in the model")
        if lines:
            raise Mismatch("the stored weights are not this model's", differences=sorted(lines))
        for name, target in live.items():
            target.copy_(given[name])

    def outputs(self, model: nn.Module, inputs: Any) -> Tensor:
        module = unwrap(model)
        with _evaluating(module), torch.no_grad():
            return _called(module, inputs)

    def pull(
        self,
        parameters: Sequence[Tensor],
        *,
        anchors: Sequence[Tensor],
        amounts: Sequence[Tensor],
        strength: float,
    ) -> Tensor:
        apply: Callable[..., Tensor] = _Pull.apply
        return apply(list(anchors), list(amounts), strength, *parameters)

    @torch.no_grad()
    def integrate(
        self, parameters: Sequence[Tensor], *, previous: Sequence[Tensor], path: Sequence[Tensor]
    ) -> bool:
        # Everything in place: memory for large tensors, fresh at every step, costs more than sums.
        torch._foreach_sub_(list(previous), list(parameters))
        gradients = [value.grad for value in parameters if value.grad is not None]
        if gradients:
            has = [value.grad is not None for value in parameters]
            back = list(itertools.compress(previous, has))
            torch._foreach_addcmul_(list(itertools.compress(path, has)), gradients, back)
        torch._foreach_copy_(list(previous), list(parameters))
        return bool(gradients)

    def squared_gradients(
        self, model: nn.Module, inputs: Any, *, weights: npt.NDArray[np.float64]
    ) -> dict[str, Tensor]:
        module = unwrap(model)
        parameters = self.parameters(module)
        tensors = list(parameters.values())
        sums = [self.zeros(like=tensor) for tensor in tensors]
        with _evaluating(module), torch.enable_grad():
            logs = self.log_softmax(_called(module, inputs))
            chosen = np.argwhere(weights != 0).tolist()
            for place, (row, output) in enumerate(chosen):
                found = torch.autograd.grad(
                    logs[row, output],
                    tensors,
                    retain_graph=place + 1 < len(chosen),
                    allow_unused=True,
                )
                _add_squares(sums, found, float(weights[row, output]))
        return dict(zip(parameters, sums, strict=True))


maths: Maths = TorchMaths()


class _Pull(torch.autograd.Function):
    """A few fused kernels over all parameters; left to autograd it takes several for each one."""

    @staticmethod
    def forward(
        ctx: Any,
        anchors: list[Tensor],
        amounts: list[Tensor],
        strength: float,
        *parameters: Tensor,
    ) -> Tensor:
        away = [
            way.to(amount.dtype)
            for way, amount in zip(
                torch._foreach_sub(list(parameters), anchors), amounts, strict=True
            )
        ]
        weighted = torch._foreach_mul(amounts, away)
        ctx.strength = strength
        ctx.save_for_backward(*weighted)
        # No term is negative, so that their sum is their 1-norm, which exists as a fused kernel.
        torch._foreach_mul_(away, weighted)
        return torch.stack(torch._foreach_norm(away, 1)).sum() * strength

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        by = gradients[0] * (2 * ctx.strength)
        return None, None, None, *torch._foreach_mul(list(ctx.saved_tensors), by)


def _single(tensor: Tensor) -> torch.dtype:
    """The tensor's dtype, or single precision where that is lower."""
    return torch.promote_types(tensor.dtype, torch.float32)


def _add_squares(sums: Sequence[Tensor], found: Sequence[Tensor | None], weight: float) -> None:
    pairs = [(total, value) for total, value in zip(sums, found, strict=True) if value is not None]
    if pairs:
        values = [value.to(total.dtype) for total, value in pairs]
        torch._foreach_addcmul_([total for total, _ in pairs], values, values, value=weight)


def _called(module: nn.Module, inputs: Any) -> Tensor:
    place = next(module.parameters(), None)
    here = inputs if place is None else _moved(inputs, place.device)
    match here:
        case Mapping():
            answer = module(**here)
        case tuple() | list():
            answer = module(*here)
        case _:
            answer = module(here)
    if isinstance(answer, Tensor):
        return answer
    logits = answer.get("logits") if isinstance(answer, Mapping) else None
    logits = getattr(answer, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        return logits
    raise UsageError(
        f"the model gives a {type(answer).__qualname__}, in which no outputs are found",
        do="have forward() return the outputs, or an object whose `logits` they are",
    )


def _moved(inputs: Any, device: torch.device) -> Any:
    match inputs:
        case Tensor():
            return inputs.to(device, non_blocking=True)
        case Mapping():
            return {key: _moved(value, device) for key, value in inputs.items()}
        case tuple() | list():
            return [_moved(value, device) for value in inputs]
    return inputs


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, and as it was afterwards."""
    training = [part for part in module.modules() if part.training]
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True
