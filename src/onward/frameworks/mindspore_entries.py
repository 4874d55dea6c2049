"""The entries of a `.ckpt` of a network and its optimizer <-> their parts of a state tree.

MindSpore names an optimizer's state after the parameter: `moments.conv.weight`; what it keeps for
all of them stands alone: `global_step`, `momentum`. Needs no MindSpore.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onward.errors import StateError
from onward.frameworks.base import TensorLeaf

# What the optimizers of mindspore.nn, mindspore.mint and mindspore.experimental keep per parameter.
SLOTS = frozenset(
    ["moments", "moment", "moment1", "moment2", "vhat", "adam_m", "adam_v", "lamb_m", "lamb_v",
     "accum", "accum_update", "stat", "linear", "mean_square", "mean_grad", "prev", "step_size",
     "ax", "ax_", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "exp_avg_sq_row",
     "exp_avg_sq_col", "momentum_buf"]
)  # fmt: skip
_JOINED = ("mu_product", "mu", "eta")  # slots that are named mu_conv.weight
_SHARED = frozenset(
    ["global_step", "momentum", "beta1_power", "beta2_power", "state_step", "step_t",
     "afactor_step"]
)  # fmt: skip
_RATE, _RATE_OF_GROUP = "learning_rate", "learning_rate_group_"
_SCALING = frozenset(
    ["scale_sense", "loss_scale", "current_iterator_step", "last_overflow_iterator_step"]
)
_EPOCH, _STEP = "epoch_num", "step_num"

# What a set of slots tells of the class, where no other optimizer has the same.
_TYPES: dict[frozenset[str], str] = {
    frozenset(["moments"]): "Momentum",
    frozenset(["accum", "stat"]): "SGD",
    frozenset(["adam_m", "adam_v"]): "AdamWeightDecay",
    frozenset(["lamb_m", "lamb_v"]): "Lamb",
    frozenset(["accum", "accum_update"]): "Adadelta",
    frozenset(["moments", "linear"]): "FTRL",
    frozenset(["mean_square", "moment"]): "RMSProp",
    frozenset(["mean_square", "moment", "mean_grad"]): "RMSProp",
    frozenset(["prev", "step_size"]): "Rprop",
    frozenset(["moment1", "moment2", "vhat"]): "Adam",
}


@dataclass(slots=True)
class Parts:
    """What the entries of a file are."""

    net: dict[str, TensorLeaf]
    optimizer: dict[str, Any] | None = None
    """As the tree of a MindSpore optimizer, `type` left empty where it cannot be told."""
    epoch: int | None = None
    step: int | None = None
    left_out: list[str] = field(default_factory=list)


def parts_of(entries: Mapping[str, TensorLeaf], *, model: str, weights_only: bool = False) -> Parts:
    """Network, optimizer and place in training, told apart by name and order.

    Raises `StateError` where the optimizer's groups cannot be told.
    """
    slots = {name: pair for name in entries if (pair := _slot(name, entries)) is not None}
    own = {name for name in entries if name in _SHARED or _is_rate(name)} | slots.keys()
    if not slots and "global_step" not in entries:
        own = set()
    parts = Parts({})
    last = max((i for i, name in enumerate(entries) if name in own), default=len(entries))
    for place, (name, leaf) in enumerate(entries.items()):
        number = _whole(leaf)
        if name == _EPOCH and number is not None:
            parts.epoch = number
        elif name == _STEP and number is not None:
            parts.step = number
        elif name in own:
            continue
        elif name in _SCALING or place > last:  # what a callback adds comes last
            parts.left_out.append(name)
        else:
            parts.net[name] = leaf
    if own:
        if weights_only:
            parts.left_out.append("the optimizer")
        else:
            parts.optimizer = _optimizer(entries, slots, model)
        counted = _whole(entries["global_step"]) if "global_step" in entries else None
        parts.step = counted if counted is not None else parts.step
    if not parts.net:
        raise StateError("the file holds no network", do="give one that holds its weights")
    return parts


def entries_of(
    net: Mapping[str, TensorLeaf], optimizer: Mapping[str, Any] | None, *, model: str
) -> tuple[dict[str, TensorLeaf], list[str]]:
    """The entries of a file, in MindSpore's order, and what finds no place in one."""
    entries = dict(net)
    left_out: list[str] = []
    if optimizer is None:
        return entries, left_out

    def put(name: str, value: Any) -> None:
        leaf = _as_leaf(value)
        if leaf is None:
            left_out.append(name)
        else:
            entries[name] = leaf

    shared = optimizer.get("shared", {})
    groups = optimizer.get("param_groups", [])
    if "global_step" in shared:
        put("global_step", shared["global_step"])
    for number, group in enumerate(groups):
        # A scalar in place of a table would keep MindSpore from loading the file.
        if group.get("lr") is not None and not group.get("scheduled"):
            put(_RATE if len(groups) == 1 else f"{_RATE_OF_GROUP}{number}", group["lr"])
    for name, value in shared.items():
        if name != "global_step":
            put(str(name), value)
    for parameter, values in optimizer.get("state", {}).items():
        plain = str(parameter).removeprefix(f"{model}.")
        for slot, value in values.items():
            put(f"{slot}{'_' if slot in _JOINED else '.'}{plain}", value)
    return entries, left_out


def _optimizer(
    entries: Mapping[str, TensorLeaf], slots: Mapping[str, tuple[str, str]], model: str
) -> dict[str, Any]:
    if any(name.startswith(_RATE_OF_GROUP) for name in entries):
        raise StateError(
            "the optimizer's parameter groups cannot be told",
            why="the file names a learning rate for each, but not which parameters are in it",
            do="take --only weights",
        )
    state: dict[str, dict[str, TensorLeaf]] = {}
    for name, (slot, parameter) in slots.items():
        state.setdefault(f"{model}.{parameter}", {})[slot] = entries[name]
    shared = {name: leaf for name, leaf in entries.items() if name in _SHARED}
    group: dict[str, Any] = {"lr": _rate(entries), "params": list(state)}
    if _RATE not in entries or entries[_RATE].shape != ():
        group["scheduled"] = True
    return {
        "type": _type_of(frozenset(slot for slot, _ in slots.values()), shared),
        "state": state,
        "shared": shared,
        "param_groups": [group],
    }


def _rate(entries: Mapping[str, TensorLeaf]) -> float | None:
    """The learning rate; of a table of them the present one, None where a schedule decides."""
    rates = _numbers(entries[_RATE]) if _RATE in entries else np.empty(0)
    if not rates.size:
        return None
    step = _whole(entries["global_step"]) if "global_step" in entries else None
    return float(rates[min(step or 0, rates.size - 1)])


def _type_of(slots: frozenset[str], shared: Mapping[str, TensorLeaf]) -> str:
    if slots == {"moment1", "moment2"}:
        # AdamOffload and LazyAdam keep powers of shape [1], AdaMax one power only.
        powers = [shared.get(name) for name in ("beta1_power", "beta2_power")]
        return "Adam" if all(leaf is not None and leaf.shape == () for leaf in powers) else ""
    return _TYPES.get(slots, "")


def _slot(name: str, entries: Mapping[str, TensorLeaf]) -> tuple[str, str] | None:
    for slot in _JOINED:
        if name.startswith(f"{slot}_") and (parameter := name[len(slot) + 1 :]) in entries:
            return slot, parameter
    slot, dot, parameter = name.partition(".")
    return (slot, parameter) if dot and slot in SLOTS and parameter in entries else None


def _is_rate(name: str) -> bool:
    return name == _RATE or name.startswith(_RATE_OF_GROUP)


def _numbers(leaf: TensorLeaf) -> Any:
    assert leaf.data is not None
    kinds = {"I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8", "F16": "<f2"}
    return leaf.data.view(kinds[leaf.dtype]) if leaf.dtype in kinds else np.empty(0)


def _whole(leaf: TensorLeaf) -> int | None:
    """The number that a tensor of one whole number holds, as far as a step or an epoch can be."""
    if leaf.dtype not in ("I32", "I64") or leaf.shape not in ((), (1,)):
        return None
    number = int(_numbers(leaf)[0])
    return number if 0 <= number < 1 << 53 else None


def _as_leaf(value: Any) -> TensorLeaf | None:
    match value:
        case TensorLeaf():
            return value
        case bool() | str():
            return None
        case int() | float():
            number = np.array(value, "<f4" if isinstance(value, float) else "<i4")
            dtype = "F32" if isinstance(value, float) else "I32"
            return TensorLeaf(dtype, (), "mindspore", number.reshape(1).view(np.uint8))
    return None
