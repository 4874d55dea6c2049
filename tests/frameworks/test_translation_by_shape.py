"""Files in the other framework's names: what names and shapes tell, and what only people know."""

from __future__ import annotations

from typing import Any

import pytest

from onward.errors import UsageError
from onward.frameworks.base import TensorLeaf
from onward.frameworks.translation import MINDSPORE, PYTORCH, translated
from onward.frameworks.translation_by_shape import renamed
from tests.frameworks.test_translation import LAYERS, table

# What the shapes of these layers do not tell, one way or the other.
TOLD = {
    "embedding": "embedding", "prelu": "prelu", "bilinear": "dense", "conv1d": "conv1d",
    "conv1d transposed": "conv1d", "batch norm 3d": "batch-norm-3d", "batch norm of mint": "keep",
    "conv1d of mint": "keep",
}  # fmt: skip


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    return {name: leaf.shape for name, leaf in tree.items()}


@pytest.mark.parametrize("layer", sorted(LAYERS.keys() - {"attention", "transformer"}))
def test_every_layer_goes_over_once_it_is_told(layer: str) -> None:
    """With --layer for what shapes leave open, each layer arrives under the right names."""
    mindspore, torch = LAYERS[layer]
    ours, theirs = table(mindspore, MINDSPORE, "x."), table(torch, PYTORCH, "x.")
    said = {"x": TOLD[layer]} if layer in TOLD else {}
    to_mindspore = renamed(theirs, to=MINDSPORE, layers=said)
    assert shapes(to_mindspore.tensors) == shapes(ours)
    place = "x.bn2d" if layer == "batch norm 3d" else "x"
    back = renamed(ours, to=PYTORCH, layers={place: said["x"]} if said else {})
    assert shapes(back.tensors) == shapes(theirs)


@pytest.mark.parametrize("layer", sorted(LAYERS))
def test_what_is_told_by_shape_agrees_with_the_live_rules(layer: str) -> None:
    """Nothing is guessed: what is not kept is what a live model would find."""
    mindspore, torch = LAYERS[layer]
    if layer in ("batch norm 3d", "batch norm of mint", "bilinear", "conv1d of mint"):
        return  # these shapes are also those of another layer, which is meant far more often
    ours, theirs = table(mindspore, MINDSPORE, "x."), table(torch, PYTORCH, "x.")
    for stored, live, to in ((theirs, ours, MINDSPORE), (ours, theirs, PYTORCH)):
        guess = renamed(stored, to=to)
        if not guess.unsure and layer != "transformer":
            assert shapes(guess.tensors) == shapes(translated(stored, live, to=to).tree)


def test_what_may_be_two_things_is_kept_and_said() -> None:
    """An embedding looks like a dense layer without bias; --layer says which it is."""
    net = table({"words.weight": (9, 4), "fc.weight": (2, 4), "fc.bias": (2,)}, PYTORCH)
    guess = renamed(net, to=MINDSPORE)
    assert list(guess.tensors) == list(net)
    assert guess.unsure == {"words": "a dense layer without bias, or an embedding"}
    told = renamed(net, to=MINDSPORE, layers={"words": "embedding"})
    assert list(told.tensors) == ["words.embedding_table", "fc.weight", "fc.bias"]
    assert told.unsure == {}
    assert renamed(net, to=MINDSPORE, layers={"words": "dense"}).unsure == {}


def test_a_counter_has_no_place_in_mindspore() -> None:
    """But in `mindspore.mint`, whose names are kept as a whole."""
    names = {"bn.weight": (2,), "bn.bias": (2,), "bn.running_mean": (2,), "bn.running_var": (2,)}
    net = table({**names, "bn.num_batches_tracked": ()}, PYTORCH)
    guess = renamed(net, to=MINDSPORE)
    assert guess.dropped == ["bn.num_batches_tracked"]
    assert list(guess.tensors)[2:] == ["bn.moving_mean", "bn.moving_variance"]
    assert list(renamed(net, to=MINDSPORE, layers={"bn": "keep"}).tensors) == list(net)


def test_a_flat_convolution_is_asked_about() -> None:
    net = table({"c.weight": (2, 3, 1, 5)}, MINDSPORE)
    assert renamed(net, to=PYTORCH).unsure.keys() == {"c"}
    told = renamed(net, to=PYTORCH, layers={"c": "conv1d"})
    assert shapes(told.tensors) == {"c.weight": (2, 3, 5)}


def test_a_module_that_is_called_bn2d_is_no_batch_norm_3d() -> None:
    """Only where nothing stands beside it is it the one within MindSpore's BatchNorm3d."""
    net = table({"block.bn2d.gamma": (2,), "block.conv.weight": (2, 2, 1, 1)}, MINDSPORE)
    assert "block.bn2d.weight" in renamed(net, to=PYTORCH).tensors
    alone = table({"norm.bn2d.gamma": (2,), "conv.weight": (2, 2, 1, 1)}, MINDSPORE)
    assert "norm.weight" in renamed(alone, to=PYTORCH).tensors


def test_a_transformers_layers_are_known_by_their_attention() -> None:
    theirs = table(
        {"l.self_attn.in_proj_weight": (6, 2), "l.linear1.weight": (4, 2), "l.linear1.bias": (4,),
         "linear1.weight": (4, 2), "linear1.bias": (4,)}, PYTORCH
    )  # fmt: skip
    there = renamed(theirs, to=MINDSPORE).tensors
    assert list(there)[1:] == [
        "l.dense1.weight", "l.dense1.bias", "linear1.weight", "linear1.bias"
    ]  # fmt: skip
    assert list(renamed(there, to=PYTORCH).tensors) == list(theirs)


@pytest.mark.parametrize("layers", [{"nope": "dense"}, {"w": "cube"}])
def test_wrong_layers_are_refused(layers: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        renamed(table({"w.weight": (2, 2)}, PYTORCH), to=MINDSPORE, layers=layers)


def test_two_tensors_never_become_one() -> None:
    """Names that would meet are refused, with what to do."""
    net = {
        "x.gamma": TensorLeaf("F32", (2,), MINDSPORE),
        "x.weight": TensorLeaf("F32", (2,), MINDSPORE),
    }
    with pytest.raises(UsageError, match="--layer x=keep"):
        renamed(net, to=PYTORCH)
