"""MindSpore's optimizers <-> state trees, by the name of each parameter in the network.

An optimizer is a cell. It keeps, beside the parameters that it trains, *slots* (one tensor for each
of them, such as `moments`), numbers for all of them together (`global_step`, `beta1_power`), and
its learning rates. The tree has the form that PyTorch's optimizers have, too:

    {"type", "state": {parameter: {slot: leaf}}, "shared": {name: leaf},
     "param_groups": [{"lr", "weight_decay", "params": [parameter]}]}

A slot's name is what stands before the name of its parameter: `moments.conv.weight`. The tables of
dynamic learning rates and decays are configuration, and are not kept; where they stand is
`global_step`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mindspore import Parameter, ParameterTuple, nn
from mindspore.experimental.optim import Optimizer as ExperimentalOptimizer

from onward.errors import UsageError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.growth import Table, Tables, grown_leaf
from onward.frameworks.mindspore_cells import tensors
from onward.frameworks.mindspore_tensors import (
    leaf_of,
    live_leaf,
    number,
    write,
    write_number,
)

OPTIMIZERS = (nn.Optimizer, ExperimentalOptimizer)

STEPS = ("global_step", "state_step", "step_t")
"""What counts steps, where an optimizer has it."""
_HYPERPARAMETERS = frozenset({"momentum"})
_RATES = ("learning_rate", "lr")  # what parameters of learning rates are called at the beginning
_NO_SLOTS = frozenset({"parameters", "_parameters", "params", "_params", "learning_rate", "lrs",
                       "group_params", "group_lr", "group_weight_decay"})  # fmt: skip
# What a slot begins with where that is not zero: a number, or an argument of the optimizer.
_FIRST: dict[tuple[str, str], float | str] = {
    ("SGD", "stat"): 1.0, ("RMSProp", "mean_square"): 1.0, ("Adagrad", "accum"): "accum",
    ("ProximalAdagrad", "accum"): "accum", ("FTRL", "moments"): "initial_accum",
    ("ASGD", "mu"): 1.0, ("NAdam", "mu_product"): 1.0,
}  # fmt: skip
_FIRST_SHARED = {"beta1_power": 1.0, "beta2_power": 1.0} | dict.fromkeys(STEPS, 0.0)

Names = Mapping[int, str]
"""The name of each parameter by its `id()`."""


def parameter_names(cells: Mapping[str, nn.Cell]) -> dict[int, str]:
    """The name of every parameter of every network, such as `model.fc.weight`."""
    names: dict[int, str] = {}
    for key, cell in cells.items():
        for name, parameter in tensors(cell).items():
            names.setdefault(id(parameter), f"{key}.{name}")
    return names


def capture(optimizer: Any, key: str, names: Names) -> dict[str, Any]:
    """The tree of an optimizer."""
    kind, optimizer = _kind(optimizer), _within(optimizer)
    named = _named(optimizer, names)
    state: dict[str, dict[str, TensorLeaf]] = {}
    for name, slot, live in slots(optimizer, named):
        state.setdefault(name, {})[slot] = leaf_of(live, f"{key}.state[{name}].{slot}")
    shared = {
        name: leaf_of(live, f"{key}.shared.{name}") for name, live in _shared(optimizer).items()
    }
    return {
        "type": kind,
        "state": state,
        "shared": shared,
        "param_groups": [
            {
                "lr": rate,
                "weight_decay": decay,
                "params": [named[id(p)] for p in parameters],
                **({"scheduled": True} if getattr(optimizer, "dynamic_lr", False) else {}),
            }
            for rate, decay, parameters in _groups(optimizer)
        ],
    }


def differences(optimizer: Any, tree: Any, key: str, names: Names) -> list[str]:
    """Every reason why `tree` does not fit `optimizer`."""
    if not isinstance(tree, Mapping) or "type" not in tree:
        return [f"{key}: the checkpoint has something else than an optimizer there"]
    kind = _kind(optimizer)
    if tree["type"] != kind:
        return [f"{key}: the checkpoint has {tree['type']}, the live one is {kind}"]
    here, optimizer = capture(optimizer, key, names), _within(optimizer)
    live = list(_named(optimizer, names).values())
    stored = [name for group in tree["param_groups"] for name in group["params"]]
    lines = [f"{key}: the checkpoint has no {name}" for name in live if name not in stored]
    lines += [
        f"{key}: the checkpoint has {name}, the live one does not"
        for name in stored
        if name not in live
    ]
    there = tree
    for name in sorted(here["state"].keys() & there["state"].keys()):
        ours, theirs = set(here["state"][name]), set(there["state"][name])
        where = f"{key}.state[{name}]"
        lines += [f"{where}: {slot} is only in the checkpoint" for slot in sorted(theirs - ours)]
        lines += [f"{where}: {slot} is not in the checkpoint" for slot in sorted(ours - theirs)]
    return lines


def destinations(optimizer: Any, names: Names) -> dict[str, Any]:
    """The live memory of slots."""
    optimizer = _within(optimizer)
    state: dict[str, dict[str, TensorLeaf]] = {}
    for name, slot, live in slots(optimizer, _named(optimizer, names)):
        leaf = live_leaf(live)
        if leaf is not None:
            state.setdefault(name, {})[slot] = leaf
    return {"state": state}


def restore(optimizer: Any, tree: Mapping[str, Any], names: Names) -> None:
    """Gives `optimizer` the state and the hyperparameters of `tree`."""
    optimizer = _within(optimizer)
    _restore_slots(optimizer, tree, names)
    for name, live in _shared(optimizer).items():
        if name in tree["shared"]:
            write(live, tree["shared"][name])
    rates = {name: group["lr"] for group in tree["param_groups"] for name in group["params"]}
    for rate, (parameter, members) in zip(_rates(optimizer), _rate_groups(optimizer), strict=True):
        stored = rates.get(_named(optimizer, names)[id(members[0])]) if members else None
        if parameter is not None and stored is not None and stored != rate:
            write_number(parameter, stored)


def restore_state(optimizer: Any, tree: Mapping[str, Any], names: Names) -> None:
    """Gives `optimizer` the state of `tree` (moments, step counts); hyperparameters stay live.

    Where the learning rate or the decay is dynamic, `global_step` is the position in that schedule
    and begins anew with it.
    """
    optimizer = _within(optimizer)
    _restore_slots(optimizer, tree, names)
    kept = set(_HYPERPARAMETERS)
    if is_scheduled(optimizer):
        kept.add("global_step")
    for name, live in _shared(optimizer).items():
        if name in tree["shared"] and name not in kept:
            write(live, tree["shared"][name])


def is_scheduled(optimizer: Any) -> bool:
    """Whether its learning rate or weight decay follows from its step count."""
    optimizer = _within(optimizer)
    return bool(
        getattr(optimizer, "dynamic_lr", False) or getattr(optimizer, "dynamic_weight_decay", False)
    )


def steps(optimizer: Any) -> int | None:
    """How many steps it has counted; None if it does not count."""
    optimizer = _within(optimizer)
    for name in STEPS:
        counter = getattr(optimizer, name, None)
        if isinstance(counter, Parameter):
            return int(number(counter))
    return None


def learning_rates(optimizer: Any) -> list[float]:
    """The present learning rate of each group."""
    return [rate for rate in _rates(_within(optimizer)) if rate is not None]


def set_learning_rates(optimizer: Any, rates: Sequence[float]) -> None:
    """Sets the learning rate of each group. Raises `UsageError` where a schedule decides."""
    optimizer = _within(optimizer)
    for rate, (parameter, _) in zip(rates, _rate_groups(optimizer), strict=True):
        if parameter is None:
            raise UsageError(
                f"{type(optimizer).__name__} has a learning rate with a schedule of its own",
                do="give it one number, or plan with schedule=False",
            )
        write_number(parameter, rate)


def forget_moments(optimizer: Any) -> None:
    """Lets it begin anew: slots and counts as when the optimizer was made, rates as they are.

    Where a schedule reads its position from `global_step`, that stays.
    """
    optimizer = _within(optimizer)
    kind = type(optimizer).__name__
    arguments = dict(getattr(optimizer, "init_args", {}))
    if isinstance(optimizer, ExperimentalOptimizer):
        arguments["accum"] = optimizer.param_groups[0].get("initial_accumulator_value", 0.0)
    for _, slot, live in slots(optimizer, _named(optimizer, {})):
        first = _FIRST.get((kind, slot), 0.0)
        write_number(live, float(arguments.get(first, 0.0)) if isinstance(first, str) else first)
    scheduled = is_scheduled(optimizer)
    for name, live in _shared(optimizer).items():
        if name in _FIRST_SHARED and not (scheduled and name == "global_step"):
            write_number(live, _FIRST_SHARED[name])


def grown(optimizer: Any, tree: Any, names: Names, tables: Tables) -> Any:
    """`tree` with the slots of these tables as long as the live parameters.

    New rows are as the optimizer has just made them.
    """
    optimizer = _within(optimizer)
    state = tree.get("state") if isinstance(tree, Mapping) else None
    if not isinstance(state, Mapping):
        return tree
    result = {name: dict(kept) for name, kept in state.items()}
    for name, slot, live in slots(optimizer, _named(optimizer, names)):
        stored = state.get(name, {}).get(slot)
        if name in tables and isinstance(stored, TensorLeaf) and _is_by_row(stored, tables[name]):
            result[name][slot] = grown_leaf(stored, tables[name], live=leaf_of(live, slot))
    return {**tree, "state": result}


def differences_in_growth(tree: Any, key: str, tables: Tables) -> list[str]:
    """Every slot of these tables that is not kept row by row."""
    state = tree.get("state", {}) if isinstance(tree, Mapping) else {}
    return [
        f"{key}.state[{name}].{slot}: it is not kept row by row, and the rows of {name} changed"
        for name, table in tables.items()
        for slot, leaf in state.get(name, {}).items()
        if not _is_by_row(leaf, table) and leaf.size_bytes > 8
    ]


def _within(optimizer: Any) -> Any:
    """The optimizer itself, or the one that it wraps: LARS has no state of its own."""
    return optimizer.opt if isinstance(optimizer, nn.LARS) else optimizer


def _kind(optimizer: Any) -> str:
    within = _within(optimizer)
    name = type(optimizer).__name__
    return name if within is optimizer else f"{name}({type(within).__name__})"


def slots(optimizer: Any, named: Names) -> Iterator[tuple[str, str, Any]]:
    """The name of the trained parameter, the slot, and the live tensor, for each slot."""
    # A name is asked for once: MindSpore waits for its kernels each time.
    names = {id(parameter): parameter.name for parameter in optimizer.parameters}
    for attribute, parameter, live in _slot_tensors(optimizer):
        name = live.name
        prefix = name.removesuffix(f".{names[id(parameter)]}")
        yield named[id(parameter)], prefix if prefix != name else attribute, live


def _slot_tensors(optimizer: Any) -> Iterator[tuple[str, Any, Any]]:
    """The attribute, the trained parameter and the live tensor, for each slot."""
    trained = list(optimizer.parameters)
    owners = {id(p) for p in trained}
    for attribute, value in vars(optimizer).items():
        if attribute in _NO_SLOTS or not isinstance(value, ParameterTuple | tuple | list):
            continue
        kept = list(value)
        if len(kept) != len(trained) or not all(isinstance(each, Parameter) for each in kept):
            continue
        if any(id(each) in owners for each in kept):
            continue
        for parameter, live in zip(trained, kept, strict=True):
            yield attribute, parameter, live


def _restore_slots(optimizer: Any, tree: Mapping[str, Any], names: Names) -> None:
    for name, slot, live in slots(optimizer, _named(optimizer, names)):
        stored = tree["state"].get(name, {}).get(slot)
        if stored is not None:
            write(live, stored)


def _shared(optimizer: Any) -> dict[str, Any]:
    """The numbers that it keeps for all parameters together, by name."""
    taken = {id(p) for p in optimizer.parameters}
    taken |= {id(live) for _, _, live in _slot_tensors(optimizer)}
    taken |= {id(rate) for rate, _ in _rate_groups(optimizer) if rate is not None}
    return {
        name: parameter
        for name, parameter in optimizer.parameters_and_names()
        if id(parameter) not in taken and not name.startswith(_RATES)
    }


def _named(optimizer: Any, names: Names) -> dict[int, str]:
    """The names of its parameters; one that is in no network goes by its own."""
    return {id(p): names.get(id(p)) or p.name for p in optimizer.parameters}


def _groups(optimizer: Any) -> Iterator[tuple[float | None, float | None, list[Any]]]:
    """Learning rate (None where a schedule decides), weight decay and parameters of each group."""
    decays = _decays(optimizer)
    for rate, (_, members) in zip(_rates(optimizer), _rate_groups(optimizer), strict=True):
        yield rate, decays.get(id(members[0])) if members else None, members


def _rate_groups(optimizer: Any) -> list[tuple[Any | None, list[Any]]]:
    """The Parameter that holds a learning rate, None for a schedule, and whose it is."""
    if isinstance(optimizer, ExperimentalOptimizer):
        return [
            (group["lr"] if isinstance(group["lr"], Parameter) else None, list(group["params"]))
            for group in optimizer.param_groups
        ]
    rates = optimizer.learning_rate
    if not optimizer.is_group_lr:
        return [(rates if isinstance(rates, Parameter) else None, list(optimizer.parameters))]
    groups: dict[int, tuple[Any | None, list[Any]]] = {}
    for parameter, rate in zip(optimizer.parameters, rates, strict=True):
        held = rate if isinstance(rate, Parameter) else None
        groups.setdefault(id(rate), (held, []))[1].append(parameter)
    return list(groups.values())


def _rates(optimizer: Any) -> list[float | None]:
    """What each group's learning rate is at the next step."""
    if not getattr(optimizer, "dynamic_lr", False):
        return [
            number(rate) if isinstance(rate, Parameter) else None
            for rate, _ in _rate_groups(optimizer)
        ]
    place = {id(p): i for i, p in enumerate(optimizer.parameters)}
    found: list[float | None] = []
    for _, members in _rate_groups(optimizer):
        schedule = optimizer.learning_rate
        if optimizer.is_group_lr:
            schedule = schedule[place[id(members[0])]]
        found.append(_scheduled(schedule, optimizer.global_step))
    return found


def _scheduled(schedule: Any, step: Any) -> float:
    table = getattr(schedule, "learning_rate", None)
    if isinstance(table, Parameter) and len(table.shape) == 1:
        # After its last step a table has no entry any more.
        values = table.asnumpy()
        return float(values[min(int(number(step)), len(values) - 1)])
    return number(schedule(step))


def _decays(optimizer: Any) -> dict[int, float | None]:
    if isinstance(optimizer, ExperimentalOptimizer):
        return {
            id(p): float(group.get("weight_decay", 0.0))
            for group in optimizer.param_groups
            for p in group["params"]
        }
    decay = optimizer.weight_decay
    each = decay if isinstance(decay, tuple) else [decay] * len(optimizer.parameters)
    return {
        id(p): None if isinstance(value, nn.Cell) else number(value)
        for p, value in zip(optimizer.parameters, each, strict=True)
    }


def _is_by_row(leaf: TensorLeaf, table: Table) -> bool:
    return len(leaf.shape) == len(table.shape) and leaf.shape == table.shape
