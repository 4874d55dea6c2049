"""A model's names in the other framework where there is no live model: by names and shapes alone.

Files are translated this way. What they do not tell is kept, and said; `layers` tells it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onward.errors import UsageError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.translation import (
    COUNTER,
    EMBEDDING,
    MINDSPORE,
    NORMALISATION,
    PRELU,
    PYTORCH,
    TRANSFORMER,
    WITHIN_3D,
    narrowed,
    of_kind,
    widened,
)

KINDS = ("embedding", "dense", "conv1d", "norm", "batch-norm-3d", "prelu", "keep")
"""What `layers` may say that a module is; `dense` and `keep` leave its names as they are."""

_BACK = {torch: mindspore for mindspore, torch in NORMALISATION.items()}
_NORM_OR_PRELU = "a normalisation without bias, or a PReLU"
_DENSE_OR_EMBEDDING = "a dense layer without bias, or an embedding"
_CONV_1D_OR_2D = "a convolution 1d, or one 2d of a single row"


@dataclass(slots=True)
class Renaming:
    """A model under the names of the other framework."""

    tensors: dict[str, TensorLeaf] = field(default_factory=dict)
    by_name: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    dropped: list[str] = field(default_factory=list)
    """Counters that the other framework does not have."""
    unsure: dict[str, str] = field(default_factory=dict)
    """Modules whose names were kept because they may be one thing or another, and which."""


def renamed(
    net: Mapping[str, TensorLeaf], *, to: str, layers: Mapping[str, str] | None = None
) -> Renaming:
    """The model in names, layout and kind of `to`. Leaves may lack data.

    `layers` says what modules are, by their paths: one of `KINDS`. Raises `UsageError` for a module
    that is not there, and where two tensors would get one name.
    """
    modules = _modules(net)
    _check(layers or {}, modules)
    result = Renaming()
    for module, names in modules.items():
        kind = (layers or {}).get(module) or _kind(module, names, net, modules, to, result)
        for last in names:
            old = f"{module}.{last}" if module else last
            _put(result, old, _renamed(module, last, kind, net[old], to), net[old], to)
    return result


def _put(
    result: Renaming,
    old: str,
    found: tuple[str, str, tuple[int, ...]] | None,
    leaf: TensorLeaf,
    to: str,
) -> None:
    if found is None:
        result.dropped.append(old)
        return
    new, rule, shape = found
    if new in result.tensors:
        raise UsageError(
            f"two tensors would be called {new}",
            why=f"{old} is one of them",
            do=f"keep the names of its module: --layer {old.rpartition('.')[0]}=keep",
        )
    here: TensorLeaf = of_kind(leaf, to)
    result.tensors[new] = replace(here, shape=shape)
    if rule:
        result.by_rule[rule] += 1
    else:
        result.by_name += 1


def _renamed(
    module: str, last: str, kind: str, leaf: TensorLeaf, to: str
) -> tuple[str, str, tuple[int, ...]] | None:
    """The new name, by which rule, and the new shape; None for what has no place there."""
    shape = leaf.shape

    def called(new: str, where: str = module) -> str:
        return f"{where}.{new}" if where else new

    if last == COUNTER and to == MINDSPORE and kind != "keep":
        return None
    if kind == "conv1d" and last == "weight" and len(shape) in (3, 4):
        return (
            called(last),
            "convolution 1d",
            widened(shape) if to == MINDSPORE else narrowed(shape),
        )
    if kind == "embedding" and last in (EMBEDDING, "weight"):
        return called(EMBEDDING if to == MINDSPORE else "weight"), "embedding", shape
    if kind == "prelu" and last in (PRELU, "weight"):
        return called(PRELU if to == MINDSPORE else "weight"), "PReLU", shape
    if kind in ("norm", "batch-norm-3d"):
        names = _BACK if to == MINDSPORE else NORMALISATION
        if last in names:
            return called(names[last], _within(module, kind, to)), "normalisation", shape
    if kind == "transformer layer":
        parent, _, name = module.rpartition(".")
        there = {torch: ours for ours, torch in TRANSFORMER.items()}
        new = (there if to == MINDSPORE else TRANSFORMER)[name]
        return called(last, f"{parent}.{new}" if parent else new), "transformer layer", shape
    return called(last), "", shape


def _within(module: str, kind: str, to: str) -> str:
    if kind != "batch-norm-3d":
        return module
    if to == MINDSPORE:
        return f"{module}.{WITHIN_3D}" if module else WITHIN_3D
    return module.removesuffix(WITHIN_3D).removesuffix(".")


def _kind(
    module: str,
    names: Iterable[str],
    net: Mapping[str, TensorLeaf],
    modules: Mapping[str, Any],
    to: str,
    result: Renaming,
) -> str:
    """What a module is, as far as its names and shapes tell; notes what they do not."""
    shapes = {last: net[f"{module}.{last}" if module else last].shape for last in names}
    parent, _, name = module.rpartition(".")
    inner = {*TRANSFORMER} if to == PYTORCH else {*TRANSFORMER.values()}
    attention = f"{parent}.self_attn" if parent else "self_attn"
    if name in inner and (attention in modules or f"{attention}.out_proj" in modules):
        return "transformer layer"
    if to == PYTORCH:
        return _kind_of_cell(module, shapes, modules, result)
    return _kind_of_module(module, shapes, result)


def _kind_of_cell(
    module: str, shapes: Mapping[str, tuple[int, ...]], modules: Mapping[str, Any], result: Renaming
) -> str:
    weight = shapes.get("weight", ())
    if shapes.keys() & NORMALISATION.keys():
        parent, _, name = module.rpartition(".")
        others = (m for m in modules if m != module and (m == parent or m.startswith(f"{parent}.")))
        alone = name == WITHIN_3D and bool(parent) and not any(others)
        return "batch-norm-3d" if alone else "norm"
    if EMBEDDING in shapes:
        return "embedding"
    if shapes.keys() == {PRELU} and len(shapes[PRELU]) == 1:
        return "prelu"
    if len(weight) == 4 and weight[2] == 1 and weight[3] > 1:
        result.unsure[module] = _CONV_1D_OR_2D
    return "keep"


def _kind_of_module(module: str, shapes: Mapping[str, tuple[int, ...]], result: Renaming) -> str:
    weight, has_bias = shapes.get("weight"), "bias" in shapes
    if "running_mean" in shapes:
        return "norm"
    if weight is None:
        return "keep"
    if len(weight) == 1 and has_bias:
        return "norm"
    if len(weight) == 3:
        return "conv1d"
    if len(weight) == 1:
        result.unsure[module] = _NORM_OR_PRELU
    if len(weight) == 2 and not has_bias:
        result.unsure[module] = _DENSE_OR_EMBEDDING
    return "keep"


def _modules(net: Mapping[str, TensorLeaf]) -> dict[str, list[str]]:
    modules: dict[str, list[str]] = {}
    for name in net:
        module, _, last = name.rpartition(".")
        modules.setdefault(module, []).append(last)
    return modules


def _check(layers: Mapping[str, str], modules: Mapping[str, Any]) -> None:
    for module, kind in layers.items():
        if kind not in KINDS:
            raise UsageError(f"{module} cannot be {kind!r}", do=f"use one of {', '.join(KINDS)}")
        if module not in modules:
            raise UsageError(
                f"the model has no layer {module!r}",
                why="it has " + ", ".join(sorted(filter(None, modules))[:8]),
                do="name the layer as it is called in the checkpoint",
            )
