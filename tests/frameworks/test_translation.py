"""Translation rules: names and shapes of one framework in the other, without either of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.frameworks.base import ITEM_BYTES, TensorLeaf
from onward.frameworks.translation import MINDSPORE, PYTORCH, translated

Shapes = Mapping[str, tuple[int, ...]]

# Every layer as MindSpore and as PyTorch keep it: the facts that the rules must reproduce.
LAYERS: dict[str, tuple[Shapes, Shapes]] = {
    "dense": ({"weight": (4, 3), "bias": (4,)}, {"weight": (4, 3), "bias": (4,)}),
    "conv1d": ({"weight": (6, 4, 1, 3), "bias": (6,)}, {"weight": (6, 4, 3), "bias": (6,)}),
    "conv1d transposed": ({"weight": (4, 6, 1, 3)}, {"weight": (4, 6, 3)}),
    "conv1d of mint": ({"weight": (6, 4, 3)}, {"weight": (6, 4, 3)}),
    "conv2d": ({"weight": (6, 4, 3, 3)}, {"weight": (6, 4, 3, 3)}),
    "conv2d one row high": ({"weight": (6, 4, 1, 3)}, {"weight": (6, 4, 1, 3)}),
    "conv2d in groups": ({"weight": (6, 2, 3, 3)}, {"weight": (6, 2, 3, 3)}),
    "conv2d depthwise": ({"weight": (8, 1, 3, 3)}, {"weight": (8, 1, 3, 3)}),
    "conv2d transposed": ({"weight": (4, 3, 3, 3)}, {"weight": (4, 3, 3, 3)}),
    "conv3d": ({"weight": (6, 4, 2, 2, 2)}, {"weight": (6, 4, 2, 2, 2)}),
    "batch norm": (
        {"gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)},
        {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,)},
    ),
    "batch norm 3d": (
        {"bn2d.gamma": (3,), "bn2d.beta": (3,), "bn2d.moving_mean": (3,),
         "bn2d.moving_variance": (3,)},
        {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,)},
    ),
    "batch norm of mint": (
        {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,),
         "num_batches_tracked": ()},
        {"weight": (3,), "bias": (3,), "running_mean": (3,), "running_var": (3,),
         "num_batches_tracked": ()},
    ),
    "layer norm": ({"gamma": (3,), "beta": (3,)}, {"weight": (3,), "bias": (3,)}),
    "embedding": ({"embedding_table": (5, 3)}, {"weight": (5, 3)}),
    "prelu": ({"w": (3,)}, {"weight": (3,)}),
    "bilinear": ({"weight": (5, 3, 4), "bias": (5,)}, {"weight": (5, 3, 4), "bias": (5,)}),
    "lstm": (
        {"weight_ih_l0": (16, 3), "weight_hh_l0_reverse": (16, 4), "bias_ih_l0": (16,)},
        {"weight_ih_l0": (16, 3), "weight_hh_l0_reverse": (16, 4), "bias_ih_l0": (16,)},
    ),
    "attention": (
        {"in_proj_weight": (24, 8), "in_proj_bias": (24,), "out_proj.weight": (8, 8)},
        {"in_proj_weight": (24, 8), "in_proj_bias": (24,), "out_proj.weight": (8, 8)},
    ),
    "transformer": (
        {"dense1.weight": (16, 8), "dense2.bias": (8,), "norm1.gamma": (8,)},
        {"linear1.weight": (16, 8), "linear2.bias": (8,), "norm1.weight": (8,)},
    ),
}  # fmt: skip


def leaf(shape: tuple[int, ...], kind: str, fill: int = 0, identity: object = None) -> TensorLeaf:
    dtype = "F32" if shape else "I64"
    size = int(np.prod(shape)) * ITEM_BYTES[dtype]
    return TensorLeaf(dtype, shape, kind, np.full(size, fill, np.uint8), identity)


def table(shapes: Shapes, kind: str, prefix: str = "") -> dict[str, Any]:
    """Each tensor with bytes of its own, the same for the k-th of a layer in both frameworks."""
    return {
        prefix + name: leaf(shape, kind, 7 * k % 251, identity=k + 1)
        for k, (name, shape) in enumerate(shapes.items())
    }


def described(tree: Mapping[str, Any]) -> dict[str, tuple[Any, ...]]:
    return {n: (x.kind, x.shape, bytes(x.data)) for n, x in tree.items()}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("prefix", ["", "block.0.", "bn2d."])
def test_every_layer_goes_over_and_back(layer: str, prefix: str) -> None:
    """All names, shapes and bytes of each layer arrive, in both directions; none is left over."""
    mindspore, torch = LAYERS[layer]
    ours = table(mindspore, MINDSPORE, prefix)
    theirs = table(torch, PYTORCH, prefix)
    there = translated(ours, theirs, to=PYTORCH)
    back = translated(theirs, ours, to=MINDSPORE)
    assert described(there.tree) == described(theirs)
    assert described(back.tree) == described(ours)
    for done in (there, back):
        assert (done.dropped, done.kept, done.differences) == ([], [], [])
        assert done.by_name + sum(done.by_rule.values()) == len(ours)


@given(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=8), st.randoms())
def test_any_network_of_them_goes_over_and_back(layers: list[str], random: Any) -> None:
    """Whatever is beside it, and in whatever order, a layer finds its own tensors only."""
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    for number, layer in enumerate(layers):
        prefix = f"part{number}."
        for tree, kind, shapes in zip(
            (ours, theirs), (MINDSPORE, PYTORCH), LAYERS[layer], strict=True
        ):
            for k, (name, shape) in enumerate(shapes.items()):
                tree[prefix + name] = leaf(shape, kind, 16 * number + k)
    names = list(theirs)
    random.shuffle(names)
    shuffled = {name: theirs[name] for name in names}
    assert described(translated(ours, shuffled, to=PYTORCH).tree) == described(theirs)
    assert described(translated(shuffled, ours, to=MINDSPORE).tree) == described(ours)


def test_a_counter_stays_or_goes() -> None:
    """PyTorch counts batches, MindSpore does not: the live count stays, a stored one is no loss."""
    mindspore, torch = LAYERS["batch norm"]
    ours, theirs = table(mindspore, MINDSPORE), table(torch, PYTORCH)
    theirs["num_batches_tracked"] = leaf((), PYTORCH, 9)
    there = translated(ours, theirs, to=PYTORCH)
    assert there.kept == ["num_batches_tracked"]
    assert there.tree["num_batches_tracked"].data[0] == 9
    back = translated(theirs, ours, to=MINDSPORE)
    assert back.dropped == ["num_batches_tracked"]
    assert back.tree.keys() == ours.keys()


def test_what_finds_nothing_keeps_its_name() -> None:
    """So that a comparison with the live model names it: nothing is dropped quietly."""
    ours = table({"gamma": (3,), "extra": (2,)}, MINDSPORE)
    theirs = table({"weight": (3,), "other.weight": (2,)}, PYTORCH)
    done = translated(ours, theirs, to=PYTORCH)
    assert list(done.tree) == ["weight", "extra"]
    assert done.tree["extra"].kind == PYTORCH
    assert done.by_rule == {"normalisation": 1}


def test_other_shapes_are_found_but_not_made_to_fit() -> None:
    """A table of more rows is still this table: growth or a comparison have the say."""
    done = translated(
        table({"emb.embedding_table": (5, 3)}, MINDSPORE),
        table({"emb.weight": (7, 3)}, PYTORCH),
        to=PYTORCH,
    )
    assert done.tree["emb.weight"].shape == (5, 3)


def test_the_same_name_goes_before_a_rule() -> None:
    """A parameter that really is called gamma in both is not taken for a normalisation."""
    ours = table({"gamma": (3,), "weight": (3,)}, MINDSPORE)
    theirs = table({"gamma": (3,), "weight": (3,)}, PYTORCH)
    done = translated(ours, theirs, to=PYTORCH)
    assert (done.by_name, dict(done.by_rule)) == (2, {})
    assert described(done.tree) == described(theirs)


def test_tied_tensors_are_taken_once() -> None:
    """PyTorch lists a tied tensor under each of its names, MindSpore under the first."""
    tied = leaf((5, 3), PYTORCH, 3, identity=1)
    once = {"emb.embedding_table": leaf((5, 3), MINDSPORE, 4, identity=1)}
    twice = {"emb.weight": tied, "head.weight": tied}
    assert list(translated(twice, once, to=MINDSPORE).tree) == ["emb.embedding_table"]
    assert translated(twice, once, to=MINDSPORE).dropped == ["head.weight"]
    done = translated(once, twice, to=PYTORCH)
    assert list(done.tree) == ["emb.weight", "head.weight"]
    assert done.tree["head.weight"] is done.tree["emb.weight"]


def test_two_stored_tensors_are_not_poured_into_one() -> None:
    """Live names that are tied, and were trained apart: said, instead of letting the last win."""
    tied = leaf((5, 3), PYTORCH, 3, identity=1)
    apart = {
        "emb.embedding_table": leaf((5, 3), MINDSPORE, 4, identity=1),
        "head.weight": leaf((5, 3), MINDSPORE, 5, identity=2),
    }
    done = translated(apart, {"emb.weight": tied, "head.weight": tied}, to=PYTORCH)
    assert len(done.differences) == 1
    assert "the same tensor" in done.differences[0]


def test_what_is_no_tensor_is_left_to_the_comparison() -> None:
    stored = {"weight": leaf((3,), PYTORCH), "_extra_state": {"a": 1}}
    done = translated(stored, {"gamma": leaf((3,), MINDSPORE)}, to=MINDSPORE)
    assert done.tree["_extra_state"] == {"a": 1}
