"""Optimizers by parameter name <-> by number, as `Optimizer.state_dict()` has them.

PyTorch numbers parameters through all groups in order. Nothing here touches a tensor's bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onward.errors import StateError
from onward.frameworks.base import TensorLeaf

Tree = dict[str, Any]

# State that has one element per element of its parameter, and so tells the parameter's shape.
_ELEMENTWISE = frozenset(
    ["exp_avg", "exp_avg_sq", "max_exp_avg_sq", "exp_inf", "momentum_buffer", "square_avg",
     "grad_avg", "acc_delta", "sum", "prev", "step_size", "ax"]
)  # fmt: skip

# Hyperparameters that only this class has, most telling first.
_SIGNATURES: list[tuple[str, frozenset[str]]] = [
    ("Muon", frozenset(["ns_coefficients"])),
    ("Adafactor", frozenset(["beta2_decay"])),
    ("LBFGS", frozenset(["history_size"])),
    ("NAdam", frozenset(["betas", "momentum_decay"])),
    ("SGD", frozenset(["momentum", "dampening"])),
    ("RMSprop", frozenset(["alpha", "centered"])),
    ("Adadelta", frozenset(["rho"])),
    ("Adagrad", frozenset(["lr_decay", "initial_accumulator_value"])),
    ("ASGD", frozenset(["lambd", "t0"])),
    ("Rprop", frozenset(["etas", "step_sizes"])),
]


def to_indices(tree: Mapping[str, Any]) -> Tree:
    """An optimizer's tree, as `onward.frameworks.torch` stores it, in PyTorch's own form."""
    if "own" in tree:
        return dict(tree["own"])
    index: dict[str, int] = {}
    for group in tree["param_groups"]:
        for name in group["params"]:
            index[name] = len(index)
    groups = [
        {**group, "params": [index[name] for name in group["params"]]}
        for group in tree["param_groups"]
    ]
    state: dict[Any, Any] = {index[name]: values for name, values in tree["state"].items()}
    return {"state": {**state, **tree["shared"]}, "param_groups": groups}


def to_names(
    numbered: Mapping[str, Any],
    parameters: Sequence[tuple[str, tuple[int, ...]]],
    *,
    kind: str,
) -> Tree:
    """PyTorch's own form in that of `onward.frameworks.torch`.

    `parameters` are the names and shapes of the model's parameters in the model's order. Number k
    is taken to be the k-th of them, unless the groups carry names. Raises `StateError` where their
    count or the shapes of the moments say otherwise.
    """
    groups = numbered["param_groups"]
    numbers = [number for group in groups for number in group["params"]]
    names = _names_of(groups, numbers, parameters)
    shapes = dict(parameters)
    state, shared = {}, {}
    for number, values in numbered["state"].items():
        if number not in names:
            if isinstance(number, int):
                raise _unfit(f"it has state for parameter {number}, which is in none of its groups")
            shared[number] = values
            continue
        name = names[number]
        _check_shapes(name, shapes.get(name), values)
        state[name] = values
    return {
        "type": kind,
        "state": state,
        "shared": shared,
        "param_groups": [
            {
                **{
                    key: value
                    for key, value in group.items()
                    if key not in ("params", "param_names")
                },
                "params": [names[number] for number in group["params"]],
            }
            for group in groups
        ],
    }


def guess_type(numbered: Mapping[str, Any]) -> str:
    """The class of the optimizer by its hyperparameters and state; empty if several would fit.

    A state dict does not name its class.
    """
    keys = set(numbered["param_groups"][0])
    for kind, signature in _SIGNATURES:
        if signature <= keys:
            return kind
    if "betas" not in keys:
        return ""
    per_parameter = next((v for v in numbered["state"].values() if isinstance(v, Mapping)), {})
    if "exp_inf" in per_parameter:
        return "Adamax"
    if "amsgrad" not in keys:
        return "RAdam" if "decoupled_weight_decay" in keys else ""
    decoupled = numbered["param_groups"][0].get("decoupled_weight_decay")
    return "" if decoupled is None else "AdamW" if decoupled else "Adam"


def _names_of(
    groups: Sequence[Mapping[str, Any]],
    numbers: Sequence[Any],
    parameters: Sequence[tuple[str, tuple[int, ...]]],
) -> dict[int, str]:
    if len(set(numbers)) != len(numbers):
        raise _unfit("a parameter is in two of its groups")
    if all(isinstance(group.get("param_names"), list) for group in groups):
        # The model's keyword stands before each name, as it does in `parameters`.
        prefix = parameters[0][0].partition(".")[0] if parameters else "model"
        given = [f"{prefix}.{name}" for group in groups for name in group["param_names"]]
        if len(given) == len(numbers) and len(set(given)) == len(given):
            return dict(zip(numbers, given, strict=True))
    if len(numbers) != len(parameters):
        raise _unfit(f"it has {len(numbers)} parameters, the model {len(parameters)}")
    return {number: name for number, (name, _) in zip(sorted(numbers), parameters, strict=True)}


def _check_shapes(name: str, shape: tuple[int, ...] | None, values: Any) -> None:
    if not isinstance(values, Mapping):
        raise _unfit(f"the state of {name} is no table")
    for key, value in values.items():
        if key in _ELEMENTWISE and isinstance(value, TensorLeaf) and value.shape != shape:
            there = "of no known shape" if shape is None else str(list(shape))
            raise _unfit(f"{key} of {name} is {list(value.shape)}, the parameter {there}")


def _unfit(why: str) -> StateError:
    return StateError(
        "the optimizer does not fit the model",
        why=why,
        do="import only the weights with --only weights: which number belongs to which parameter "
        "is known only if they are numbered in the model's own order",
    )
