"""Modules <-> state trees: the state dict, name by name."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from onward.frameworks.base import TensorLeaf
from onward.frameworks.torch_tensors import (
    describe,
    freeze,
    is_live,
    live_leaf,
    settled,
    shown,
    thaw,
    view,
)
from onward.frameworks.values import differences_by_name


def unwrap(thing: Any) -> Any:
    """The module within a compiled or data-parallel one; anything else is given back as it is."""
    while True:
        if isinstance(thing, nn.parallel.DistributedDataParallel | nn.DataParallel):
            thing = thing.module
        elif isinstance(thing, nn.Module) and "_orig_mod" in thing._modules:
            thing = thing._modules["_orig_mod"]
        else:
            return thing


def plain_name(name: str) -> str:
    """The name of a tensor, whether or not the modules around it are compiled."""
    return name.replace("_orig_mod.", "")


def capture(module: nn.Module, key: str, guarded: Container[int] = ()) -> dict[str, Any]:
    """The tree of `module.state_dict()`, extra state included.

    `guarded` are the `id()`s of parameters that only a known optimizer changes; frozen ones nobody
    changes.
    """
    kept = {
        name
        for name, parameter in module.named_parameters(remove_duplicate=False)
        if id(parameter) in guarded or not parameter.requires_grad
    }
    tree = {}
    for name, value in module.state_dict().items():
        frozen = freeze(value, f"{key}.{plain_name(name)}")
        tree[plain_name(name)] = settled(frozen) if name in kept else frozen
    return tree


def differences(module: nn.Module, tree: Any, key: str) -> list[str]:
    """Every reason why `tree` does not fit `module`."""
    live = {plain_name(name): value for name, value in module.state_dict().items()}
    return differences_by_name(live, tree, key, kind="model", difference=_difference)


def destinations(module: nn.Module) -> dict[str, TensorLeaf]:
    """The tensors into which `module.load_state_dict` would only copy, and that can be written."""
    if type(module).load_state_dict is not nn.Module.load_state_dict:
        return {}
    registered = dict(_only_copied(module, ""))
    found = {}
    for name, value in module.state_dict().items():
        live = registered.get(name)
        if live is None or not isinstance(value, torch.Tensor):
            continue
        leaf = live_leaf(live)
        if leaf is not None and is_live(leaf, value):
            found[plain_name(name)] = leaf
    return found


def restore(module: nn.Module, tree: Mapping[str, Any]) -> None:
    """Copies `tree` into the tensors of `module`, which stay the same objects."""
    state = {}
    for name, live in module.state_dict().items():
        stored = tree[plain_name(name)]
        if is_live(stored, live):
            state[name] = live  # PyTorch sees that it is the same, and copies nothing
        elif isinstance(stored, TensorLeaf) and stored.kind == "torch":
            # Views need no second copy of the model: load_state_dict copies out of them.
            state[name] = view(stored)
        else:
            state[name] = thaw(stored)
    module.load_state_dict(state)


def _only_copied(module: nn.Module, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers of the modules whose way to load is PyTorch's own, without hooks."""
    loads = type(module)._load_from_state_dict.__module__
    if not loads.startswith("torch.nn.modules.") or module._load_state_dict_pre_hooks:
        return
    for name, tensor in (*module._parameters.items(), *module._buffers.items()):
        if tensor is not None:
            yield prefix + name, tensor
    for name, child in module._modules.items():
        if child is not None:
            yield from _only_copied(child, f"{prefix}{name}.")


def _difference(live: Any, stored: Any, path: str) -> str:
    if not isinstance(live, torch.Tensor) or not isinstance(stored, TensorLeaf):
        if isinstance(live, torch.Tensor) != isinstance(stored, TensorLeaf):
            return f"{path}: a tensor here, something else there"
        return ""  # extra state: the module itself knows what it accepts
    if torch.nn.parameter.is_lazy(live):
        return ""  # takes the shape that it is given
    there = shown(stored)
    here = f"{describe(live, path)} {list(live.shape)}"
    return "" if there == here else f"{path}: the checkpoint has {there}, the live model {here}"
