"""One network, two frameworks: weights of one give the other the same outputs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, mint, nn

import onward
from onward import errors
from onward.frameworks import load_framework
from onward.frameworks.translation import translated
from onward.repository import open_repository
from onward.stores import open_store
from tests.cli.test_mindspore_export import IMAGES, Cell, Module, outputs

TORCH, MINDSPORE = load_framework("torch"), load_framework("mindspore")
RANDOM = np.random.default_rng(4)


def values(*shape: int) -> Any:
    return RANDOM.normal(size=shape).astype(np.float32)


SERIES, IMAGE, VOLUME = values(2, 4, 9), values(2, 4, 6, 6), values(2, 4, 3, 3, 3)
TOKENS = values(2, 5, 8)
# MindSpore's tanh on a CPU is an approximation, off by up to 8e-5 where it saturates.
TOLERANCE = 1e-4
VALID = {"pad_mode": "valid", "has_bias": True}

# Both layers, and what goes in; configuration (padding, bias, eps) said where defaults differ.
LAYERS: dict[str, tuple[Any, Any, tuple[Any, ...]]] = {
    "dense": (lambda: nn.Dense(8, 3), lambda: torch.nn.Linear(8, 3), (TOKENS,)),
    "dense of mint": (lambda: mint.nn.Linear(8, 3), lambda: torch.nn.Linear(8, 3), (TOKENS,)),
    "bilinear": (
        lambda: nn.BiDense(8, 8, 2), lambda: torch.nn.Bilinear(8, 8, 2), (values(3, 8),) * 2
    ),
    "conv1d": (
        lambda: nn.Conv1d(4, 6, 3, **VALID), lambda: torch.nn.Conv1d(4, 6, 3), (SERIES,)
    ),
    "conv1d in groups": (
        lambda: nn.Conv1d(4, 6, 3, group=2, **VALID),
        lambda: torch.nn.Conv1d(4, 6, 3, groups=2), (SERIES,),
    ),
    "conv1d transposed": (
        lambda: nn.Conv1dTranspose(4, 6, 3, **VALID),
        lambda: torch.nn.ConvTranspose1d(4, 6, 3), (SERIES,),
    ),
    "conv2d": (
        lambda: nn.Conv2d(4, 6, 3, **VALID), lambda: torch.nn.Conv2d(4, 6, 3), (IMAGE,)
    ),
    "conv2d in groups": (
        lambda: nn.Conv2d(4, 6, 3, group=2, **VALID),
        lambda: torch.nn.Conv2d(4, 6, 3, groups=2), (IMAGE,),
    ),
    "conv2d depthwise": (
        lambda: nn.Conv2d(4, 8, 3, group=4, **VALID),
        lambda: torch.nn.Conv2d(4, 8, 3, groups=4), (IMAGE,),
    ),
    "conv2d transposed": (
        lambda: nn.Conv2dTranspose(4, 6, 3, stride=2, **VALID),
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, stride=2), (IMAGE,),
    ),
    "conv2d transposed in groups": (
        lambda: nn.Conv2dTranspose(4, 6, 3, group=2, **VALID),
        lambda: torch.nn.ConvTranspose2d(4, 6, 3, groups=2), (IMAGE,),
    ),
    "conv3d": (
        lambda: nn.Conv3d(4, 6, 2, **VALID), lambda: torch.nn.Conv3d(4, 6, 2), (VOLUME,)
    ),
    "conv3d transposed": (
        lambda: nn.Conv3dTranspose(4, 6, 2, **VALID),
        lambda: torch.nn.ConvTranspose3d(4, 6, 2), (VOLUME,),
    ),
    "batch norm 1d": (
        lambda: nn.BatchNorm1d(4), lambda: torch.nn.BatchNorm1d(4), (values(5, 4),)
    ),
    "batch norm 2d": (lambda: nn.BatchNorm2d(4), lambda: torch.nn.BatchNorm2d(4), (IMAGE,)),
    "batch norm 3d": (lambda: nn.BatchNorm3d(4), lambda: torch.nn.BatchNorm3d(4), (VOLUME,)),
    "group norm": (lambda: nn.GroupNorm(2, 4), lambda: torch.nn.GroupNorm(2, 4), (IMAGE,)),
    "layer norm": (
        lambda: nn.LayerNorm((8,), epsilon=1e-5), lambda: torch.nn.LayerNorm(8), (TOKENS,)
    ),
    "embedding": (
        lambda: nn.Embedding(9, 3), lambda: torch.nn.Embedding(9, 3), (np.array([0, 3, 8]),)
    ),
    "prelu": (lambda: nn.PReLU(4), lambda: torch.nn.PReLU(4), (IMAGE,)),
    "rnn": (
        lambda: nn.RNN(8, 4, batch_first=True), lambda: torch.nn.RNN(8, 4, batch_first=True),
        (TOKENS,),
    ),
    "lstm": (
        lambda: nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True),
        lambda: torch.nn.LSTM(8, 4, 2, bidirectional=True, batch_first=True), (TOKENS,),
    ),
    "gru": (
        lambda: nn.GRU(8, 4, 2, bidirectional=True, batch_first=True),
        lambda: torch.nn.GRU(8, 4, 2, bidirectional=True, batch_first=True), (TOKENS,),
    ),
    "rnn cell": (
        lambda: nn.RNNCell(8, 4), lambda: torch.nn.RNNCell(8, 4), (values(2, 8), values(2, 4))
    ),
    "lstm cell": (
        lambda: nn.LSTMCell(8, 4), lambda: torch.nn.LSTMCell(8, 4),
        (values(2, 8), (values(2, 4), values(2, 4))),
    ),
    "gru cell": (
        lambda: nn.GRUCell(8, 4), lambda: torch.nn.GRUCell(8, 4), (values(2, 8), values(2, 4))
    ),
    "attention": (
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        lambda: torch.nn.MultiheadAttention(8, 2, batch_first=True), (TOKENS,) * 3,
    ),
    "attention of three widths": (
        lambda: nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True),
        lambda: torch.nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True),
        (TOKENS, values(2, 5, 4), values(2, 5, 6)),
    ),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (TOKENS,),
    ),
}  # fmt: skip


def _each(make: Any, inputs: Any) -> Any:
    return tuple(_each(make, x) if isinstance(x, tuple) else make(x) for x in inputs)


def forward(layer: Any, inputs: tuple[Any, ...]) -> Any:
    if isinstance(layer, nn.Cell):
        layer.set_train(False)
        result = layer(*_each(Tensor, inputs))
        return (result[0] if isinstance(result, tuple) else result).asnumpy()
    layer.eval()
    with torch.no_grad():
        result = layer(*_each(torch.from_numpy, inputs))
    return (result[0] if isinstance(result, tuple) else result).numpy()


def shaken(layer: Any) -> Any:
    """The layer with numbers in every tensor, statistics too, that no initialiser would give."""
    tensors = (
        [(n, p) for n, p in layer.parameters_and_names()]
        if isinstance(layer, nn.Cell)
        else [(n, t) for n, t in layer.state_dict().items() if t.is_floating_point()]
    )
    for name, tensor in tensors:
        fresh = RANDOM.uniform(0.1, 0.5, size=tuple(tensor.shape)).astype(np.float32)
        if "var" not in name:
            fresh *= RANDOM.choice([-1, 1], size=fresh.shape).astype(np.float32)
        if isinstance(layer, nn.Cell):
            tensor.set_data(Tensor(fresh))
        else:
            tensor.copy_(torch.from_numpy(fresh))
    return layer


def pour(source: Any, target: Any) -> None:
    """The weights of one layer into the other, as a branch does."""
    there, here = (MINDSPORE, TORCH) if isinstance(source, nn.Cell) else (TORCH, MINDSPORE)
    stored, live = there.capture({"x": source})["x"], here.capture({"x": target})["x"]
    tree = {"x": translated(stored, live, to=here.name).tree}
    assert here.differences_in_weights({"x": target}, tree) == []
    here.restore_weights({"x": target}, tree)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_computes_the_same_in_both(name: str) -> None:
    """Random weights and statistics, poured one way and the other: the same numbers come out."""
    cell, module, inputs = LAYERS[name]
    with torch.no_grad():
        source, target = shaken(module()), cell()
        pour(source, target)
        np.testing.assert_allclose(
            forward(target, inputs), forward(source, inputs), rtol=1e-4, atol=TOLERANCE
        )
        other, back = shaken(cell()), module()
        pour(other, back)
        expected = forward(other, inputs)
        np.testing.assert_allclose(forward(back, inputs), expected, rtol=1e-4, atol=TOLERANCE)
    if name != "embedding":
        assert np.abs(expected - forward(module(), inputs)).max() > 1e-3


def test_statistics_move_alike_in_training() -> None:
    """MindSpore's momentum is one minus PyTorch's; both keep the unbiased variance."""
    cell, module = nn.BatchNorm2d(4, momentum=0.8), torch.nn.BatchNorm2d(4, momentum=0.2)
    pour(module, cell)
    cell.set_train(True)
    small = values(3, 4, 1, 1) * 3
    cell(Tensor(small))
    module(torch.from_numpy(small))
    np.testing.assert_allclose(cell.moving_variance.asnumpy(), module.running_var, rtol=1e-5)
    np.testing.assert_allclose(cell.moving_mean.asnumpy(), module.running_mean, rtol=1e-5)
    assert np.abs(module.running_var.numpy() - 1).max() > 0.1


LABELS = np.arange(len(IMAGES)) % 3


def train_torch(output: Path, **options: Any) -> Module:
    model = Module()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run = onward.open(output, model=model, optimizer=optimizer, **options)
    for _ in run.epochs(3):
        logits = model(torch.from_numpy(IMAGES))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(LABELS))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        run.step(loss=loss)
    run.finish()
    return model


def train_mindspore(output: Path, **options: Any) -> Cell:
    net = Cell()
    optimizer = nn.Momentum(net.trainable_params(), 0.1, 0.9)
    loss_of = nn.CrossEntropyLoss()

    def forward_of(images: Any, labels: Any) -> Any:
        return loss_of(net(images), labels)

    step = ms.value_and_grad(forward_of, None, optimizer.parameters)
    run = onward.open(output, model=net, optimizer=optimizer, **options)
    net.set_train(True)
    for _ in run.epochs(3):
        loss, grads = step(Tensor(IMAGES), Tensor(LABELS, ms.int32))
        optimizer(grads)
        run.step(loss=float(loss.asnumpy()))
    run.finish()
    return net


def test_what_pytorch_trained_goes_on_in_mindspore(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The branch begins with PyTorch's outputs, trains on, and resumes as MindSpore's own."""
    model = train_torch(tmp_path / "a")
    net = Cell()
    onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), model=net).close()
    np.testing.assert_allclose(outputs(net), outputs(model), atol=1e-5)
    said = capsys.readouterr().err
    assert "4 by name, 4 by rule (normalisation 4)" in said
    assert "have no place here: model.bn.num_batches_tracked" in said
    trained = train_mindspore(tmp_path / "c", branch_from=str(tmp_path / "a"))
    manifest = latest(tmp_path / "c")
    assert manifest.framework.name == "mindspore"
    assert manifest.about["branch"]["framework"].startswith("torch ")
    assert np.abs(outputs(trained) - outputs(model)).max() > 1e-3
    again = Cell()
    reopened = onward.open(tmp_path / "c", model=again, optimizer=nn.Momentum(
        again.trainable_params(), 0.1, 0.9))  # fmt: skip
    assert reopened.verb == "continue"
    reopened.close()
    np.testing.assert_array_equal(outputs(again), outputs(trained))


def test_what_mindspore_trained_goes_on_in_pytorch(tmp_path: Path) -> None:
    """The other way round, and once more back: nothing is lost on the way."""
    net = train_mindspore(tmp_path / "a")
    model = Module()
    run = onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), model=model)
    run.save()
    run.close()
    np.testing.assert_allclose(outputs(model), outputs(net), atol=1e-5)
    back = Cell()
    onward.open(tmp_path / "c", branch_from=str(tmp_path / "b"), model=back).close()
    for (name, here), (_, there) in zip(
        back.parameters_and_names(), net.parameters_and_names(), strict=True
    ):
        np.testing.assert_array_equal(here.asnumpy(), there.asnumpy(), err_msg=name)


def test_resume_across_frameworks_says_to_branch(tmp_path: Path) -> None:
    train_torch(tmp_path)
    with pytest.raises(errors.Mismatch, match="torch, not mindspore") as caught:
        onward.open(tmp_path, model=Cell())
    assert "--branch" in str(caught.value)


def test_a_cell_that_differs_is_told_all_at_once_and_stays(tmp_path: Path) -> None:
    """Missing layers and other shapes in one error; the live network is as it was."""

    class Other(nn.Cell):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 4, 5, has_bias=True)
            self.norm = nn.BatchNorm2d(4)

    train_torch(tmp_path / "a")
    net = Other()
    before = {name: value.asnumpy().copy() for name, value in net.parameters_and_names()}
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(
            tmp_path / "b", branch_from=str(tmp_path / "a"), model=net,
            rename={"model.bn": "model.norm"},
        )  # fmt: skip
    said = "\n".join(caught.value.differences)
    assert "model.conv.weight: the checkpoint has F32 [4, 1, 3, 3]" in said
    assert "model.fc.weight: the checkpoint has it" in said
    assert "model.norm" not in said
    for name, value in net.parameters_and_names():
        np.testing.assert_array_equal(value.asnumpy(), before[name])


def test_a_bare_list_of_a_sequence_goes_by_number(tmp_path: Path) -> None:
    """`SequentialCell` and `Sequential` number their layers alike, activations included."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    run = onward.open(tmp_path / "a", net=model)
    run.save()
    run.close()
    net = nn.SequentialCell(nn.Dense(3, 4), nn.ReLU(), nn.Dense(4, 2))
    onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), net=net).close()
    inputs = values(5, 3)
    np.testing.assert_allclose(
        net(Tensor(inputs)).asnumpy(), model(torch.from_numpy(inputs)).detach(), atol=1e-6
    )


def latest(output: Path) -> Any:
    repository = open_repository(open_store(output))
    return repository.manifest(repository.history.live()[-1])
