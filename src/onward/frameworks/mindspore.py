"""MindSpore: live objects <-> state trees.

Every object is known by its keyword: `network`, `optimizer`, whatever the caller chose. What each
kind of object becomes in a tree:

    nn.Cell              {path in the cell: tensor}
    an optimizer         {"type", "state": {parameter name: …}, "shared", "param_groups"}
    a learning-rate scheduler of mindspore.experimental, a loss scaler
                         {"type", "state"}
    Parameter            {"value"}: such as the scale_sense of a TrainOneStepWithLossScaleCell
    Generator            {"state"}
    any Stateful         its state_dict()
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Generator, Parameter, amp, nn
from mindspore.experimental.optim.lr_scheduler import (
    LRScheduler,
    ReduceLROnPlateau,
    SequentialLR,
)
from mindspore.train import DynamicLossScaleManager, FixedLossScaleManager, Model

from onward.errors import UsageError
from onward.frameworks import mindspore_cells, mindspore_optimizers
from onward.frameworks.growth import Tables, grown_module
from onward.frameworks.mindspore_dropout import SeededDropouts, dropouts
from onward.frameworks.mindspore_optimizers import OPTIMIZERS
from onward.frameworks.mindspore_randomness import capture_randomness, restore_randomness
from onward.frameworks.mindspore_tensors import freeze, leaf_of, thaw, write
from onward.frameworks.mindspore_versions import check_versions
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

name = "mindspore"

check_versions(ms.__version__, np.__version__)  # whoever opens an output loads this file first

Objects = Mapping[str, Any]
Tree = Mapping[str, Any]

_SCHEDULERS = (LRScheduler, ReduceLROnPlateau, SequentialLR)
_SCALERS = (amp.LossScaler, DynamicLossScaleManager, FixedLossScaleManager)
_SCALE_CELLS = (nn.DynamicLossScaleUpdateCell, nn.FixedLossScaleUpdateCell)


def version() -> str:
    """The installed version, for the record."""
    return str(ms.__version__)


def capture(objects: Objects) -> dict[str, Any]:
    """The state tree of the named live objects. Leaves share memory where that is possible.

    Raises `Unstorable`, naming the path, for what cannot be stored.
    """
    names = mindspore_optimizers.parameter_names(_networks(objects))
    tree: dict[str, Any] = {}
    for key, thing in objects.items():
        match thing:
            case _ if isinstance(thing, OPTIMIZERS):
                tree[key] = mindspore_optimizers.capture(thing, key, names)
            case nn.Cell():
                tree[key] = mindspore_cells.capture(thing, key)
            case _ if isinstance(thing, (*_SCHEDULERS, *_SCALERS)):
                tree[key] = _described(thing, key)
            case Parameter():
                tree[key] = {"value": leaf_of(thing, key)}
            case Generator():
                tree[key] = {"state": freeze(thing.get_state(), key)}
            case _:
                _check_stateful(thing, key)
                tree[key] = freeze(thing.state_dict(), key)
    return tree


def differences(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `tree` (leaves may lack data) does not fit the live objects."""
    names = mindspore_optimizers.parameter_names(_networks(objects))
    lines = []
    for key, thing in objects.items():
        if key not in tree:
            lines.append(f"{key}: the checkpoint has no such object")
        elif isinstance(thing, OPTIMIZERS):
            lines += mindspore_optimizers.differences(thing, tree[key], key, names)
        elif isinstance(thing, nn.Cell):
            lines += mindspore_cells.differences(thing, tree[key], key)
        elif isinstance(thing, (*_SCHEDULERS, *_SCALERS)):
            there = tree[key].get("type") if isinstance(tree[key], Mapping) else None
            if there != type(thing).__name__:
                there = there or "something else"
                here = type(thing).__name__
                lines.append(f"{key}: the checkpoint has {there}, the live one is {here}")
        elif isinstance(thing, Parameter | Generator):
            entry = "value" if isinstance(thing, Parameter) else "state"
            if not isinstance(tree[key], Mapping) or entry not in tree[key]:
                kind = type(thing).__name__
                lines.append(f"{key}: the checkpoint has something else than a {kind} there")
        else:
            _check_stateful(thing, key)
    for key in tree:
        if key not in objects:
            lines.append(f"{key}: the checkpoint has it, but it was not given (pass {key}=…)")
    return lines


def differences_for_new_budget(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `restore_for_new_budget` cannot be done: schedulers do not matter."""
    schedulers = {key for key, thing in objects.items() if isinstance(thing, _SCHEDULERS)}
    kept = {key: thing for key, thing in objects.items() if key not in schedulers}
    stored = {
        key: value
        for key, value in tree.items()
        # A schedule that is gone from the script is no loss: the new budget has its own.
        if key not in schedulers and (key in kept or not _was_scheduler(value))
    }
    return differences(kept, stored)


def differences_in_weights(objects: Objects, tree: Tree) -> list[str]:
    """Every reason why `restore_weights` cannot be done: only networks matter."""
    networks = _networks(objects)
    return differences(networks, {key: tree[key] for key in networks if key in tree})


def destinations(objects: Objects) -> dict[str, Any]:
    """The live memory that a checkpoint may be read into directly: on the host, all of it."""
    names = mindspore_optimizers.parameter_names(_networks(objects))
    tree: dict[str, Any] = {}
    for key, thing in objects.items():
        if isinstance(thing, OPTIMIZERS):
            tree[key] = mindspore_optimizers.destinations(thing, names)
        elif isinstance(thing, nn.Cell):
            tree[key] = mindspore_cells.destinations(thing)
    return tree


def grown(objects: Objects, tree: Tree, tables: Tables) -> dict[str, Any]:
    """`tree` with these tables, and their slots in optimizers, as long as the live ones.

    New rows of a table are as the live network has them, new rows of a slot as the optimizer has
    just made them; what it counts for all parameters together stays as stored.
    """
    names = mindspore_optimizers.parameter_names(_networks(objects))
    result = dict(tree)
    for key, thing in objects.items():
        if not isinstance(tree.get(key), Mapping):
            continue
        if isinstance(thing, OPTIMIZERS):
            result[key] = mindspore_optimizers.grown(thing, tree[key], names, tables)
        elif isinstance(thing, nn.Cell):
            live = mindspore_cells.capture(thing, key)
            result[key] = grown_module(key, tree[key], live, tables)
    return result


def differences_in_growth(objects: Objects, tree: Tree, tables: Tables) -> list[str]:
    """Every slot of an optimizer that is kept for a table that grows, but not row by row."""
    return [
        line
        for key, thing in objects.items()
        if isinstance(thing, OPTIMIZERS) and key in tree
        for line in mindspore_optimizers.differences_in_growth(tree[key], key, tables)
    ]


def names_of_weights(objects: Objects) -> list[str]:
    """The names of the networks: all that `restore_weights` loads, and needs in its tree."""
    return list(_networks(objects))


def restore(objects: Objects, tree: Tree) -> None:
    """Loads `tree` into the live objects, bit for bit. Call `differences` first."""
    names = mindspore_optimizers.parameter_names(_networks(objects))
    restore_weights(objects, tree)
    for key, thing in objects.items():
        if isinstance(thing, OPTIMIZERS):
            mindspore_optimizers.restore(thing, tree[key], names)
        elif isinstance(thing, _SCHEDULERS):
            _restore_attributes(thing, tree[key]["state"])
    _restore_others(objects, tree)


def restore_for_new_budget(objects: Objects, tree: Tree) -> None:
    """Loads `tree` so that a finished run can train on: all that was learned, none of the schedule.

    Networks, moments, scalers and other `Stateful` objects become those of the checkpoint. Learning
    rates and schedulers stay as the script has just made them; so does `global_step`, where a
    dynamic learning rate reads its position from it.
    """
    names = mindspore_optimizers.parameter_names(_networks(objects))
    restore_weights(objects, tree)
    for key, thing in objects.items():
        if isinstance(thing, OPTIMIZERS):
            mindspore_optimizers.restore_state(thing, tree[key], names)
    _restore_others(objects, tree)


def restore_weights(objects: Objects, tree: Tree) -> None:
    """Loads the networks of `tree`; everything else stays fresh."""
    for key, cell in _networks(objects).items():
        mindspore_cells.restore(cell, tree[key])


def after_optimizer_step(value: Any, call: Callable[[], None]) -> Callable[[], None] | None:
    """None: hooks of cells break compiled graphs. Steps are read from `optimizer_steps`."""
    return None


def before_optimizer_step(value: Any, call: Callable[[], None]) -> Callable[[], None] | None:
    """None, as above: tensors are copied at once, before saving returns."""
    return None


def optimizer_steps(value: Any) -> int | None:
    """How many steps an optimizer has counted; None for what does not count.

    A step that a loss scaler skips, because gradients overflowed, is not a step.
    """
    return mindspore_optimizers.steps(value) if isinstance(value, OPTIMIZERS) else None


def layer_seeds(objects: Objects, derive_seed: Callable[[str, int], int]) -> SeededDropouts | None:
    """Takes over the dropout layers' draws; None where there are none."""
    layers = dropouts(_networks(objects))
    return SeededDropouts(layers, derive_seed) if layers else None


def learning_rates(value: Any) -> list[float]:
    """The learning rate of each parameter group, as it is now; empty if `value` has none."""
    return mindspore_optimizers.learning_rates(value) if isinstance(value, OPTIMIZERS) else []


def set_learning_rates(value: Any, rates: Sequence[float]) -> None:
    """Sets the learning rate of each parameter group of an optimizer."""
    mindspore_optimizers.set_learning_rates(value, rates)


def forget_moments(value: Any) -> None:
    """Lets an optimizer begin anew: nothing remembered for any parameter, rates as they are."""
    mindspore_optimizers.forget_moments(value)


def has_schedule(objects: Objects) -> bool:
    """Whether one of the objects decides on learning rates."""
    return any(
        isinstance(thing, _SCHEDULERS)
        or (isinstance(thing, OPTIMIZERS) and mindspore_optimizers.is_scheduled(thing))
        for thing in objects.values()
    )


@contextmanager
def evaluating(objects: Objects) -> Iterator[None]:
    """Networks in evaluation mode, as they were before afterwards. Gradients are only taken by
    `value_and_grad` anyway.
    """
    with mindspore_cells.evaluating(list(_networks(objects).values())):
        yield


def _restore_others(objects: Objects, tree: Tree) -> None:
    for key, thing in objects.items():
        match thing:
            case nn.Cell() if isinstance(thing, _SCALE_CELLS):
                mindspore_cells.restore(thing, tree[key])
            case nn.Cell():
                pass
            case _ if isinstance(thing, _SCHEDULERS):
                pass
            case _ if isinstance(thing, _SCALERS):
                _restore_attributes(thing, tree[key]["state"])
            case Parameter():
                write(thing, tree[key]["value"])
            case Generator():
                thing.set_state(thaw(tree[key]["state"]))
            case _:
                _check_stateful(thing, key)
                thing.load_state_dict(thaw(tree[key]))


def _networks(objects: Objects) -> dict[str, nn.Cell]:
    found = {}
    for key, thing in objects.items():
        if isinstance(thing, Model):
            raise UsageError(
                f"{key}= is a mindspore.Model",
                why="its network and optimizer are what learns",
                do="train it with OnwardCallback of onward.trainers.mindspore; for a loop of your "
                "own pass its parts: onward.open(url, network=network, optimizer=optimizer)",
            )
        if isinstance(thing, nn.Cell) and not isinstance(thing, (*OPTIMIZERS, *_SCALE_CELLS)):
            found[key] = thing
    return found


def _described(thing: Any, path: str) -> dict[str, Any]:
    state = {name: freeze(v, f"{path}.{name}") for name, v in _attributes(thing).items()}
    for number, part in enumerate(_parts(thing)):
        state[f"schedulers.{number}"] = _described(part, f"{path}.schedulers[{number}]")
    return {"type": type(thing).__name__, "state": state}


def _parts(thing: Any) -> list[Any]:
    """The schedulers that follow one another in a `SequentialLR`."""
    return list(thing._schedulers) if isinstance(thing, SequentialLR) else []


def _attributes(thing: Any) -> dict[str, Any]:
    """The numbers and parameters that a scheduler or a scaler counts with, by name."""
    plain = (bool, int, float, str, ms.Tensor)
    return {
        name: value
        for name, value in vars(thing).items()
        if isinstance(value, plain)
        or (isinstance(value, list) and all(isinstance(each, (int, float)) for each in value))
    }


def _restore_attributes(thing: Any, state: Mapping[str, Any]) -> None:
    for name, live in _attributes(thing).items():
        if name not in state:
            continue
        if isinstance(live, ms.Tensor):
            write(live, state[name])
        else:
            setattr(thing, name, thaw(state[name]))
    for number, part in enumerate(_parts(thing)):
        if f"schedulers.{number}" in state:
            _restore_attributes(part, state[f"schedulers.{number}"]["state"])


def _was_scheduler(stored: Any) -> bool:
    return isinstance(stored, Mapping) and stored.keys() == {"type", "state"}


def _check_stateful(thing: Any, key: str) -> None:
    check_stateful(thing, key, kinds="Cell, optimizer, scheduler, loss scaler or generator")
