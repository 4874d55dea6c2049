"""Optimizers whose parameters grow: their slots are mapped row by row, as the parameter is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from onward.frameworks.base import TensorLeaf
from onward.frameworks.growth import Table, Tables, grown_leaf
from onward.frameworks.torch_optimizers import Names, has_own_verbs, named_groups, type_name
from onward.frameworks.torch_tensors import dtype_named

# What a slot begins with where that is not zero: a hyperparameter of its group.
_FIRST_VALUES = {("Adagrad", "sum"): "initial_accumulator_value", ("Rprop", "step_size"): "lr"}
# Kept for the parameter as a whole, whatever their shape: a count; Adafactor's mean over rows.
_NOT_BY_ROW = frozenset({"step", "col_var"})
# Keeps what it has for all of its parameters together, in one long vector.
_TOGETHER = frozenset({"LBFGS"})


def grown(optimizer: torch.optim.Optimizer, tree: Any, names: Names, tables: Tables) -> Any:
    """`tree` with the slots of these tables as long as the live parameters."""
    state = _stored_state(tree)
    if not state:
        return tree
    result = dict(state)
    for name, parameter, group in _of_tables(optimizer, names, tables):
        slots = state.get(name)
        if isinstance(slots, Mapping):
            result[name] = {
                key: grown_leaf(
                    slot, tables[name], first=_first(optimizer, key, slot, group, parameter)
                )
                if _is_by_row(key, slot, tables[name])
                else slot
                for key, slot in slots.items()
            }
    return {**tree, "state": result}


def differences_in_growth(
    optimizer: torch.optim.Optimizer, tree: Any, key: str, names: Names, tables: Tables
) -> list[str]:
    """Every reason why the state of these tables cannot be mapped row by row."""
    concerned = [name for name, _, _ in _of_tables(optimizer, names, tables)]
    if not concerned or not isinstance(tree, Mapping):
        return []
    own = "own" in tree or has_own_verbs(optimizer)
    if own or (type_name(optimizer) in _TOGETHER and _stored_state(tree)):
        return [
            f"{key}: {type_name(optimizer)} keeps its state in a form of its own, in which the "
            f"rows of {', '.join(concerned)} cannot be told apart"
        ]
    state = _stored_state(tree)
    return [
        f"{key}.state[{name}].{slot}: it is not kept row by row, and the rows of {name} changed"
        for name in concerned
        for slot, value in _items(state.get(name))
        if not _is_by_row(slot, value, tables[name]) and not _is_whole(value, tables[name])
    ]


def _stored_state(tree: Any) -> Mapping[str, Any]:
    state = tree.get("state") if isinstance(tree, Mapping) else None
    return state if isinstance(state, Mapping) else {}


def _items(slots: Any) -> list[tuple[str, Any]]:
    return list(slots.items()) if isinstance(slots, Mapping) else []


def _of_tables(
    optimizer: torch.optim.Optimizer, names: Names, tables: Tables
) -> Iterator[tuple[str, torch.Tensor, Mapping[str, Any]]]:
    """Those of its parameters that are tables, each with its name and its group."""
    for group, named in zip(optimizer.param_groups, named_groups(optimizer, names), strict=True):
        for name, parameter in named.items():
            if name in tables:
                yield name, parameter, group


def _is_by_row(key: str, slot: Any, table: Table) -> bool:
    """Whether the slot has a value, or a row of values, for each row of the table."""
    if not isinstance(slot, TensorLeaf) or key in _NOT_BY_ROW:
        return False
    alike = len(slot.shape) == len(table.shape) and slot.shape[:1] == table.shape[:1]
    pairs = zip(slot.shape[1:], table.shape[1:], strict=False)
    return alike and all(extent in (1, whole) for extent, whole in pairs)


def _is_whole(slot: Any, table: Table) -> bool:
    """Whether the slot means the same whatever rows the table has."""
    if isinstance(slot, TensorLeaf):
        once = len(slot.shape) == len(table.shape) and slot.shape[0] == 1
        return prod(slot.shape) <= 1 or once
    if isinstance(slot, Mapping | list | tuple):
        return all(
            _is_whole(s, table) for s in (slot.values() if hasattr(slot, "values") else slot)
        )
    return True


def _first(
    optimizer: torch.optim.Optimizer,
    key: str,
    slot: TensorLeaf,
    group: Mapping[str, Any],
    parameter: torch.Tensor,
) -> npt.NDArray[np.uint8] | None:
    """The bytes of one element of a new row; None for zero."""
    hyperparameter = _FIRST_VALUES.get((type_name(optimizer), key))
    if hyperparameter is None:
        return None
    value: float | complex = float(group[hyperparameter])
    if parameter.is_complex():
        value = complex(value, value)
    dtype = dtype_named(slot.dtype)
    return torch.full((1,), value, dtype=dtype).view(torch.uint8).numpy()
