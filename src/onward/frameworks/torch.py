"""PyTorch: live objects <-> state trees.

Every object is known by its keyword: `model`, `optimizer`, whatever the caller chose. What each
kind of object becomes in a tree:

    nn.Module      {name: tensor or extra state}, compiled and data-parallel wrappers taken off
    Optimizer      {"type", "state": {parameter name: …}, "shared", "param_groups"}
    LRScheduler    {"type", "state"}
    Generator      {"device", "state"}
    any Stateful   its state_dict()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from onward.frameworks import torch_growth, torch_modules, torch_optimizers
from onward.frameworks.growth import Tables, grown_module
from onward.frameworks.torch_modules import unwrap
from onward.frameworks.torch_randomness import capture_randomness, restore_randomness
from onward.frameworks.torch_tensors import freeze, moved_like, thaw
from onward.frameworks.values import check_stateful

__all__ = [
    "after_optimizer_step",
    "before_optimizer_step",
    "capture",
    "capture_randomness",
    "destinations",
    "differences",
    "differences_for_new_budget",
    "differences_in_growth",
    "differences_in_weights",
    "evaluating",
    "forget_moments",
    "grown",
    "has_schedule",
    "layer_seeds",
    "learning_rates",
    "name",
    "names_of_weights",
    "optimizer_steps",
    "restore",
    "restore_for_new_budget",
    "restore_randomness",
    "restore_weights",
    "set_learning_rates",
    "version",
]

name = "torch"

Objects = Mapping[str, Any]
Tree = Mapping[str, Any]


def version() -> str:
    """The installed version, for the record."""
    return str(torch.__version__)


def capture(objects: Objects) -> dict[str, Any]:
    """The state tree of the named live objects. Leaves share memory where that is possible.

    Raises `Unstorable`, naming the path, for what cannot be stored.
    """
    names = torch_optimizers.parameter_names(objects)
    guarded = torch_optimizers.parameters(objects)
    tree: dict[str, Any] = {}
    for key, thing in objects.items():
        match unwrap(thing):
            case nn.Module() as module:
                tree[key] = torch_modules.capture(module, key, guarded)
            case torch.optim.Optimizer() as optimizer:
                tree[key] = torch_optimizers.capture(optimizer, key, names)
            case LRScheduler() as scheduler:
                state = freeze(scheduler.state_dict(), key)
                tree[key] = {"type": type(scheduler).__name__, "state": state}
            case torch.Generator() as generator:
                state = freeze(generator.get_state(), key)
                tree[key] = {"device": generator.device.type, "state": state}
            case other:
                _check_stateful(other, key)
                tree[key] = freeze(other.state_dict(), key)
    return tree


def differences(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `tree` (leaves may lack data) does not fit the live objects."""
    names = torch_optimizers.parameter_names(objects)
    lines = []
    for key, thing in objects.items():
        live = unwrap(thing)
        if key not in tree:
            lines.append(f"{key}: the checkpoint has no such object")
            continue
        match live:
            case nn.Module():
                lines += torch_modules.differences(live, tree[key], key)
            case torch.optim.Optimizer():
                lines += torch_optimizers.differences(live, tree[key], key, names)
            case LRScheduler() | torch.Generator():
                lines += _differences_in_kind(live, tree[key], key)
            case torch.amp.GradScaler() if live.is_enabled() != bool(tree[key]):
                there, here = ("enabled", "disabled") if tree[key] else ("disabled", "enabled")
                lines.append(f"{key}: the checkpoint has it {there}, the live one is {here}")
            case _:
                _check_stateful(live, key)
    for key in tree:
        if key not in objects:
            lines.append(f"{key}: the checkpoint has it, but it was not given (pass {key}=…)")
    return lines


def differences_for_new_budget(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `restore_for_new_budget` cannot be done: schedulers do not matter."""
    kept = _without_schedulers(objects)
    schedulers = objects.keys() - kept.keys()
    stored = {key: value for key, value in tree.items() if key not in schedulers}
    # A schedule that is gone from the script is no loss: the new budget has its own.
    stored = {
        key: value for key, value in stored.items() if key in kept or not _was_scheduler(value)
    }
    return differences(kept, stored)


def differences_in_weights(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `restore_weights` cannot be done: only modules matter."""
    modules = _modules(objects)
    return differences(modules, {key: tree[key] for key in modules if key in tree})


def destinations(objects: Objects) -> dict[str, Any]:
    """The live memory, on the host and contiguous, that a checkpoint may be read into directly.

    Parameters, buffers, and what optimizers keep for parameters; never what belongs to a schedule.
    """
    names = torch_optimizers.parameter_names(objects)
    tree: dict[str, Any] = {}
    for key, thing in objects.items():
        match unwrap(thing):
            case nn.Module() as module:
                tree[key] = torch_modules.destinations(module)
            case torch.optim.Optimizer() as optimizer:
                tree[key] = torch_optimizers.destinations(optimizer, names)
    return tree


def grown(objects: Objects, tree: Tree, tables: Tables) -> dict[str, Any]:
    """`tree` with these tables, and their slots in optimizers, as long as the live ones.

    New rows of a table are as the live module has them. New rows of a slot are zero, but for
    Adagrad's sum and Rprop's step size, which begin at a hyperparameter; what an optimizer counts
    for the parameter as a whole (`step`) stays as stored.
    """
    names = torch_optimizers.parameter_names(objects)
    result = dict(tree)
    for key, thing in objects.items():
        match unwrap(thing):
            case nn.Module() as module if isinstance(tree.get(key), Mapping):
                live = torch_modules.capture(module, key)
                result[key] = grown_module(key, tree[key], live, tables)
            case torch.optim.Optimizer() as optimizer if key in tree:
                result[key] = torch_growth.grown(optimizer, tree[key], names, tables)
    return result


def differences_in_growth(objects: Objects, tree: Tree, tables: Tables) -> list[str]:
    """Every slot of an optimizer that is kept for a table that grows, but not row by row."""
    names = torch_optimizers.parameter_names(objects)
    return [
        line
        for key, thing in objects.items()
        if isinstance(thing, torch.optim.Optimizer) and key in tree
        for line in torch_growth.differences_in_growth(thing, tree[key], key, names, tables)
    ]


def names_of_weights(objects: Objects) -> list[str]:
    """The names of the modules: all that `restore_weights` loads, and needs in its tree."""
    return list(_modules(objects))


def restore(objects: Objects, tree: Tree) -> None:
    """Loads `tree` into the live objects, bit for bit. Call `differences` first."""
    names = torch_optimizers.parameter_names(objects)
    restore_weights(objects, tree)
    for key, thing in objects.items():
        if isinstance(thing, torch.optim.Optimizer):
            torch_optimizers.restore(thing, tree[key], names)
        elif isinstance(thing, LRScheduler):
            thing.load_state_dict(thaw(tree[key]["state"]))
    _restore_others(objects, tree)


def restore_for_new_budget(objects: Objects, tree: Tree) -> None:
    """Loads `tree` so that a finished run can train on: all that was learned, none of the schedule.

    Weights, moments, scaler, averages and other `Stateful` objects become those of the checkpoint.
    Schedulers, and the hyperparameters of optimizers (learning rate, betas, weight decay), stay as
    the script has just made them, so that a schedule which ended at zero spans the new budget.
    """
    names = torch_optimizers.parameter_names(objects)
    restore_weights(objects, tree)
    for key, thing in objects.items():
        if isinstance(thing, torch.optim.Optimizer):
            torch_optimizers.restore_state(thing, tree[key], names)
    _restore_others(objects, tree)


def restore_weights(objects: Objects, tree: Tree) -> None:
    """Loads the modules of `tree`, averaged ones included; everything else stays fresh."""
    for key, module in _modules(objects).items():
        torch_modules.restore(module, tree[key])


def after_optimizer_step(value: Any, call: Callable[[], None]) -> Callable[[], None] | None:
    """Has `call` called after every step of `value`; returns what ends that, None if no optimizer.

    A step that `GradScaler` skips, because gradients overflowed, is not a step.
    """
    if not isinstance(value, torch.optim.Optimizer):
        return None

    def after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        call()

    return value.register_step_post_hook(after_step).remove


def before_optimizer_step(value: Any, call: Callable[[], None]) -> Callable[[], None] | None:
    """Has `call` called before each step of `value`; returns what ends that, or None as above."""
    if not isinstance(value, torch.optim.Optimizer):
        return None

    def before_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        call()

    return value.register_step_pre_hook(before_step).remove


def optimizer_steps(value: Any) -> int | None:
    """None: PyTorch's optimizers tell through hooks."""
    return None


def layer_seeds(objects: Objects, derive_seed: Callable[[str, int], int]) -> None:
    """None: every layer draws from generators that can be read and set."""
    return None


def learning_rates(value: Any) -> list[float]:
    """The learning rate of each parameter group, as it is now; empty if `value` has none."""
    if not isinstance(value, torch.optim.Optimizer):
        return []
    return [float(group["lr"]) for group in value.param_groups]


def set_learning_rates(value: Any, rates: Sequence[float]) -> None:
    """Sets the learning rate of each parameter group of an optimizer."""
    for group, rate in zip(value.param_groups, rates, strict=True):
        if isinstance(group["lr"], torch.Tensor):  # capturable: the kernels hold on to it
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def forget_moments(value: Any) -> None:
    """Lets an optimizer begin anew: nothing remembered for any parameter, rates as they are."""
    value.state.clear()


def has_schedule(objects: Objects) -> bool:
    """Whether one of the objects decides on learning rates."""
    return any(isinstance(thing, LRScheduler) for thing in objects.values())


@contextmanager
def evaluating(objects: Objects) -> Iterator[None]:
    """Modules in evaluation mode and no gradients, as they were before afterwards."""
    modules = [part for module in _modules(objects).values() for part in module.modules()]
    modes = [part.training for part in modules]
    for part in modules:
        part.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in zip(modules, modes, strict=True):
            part.training = mode


def _restore_others(objects: Objects, tree: Tree) -> None:
    for key, thing in objects.items():
        match unwrap(thing):
            case nn.Module() | torch.optim.Optimizer() | LRScheduler():
                pass
            case torch.Generator() as generator:
                generator.set_state(thaw(tree[key]["state"]))
            case other:
                _check_stateful(other, key)
                state = thaw(tree[key])
                if torch.accelerator.is_available():
                    state = moved_like(state, other.state_dict())
                other.load_state_dict(state)


def _modules(objects: Objects) -> dict[str, nn.Module]:
    unwrapped = {key: unwrap(thing) for key, thing in objects.items()}
    return {key: thing for key, thing in unwrapped.items() if isinstance(thing, nn.Module)}


def _without_schedulers(objects: Objects) -> dict[str, Any]:
    return {key: thing for key, thing in objects.items() if not isinstance(thing, LRScheduler)}


def _was_scheduler(stored: Any) -> bool:
    return isinstance(stored, Mapping) and stored.keys() == {"type", "state"}


def _differences_in_kind(live: LRScheduler | torch.Generator, stored: Any, key: str) -> list[str]:
    if isinstance(live, LRScheduler):
        entry, here = "type", type(live).__name__
    else:
        entry, here = "device", live.device.type
    there = stored.get(entry) if isinstance(stored, Mapping) else None
    there = there or "something else"
    return [] if there == here else [f"{key}: the checkpoint has {there}, the live one is {here}"]


def _check_stateful(thing: Any, key: str) -> None:
    check_stateful(thing, key, kinds="module, optimizer, scheduler or generator")
