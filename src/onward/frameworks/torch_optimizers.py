"""Optimizers <-> state trees, with a name instead of a number for every parameter.

Bit for bit needs its own way back: `Optimizer.load_state_dict` casts state to the dtype of its
parameter, which loses the float32 moments of bfloat16 parameters. An optimizer that overrides
`state_dict` or `load_state_dict` is left to its own verbs.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import nn

from onward.errors import Unstorable
from onward.frameworks.base import TensorLeaf
from onward.frameworks.torch_modules import plain_name, unwrap
from onward.frameworks.torch_tensors import freeze, is_live, live_leaf, owned, settled, thaw, view

# How a step is computed, not what: chosen where the optimizer is made, kept as it was made.
_IMPLEMENTATION = frozenset({"foreach", "fused", "capturable", "differentiable"})
_NOT_HYPERPARAMETERS = _IMPLEMENTATION | {"params", "param_names"}

Names = Mapping[int, str]
"""The name of each parameter by its `id()`."""


def parameter_names(objects: Mapping[str, Any]) -> dict[int, str]:
    """The name of every parameter of every module among `objects`, such as `model.fc.weight`."""
    names: dict[int, str] = {}
    for key, thing in objects.items():
        module = unwrap(thing)
        if isinstance(module, nn.Module):
            for name, parameter in module.named_parameters():
                names.setdefault(id(parameter), f"{key}.{plain_name(name)}")
    return names


def parameters(objects: Mapping[str, Any]) -> set[int]:
    """The `id()` of every parameter that some optimizer among `objects` changes."""
    return {
        id(parameter)
        for thing in objects.values()
        if isinstance(thing, torch.optim.Optimizer)
        for group in thing.param_groups
        for parameter in group["params"]
    }


def capture(optimizer: torch.optim.Optimizer, key: str, names: Names) -> dict[str, Any]:
    """The tree of an optimizer: its class, its state by parameter name, its groups."""
    if has_own_verbs(optimizer):
        return {"type": type_name(optimizer), "own": freeze(optimizer.state_dict(), key)}
    groups = named_groups(optimizer, names)
    by_id = {id(p): name for group in groups for name, p in group.items()}
    state: dict[str, Any] = {}
    shared: dict[Any, Any] = {}
    for owner, values in optimizer.state.items():
        if not isinstance(owner, torch.Tensor):
            shared[owner] = freeze(values, f"{key}.state[{owner!r}]")
        elif id(owner) in by_id:
            name = by_id[id(owner)]
            state[name] = settled(freeze(values, f"{key}.state[{name}]"))
        else:
            raise Unstorable(
                f"{key}.state has state for a tensor that is in none of its groups",
                do="remove that state, or give the parameter a group",
            )
    return {
        "type": type_name(optimizer),
        "state": state,
        "shared": shared,
        "param_groups": [
            {
                **{
                    name: freeze(value, f"{key}.param_groups[{i}].{name}")
                    for name, value in group.items()
                    if name != "params"
                },
                "params": list(named),
            }
            for i, (group, named) in enumerate(zip(optimizer.param_groups, groups, strict=True))
        ],
    }


def differences(optimizer: torch.optim.Optimizer, tree: Any, key: str, names: Names) -> list[str]:
    """Every reason why `tree` does not fit `optimizer`."""
    if not isinstance(tree, Mapping) or "type" not in tree:
        return [f"{key}: the checkpoint has something else than an optimizer there"]
    if tree["type"] != type_name(optimizer):
        return [f"{key}: the checkpoint has {tree['type']}, the live one is {type_name(optimizer)}"]
    if has_own_verbs(optimizer) or "own" in tree:
        return []
    live, stored = named_groups(optimizer, names), tree["param_groups"]
    if len(live) != len(stored):
        there = ", ".join(str(len(group["params"])) for group in stored)
        here = ", ".join(str(len(group)) for group in live)
        return [
            f"{key}: the checkpoint has {len(stored)} parameter groups (of {there} parameters), "
            f"the live one has {len(live)} (of {here})"
        ]
    lines = []
    for i, (group, saved) in enumerate(zip(live, stored, strict=True)):
        where, params = f"{key}.param_groups[{i}]", saved["params"]
        lines += [f"{where}: the checkpoint has no {name}" for name in group if name not in params]
        lines += [
            f"{where}: the checkpoint has {name}, the live one does not"
            for name in params
            if name not in group
        ]
        if params != list(group) and set(params) == set(group):
            lines.append(f"{where}: the checkpoint has the same parameters in another order")
    return lines


def destinations(optimizer: torch.optim.Optimizer, names: Names) -> dict[str, Any]:
    """The tensors of its present state that `restore` would otherwise make anew just like them."""
    if has_own_verbs(optimizer):
        return {}
    state: dict[str, dict[str, TensorLeaf]] = {}
    for group, named in zip(optimizer.param_groups, named_groups(optimizer, names), strict=True):
        for name, parameter in named.items():
            values = optimizer.state.get(parameter)
            if not isinstance(values, dict):
                continue
            state[name] = {}
            for key, live in values.items():
                leaf = live_leaf(live)
                if leaf is not None and not live.requires_grad:
                    fits = live.device == _device(parameter, key, group)
                    if fits and _lies_right(live, parameter):
                        state[name][key] = leaf
    return {"state": state}


def restore(optimizer: torch.optim.Optimizer, tree: Mapping[str, Any], names: Names) -> None:
    """Gives `optimizer` the state and the hyperparameters of `tree`."""
    if "own" in tree:
        optimizer.load_state_dict(thaw(tree["own"]))
        return
    restore_state(optimizer, tree, names)
    for group, saved in zip(optimizer.param_groups, tree["param_groups"], strict=True):
        for name, stored in saved.items():
            if name not in _NOT_HYPERPARAMETERS:
                _set_hyperparameter(group, name, thaw(stored))


def restore_state(optimizer: torch.optim.Optimizer, tree: Mapping[str, Any], names: Names) -> None:
    """Gives `optimizer` the state of `tree` (moments, step counts); hyperparameters stay live."""
    if "own" in tree:
        live = [
            {name: value for name, value in group.items() if name != "params"}
            for group in optimizer.param_groups
        ]
        optimizer.load_state_dict(thaw(tree["own"]))
        for group, kept in zip(optimizer.param_groups, live, strict=True):
            group.update(kept)
        return
    before = dict(optimizer.state)
    optimizer.state.clear()
    for owner, values in tree["shared"].items():
        optimizer.state[owner] = thaw(values)
    for group, named in zip(optimizer.param_groups, named_groups(optimizer, names), strict=True):
        for name, parameter in named.items():
            if name in tree["state"]:
                optimizer.state[parameter] = _state_of(
                    parameter, tree["state"][name], group, before.get(parameter)
                )


def _state_of(parameter: torch.Tensor, stored: Any, group: Mapping[str, Any], before: Any) -> Any:
    had = before if isinstance(before, dict) else {}
    return {
        key: had[key]
        if is_live(value, had.get(key))
        else thaw(value, partial(_beside, parameter, _device(parameter, key, group)))
        for key, value in stored.items()
    }


def _device(parameter: torch.Tensor, key: str, group: Mapping[str, Any]) -> torch.device:
    # PyTorch keeps step counts on the host, unless the step is computed on the device as a whole.
    on_host = key == "step" and not (group.get("capturable") or group.get("fused"))
    return torch.device("cpu") if on_host else parameter.device


def _beside(parameter: torch.Tensor, device: torch.device, leaf: TensorLeaf) -> torch.Tensor:
    tensor = view(leaf)
    if device.type == "cpu" and _lies_right(tensor, parameter):
        return owned(leaf)
    if tensor.shape == parameter.shape and device == parameter.device:
        # With the parameter's strides too: kernels may round differently over other layouts.
        return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
    return tensor.to(device, copy=True)


def _lies_right(tensor: torch.Tensor, parameter: torch.Tensor) -> bool:
    """Whether state with the values of `tensor` would get the same strides as it has."""
    if tensor.shape != parameter.shape:
        return True
    if type(parameter) not in (torch.Tensor, nn.Parameter):
        return False
    alike = torch.empty_like(parameter, dtype=tensor.dtype, device="meta")
    return alike.stride() == tensor.stride()


def _set_hyperparameter(group: dict[str, Any], name: str, value: Any) -> None:
    # Whether a learning rate is a number or a tensor is configuration, its value is state. A tensor
    # stays the same object, because a captured CUDA graph reads it.
    live = group.get(name)
    if isinstance(live, torch.Tensor):
        with torch.no_grad():
            live.copy_(value) if isinstance(value, torch.Tensor) else live.fill_(value)
    elif isinstance(live, int | float) and isinstance(value, torch.Tensor):
        group[name] = value.item()
    else:
        group[name] = value


def named_groups(optimizer: torch.optim.Optimizer, names: Names) -> list[dict[str, torch.Tensor]]:
    """The parameters of each group by name; those of no module are named by their place."""
    return [
        {names.get(id(p), f"group{i}.param{j}"): p for j, p in enumerate(group["params"])}
        for i, group in enumerate(optimizer.param_groups)
    ]


def has_own_verbs(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it has a `state_dict` or `load_state_dict` of its own, which are used as they are."""
    kind, base = type(optimizer), torch.optim.Optimizer
    return (
        kind.state_dict is not base.state_dict or kind.load_state_dict is not base.load_state_dict
    )


def type_name(optimizer: torch.optim.Optimizer) -> str:
    """What the tree of an optimizer says under `type`."""
    return type(optimizer).__name__
