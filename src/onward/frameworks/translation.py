"""One network, two frameworks: which tensor of MindSpore is which of PyTorch, and how it lies.

Most layers keep their tensors under the same name and in the same layout in both: dense layers and
`Bilinear`/`BiDense`, convolutions of two and three dimensions (grouped, depthwise and transposed
ones too), `RNN`, `LSTM`, `GRU`, their cells and `MultiheadAttention` (gates and projections in the
same order), and all of `mindspore.mint.nn`. The rest follows rules:

    MindSpore                              PyTorch                         what
    gamma, beta                            weight, bias                    normalisation
    moving_mean, moving_variance           running_mean, running_var       normalisation
    bn2d.gamma … (in a BatchNorm3d)        weight …                        normalisation
                                           num_batches_tracked             a counter: stays, or goes
    embedding_table                        weight                          embedding
    w                                      weight                          PReLU
    dense1, dense2 (in a Transformer…)     linear1, linear2                transformer layer
    weight [out, in, 1, k]                 weight [out, in, k]             convolution 1d

Names and shapes only: nothing here knows a framework, and no value ever changes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onward.frameworks.base import TensorLeaf, fetched

FRAMEWORKS = PYTORCH, MINDSPORE = ("torch", "mindspore")

NORMALISATION = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""How MindSpore names what PyTorch's normalisation layers have."""

EMBEDDING, PRELU, COUNTER, WITHIN_3D = "embedding_table", "w", "num_batches_tracked", "bn2d"
TRANSFORMER = {"dense1": "linear1", "dense2": "linear2"}

Table = Mapping[str, Any]
"""A model's part of a state tree: leaves by name, and what else it keeps."""


@dataclass(slots=True)
class Translation:
    """A model's state as the other framework has it.

    `tree` is complete only where everything matched: what did not keeps its name, so that a
    comparison with the live model finds it.
    """

    tree: dict[str, Any]
    by_name: int = 0
    by_rule: Counter[str] = field(default_factory=Counter)
    """Tensors by the rule that found them, or that changed their layout."""
    dropped: list[str] = field(default_factory=list)
    """Stored counters that nothing counts here, and other names of tensors that were taken."""
    kept: list[str] = field(default_factory=list)
    """Live counters that the checkpoint does not have: they stay as they are."""
    differences: list[str] = field(default_factory=list)
    """Tensors that are one here and two there; whatever else differs shows in a comparison."""


def translated(stored: Table, live: Table, *, to: str) -> Translation:
    """The table of one framework in names, layout and kind of the other, driven by the live one.

    `to` is the framework of `live`. A live name finds the same name in `stored`; what finds none
    goes by the rules above. Leaves may lack data; bytes are never copied.
    """
    found = matched(stored, live, to=to)
    result = Translation({})
    taken: dict[Any, str] = {}
    for name, (there, rule) in found.items():
        leaf = stored[there]
        result.tree[name] = laid_out(leaf, live[name], to=to)
        if leaf.shape != result.tree[name].shape:
            rule = rule or "convolution 1d"
        if rule:
            result.by_rule[rule] += 1
        else:
            result.by_name += 1
        if leaf.identity is not None:
            taken[leaf.identity] = name
    _take_ties(result, stored, live, found)
    _leave_counters(result, stored, live)
    used = {there for there, _ in found.values()}
    for name, value in stored.items():
        if name in used:
            continue
        if _is_counter(name) or (isinstance(value, TensorLeaf) and value.identity in taken):
            result.dropped.append(name)
        else:
            result.tree.setdefault(name, of_kind(value, to))
    return result


def matched(stored: Table, live: Table, *, to: str) -> dict[str, tuple[str, str]]:
    """For each live tensor that is stored: the stored name, and the rule if it is another one."""
    found = {
        name: (name, "")
        for name, leaf in live.items()
        if isinstance(leaf, TensorLeaf) and isinstance(stored.get(name), TensorLeaf)
    }
    mindspores, torchs = (live, stored) if to == MINDSPORE else (stored, live)
    free = {name for name, leaf in torchs.items() if isinstance(leaf, TensorLeaf)} - found.keys()
    for name, leaf in mindspores.items():
        if name in found or not isinstance(leaf, TensorLeaf):
            continue
        for torch_name, rule in torch_names(name):
            if torch_name in free:
                free.remove(torch_name)
                pair = (name, torch_name) if to == MINDSPORE else (torch_name, name)
                found[pair[0]] = (pair[1], rule)
                break
    return found


def torch_names(name: str) -> Iterator[tuple[str, str]]:
    """The other names that a tensor of MindSpore may have in PyTorch, and by which rule."""
    *parents, last = name.split(".")
    if last in NORMALISATION:
        yield ".".join([*parents, NORMALISATION[last]]), "normalisation"
        if parents[-1:] == [WITHIN_3D]:
            yield ".".join([*parents[:-1], NORMALISATION[last]]), "normalisation"
    elif last == EMBEDDING:
        yield ".".join([*parents, "weight"]), "embedding"
    elif last == PRELU:
        yield ".".join([*parents, "weight"]), "PReLU"
    elif parents and parents[-1] in TRANSFORMER:
        yield ".".join([*parents[:-1], TRANSFORMER[parents[-1]], last]), "transformer layer"


def laid_out(leaf: TensorLeaf, live: TensorLeaf, *, to: str) -> TensorLeaf:
    """The leaf as `to` keeps it: MindSpore's 1d convolutions have an axis of one more."""
    shape = leaf.shape
    if to == MINDSPORE and len(shape) == 3 and len(live.shape) == 4 and live.shape[2] == 1:
        shape = widened(shape)
    elif to == PYTORCH and len(shape) == 4 and len(live.shape) == 3 and shape[2] == 1:
        shape = narrowed(shape)
    here: TensorLeaf = of_kind(leaf, to)
    return replace(here, shape=shape)


def widened(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 1d convolution's weight in MindSpore."""
    return (*shape[:2], 1, shape[2])


def narrowed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a 1d convolution's weight in PyTorch."""
    return (*shape[:2], shape[3])


def of_kind(value: Any, to: str) -> Any:
    """A leaf of either framework as one of `to`; anything else as it is."""
    if isinstance(value, TensorLeaf) and value.kind in FRAMEWORKS:
        return replace(value, kind=to)
    return value


def _take_ties(
    result: Translation, stored: Table, live: Table, found: Mapping[str, tuple[str, str]]
) -> None:
    """A tensor that stands under several live names may be stored under one of them only."""
    owners: dict[Any, str] = {}
    for name, (there, _) in found.items():
        identity = live[name].identity
        if identity is None:
            continue
        owner = owners.setdefault(identity, name)
        if stored[there].identity != stored[found[owner][0]].identity:
            result.differences.append(
                f"{name}: is the same tensor as {owner} here, the checkpoint has two"
            )
    for name, leaf in live.items():
        if name in found or not isinstance(leaf, TensorLeaf) or leaf.identity not in owners:
            continue
        if name not in stored:
            result.tree[name] = result.tree[owners[leaf.identity]]
            result.by_rule["the same tensor under another name"] += 1


def _leave_counters(result: Translation, stored: Table, live: Table) -> None:
    for name, leaf in live.items():
        if _is_counter(name) and name not in result.tree and name not in stored:
            result.tree[name] = fetched(leaf)
            result.kept.append(name)


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == COUNTER
