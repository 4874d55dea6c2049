"""Files of MindSpore go in and out; across frameworks their weights give equal outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn, ops
from mindspore.dataset import GeneratorDataset

import onward as library
from onward.repository import open_repository, read_state
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, leaf

IMAGES = np.random.default_rng(0).normal(size=(12, 1, 6, 6)).astype(np.float32)


class Cell(nn.Cell):
    """Every kind of layer of a small CNN, as MindSpore's tutorials write it."""

    def __init__(self) -> None:
        super().__init__()
        ms.set_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, pad_mode="pad", padding=1, has_bias=True)
        self.bn = nn.BatchNorm2d(4)
        self.pool = nn.MaxPool2d(2, 2)
        self.fc = nn.Dense(36, 3)

    def construct(self, images: Any) -> Any:
        return self.fc(self.pool(ops.relu(self.bn(self.conv(images)))).reshape(-1, 36))


class Module(torch.nn.Module):
    """The same network in PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = torch.nn.Conv2d(1, 4, 3, padding=1)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(36, 3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.bn(self.conv(images)))
        return self.fc(torch.max_pool2d(maps, 2).reshape(-1, 36))


def trained(path: Path, make: Any = None, **info: Any) -> tuple[nn.Cell, nn.Optimizer, Path]:
    """A network after two steps of `Model.train`, and the file that its callback saved."""
    net = Cell()
    make = make or (lambda cell: nn.Momentum(cell.trainable_params(), 0.05, 0.9))
    optimizer = make(net)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    data = GeneratorDataset(
        [(image, np.int32(i % 3)) for i, image in enumerate(IMAGES)], ["x", "y"], shuffle=False
    )
    config = ms.CheckpointConfig(save_checkpoint_steps=2, append_info=["epoch_num", "step_num"])
    ms.Model(net, loss, optimizer).train(
        1, data.batch(6), callbacks=[ms.ModelCheckpoint("net", str(path), config)],
        dataset_sink_mode=False,
    )  # fmt: skip
    return net, optimizer, path / "net-1_2.ckpt"


def outputs(net: Any) -> Any:
    if isinstance(net, nn.Cell):
        net.set_train(False)
        return net(Tensor(IMAGES)).asnumpy()
    net.eval()
    with torch.no_grad():
        return net(torch.from_numpy(IMAGES)).numpy()


def state_of(folder: Path) -> Any:
    repository = open_repository(LocalStore(folder))
    latest = repository.history.latest()
    assert latest is not None
    manifest = repository.manifest(latest)
    return manifest, read_state(repository.store, manifest)


OPTIMIZERS: dict[str, Any] = {
    "Momentum": lambda cell: nn.Momentum(cell.trainable_params(), 0.05, 0.9),
    "SGD": lambda cell: nn.SGD(cell.trainable_params(), 0.05, momentum=0.9),
    "Adam": lambda cell: nn.Adam(cell.trainable_params(), 0.01),
    "AdamWeightDecay": lambda cell: nn.AdamWeightDecay(cell.trainable_params(), 0.01),
    "RMSProp": lambda cell: nn.RMSProp(cell.trainable_params(), 0.01),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_classic_file_goes_in_and_comes_out_equal(
    onward: Onward, as_json: AsJson, tmp_path: Path, kind: str
) -> None:
    """Network, optimizer and place in training survive; MindSpore loads the file, bit for bit."""
    _, _, file = trained(tmp_path, OPTIMIZERS[kind])
    said = as_json("import", file, tmp_path / "out")
    assert (said["step"], said["epoch"], said["optimizer"]) == (2, 1, kind)
    assert said["left_out"] == []
    manifest, state = state_of(tmp_path / "out")
    assert manifest.framework.name == "mindspore"
    assert state["optimizer"]["param_groups"][0]["lr"] == pytest.approx(
        0.05 if kind in ("Momentum", "SGD") else 0.01
    )
    exported = as_json("export", tmp_path / "out", tmp_path / "back.ckpt")
    assert (exported["format"], exported["left_out"]) == ("ckpt", [])
    before, after = ms.load_checkpoint(str(file)), ms.load_checkpoint(str(tmp_path / "back.ckpt"))
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype
        np.testing.assert_array_equal(before[name].asnumpy(), after[name].asnumpy())
    again = Cell()
    optimizer = OPTIMIZERS[kind](again)
    assert ms.load_param_into_net(again, after)[0] == []
    assert ms.load_param_into_net(optimizer, after)[0] == []


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_script_goes_on_from_an_import(onward: Onward, tmp_path: Path, kind: str) -> None:
    """`onward.open` continues with network and optimizer as they were, and what it keeps goes out
    into a file that MindSpore loads into both."""
    net, optimizer, file = trained(tmp_path, OPTIMIZERS[kind])
    onward("import", file, tmp_path / "out")
    again = Cell()
    live = OPTIMIZERS[kind](again)
    run = library.open(tmp_path / "out", model=again, optimizer=live)
    assert (run.verb, run.global_step) == ("continue", 2)
    same(net, again)
    same(optimizer, live)
    run.save()
    run.close()

    onward("export", tmp_path / "out", tmp_path / "b.ckpt")
    third = Cell()
    fresh = OPTIMIZERS[kind](third)
    held = ms.load_checkpoint(str(tmp_path / "b.ckpt"))
    assert ms.load_param_into_net(third, held)[0] == []
    assert ms.load_param_into_net(fresh, held)[0] == []
    same(net, third)
    same(optimizer, fresh)


def same(first: nn.Cell, second: nn.Cell) -> None:
    """Every parameter is, bit for bit."""
    ours, theirs = dict(first.parameters_and_names()), dict(second.parameters_and_names())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        np.testing.assert_array_equal(parameter.asnumpy(), theirs[name].asnumpy(), err_msg=name)


def test_only_weights_make_a_smaller_file(onward: Onward, tmp_path: Path) -> None:
    net, _, file = trained(tmp_path)
    onward("import", file, tmp_path / "out")
    onward("export", tmp_path / "out", tmp_path / "w.ckpt", "--only", "weights")
    names = set(ms.load_checkpoint(str(tmp_path / "w.ckpt")))
    assert names == {name for name, _ in net.parameters_and_names()}
    onward("import", file, tmp_path / "two", "--only", "weights")
    assert state_of(tmp_path / "two")[1].keys() == {"model"}


def test_weights_of_mindspore_give_pytorch_the_same_outputs(onward: Onward, tmp_path: Path) -> None:
    """A .ckpt becomes a .pth whose trained statistics are in place; what was done is printed."""
    net, _, file = trained(tmp_path)
    onward("import", file, tmp_path / "out")
    said = onward("export", tmp_path / "out", tmp_path / "w.pth").stdout
    assert "translated from mindspore: 4 by name, 4 by rule (normalisation 4)" in said
    assert "left out: optimizer" in said
    module = Module()
    module.load_state_dict(torch.load(tmp_path / "w.pth", weights_only=True)["net"])
    np.testing.assert_allclose(outputs(module), outputs(net), atol=1e-5)
    assert np.abs(outputs(net)).max() > 0.1


def test_weights_of_pytorch_give_mindspore_the_same_outputs(
    onward: Onward, as_json: AsJson, tmp_path: Path
) -> None:
    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9)
    for _ in range(2):
        loss = module(torch.from_numpy(IMAGES)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    states = {"net": module.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 1}
    torch.save(states, tmp_path / "w.pth")
    onward("import", tmp_path / "w.pth", tmp_path / "out")
    said = as_json("export", tmp_path / "out", tmp_path / "w.ckpt")
    assert said["translated"]["dropped"] == ["bn.num_batches_tracked"]
    assert said["translated"]["by_rule"] == {"normalisation": 4}
    assert said["left_out"] == ["optimizer"]
    net = Cell()
    missing, unused = ms.load_param_into_net(net, ms.load_checkpoint(str(tmp_path / "w.ckpt")))
    assert (missing, unused) == ([], [])
    np.testing.assert_allclose(outputs(net), outputs(module), atol=1e-5)


def test_what_a_shape_does_not_tell_is_said_on_the_command_line(
    onward: Onward, tmp_path: Path
) -> None:
    """An embedding without --layer keeps its name, and a line says so."""
    torch.save({"words.weight": torch.ones(3, 2)}, tmp_path / "w.pth")
    onward("import", tmp_path / "w.pth", tmp_path / "out")
    said = onward("export", tmp_path / "out", tmp_path / "a.ckpt").stdout
    assert "words may be a dense layer without bias, or an embedding" in said
    onward("export", tmp_path / "out", tmp_path / "b.ckpt", "--layer", "words=embedding")
    assert list(ms.load_checkpoint(str(tmp_path / "a.ckpt"))) == ["words.weight"]
    assert list(ms.load_checkpoint(str(tmp_path / "b.ckpt"))) == ["words.embedding_table"]
    onward("export", tmp_path / "out", tmp_path / "c.pth", "--layer", "words=embedding", code=2)


def test_what_a_ckpt_cannot_hold_is_refused(onward: Onward, output: Output, tmp_path: Path) -> None:
    """All such tensors at once; no file, and nothing left beside it."""
    output.save({"model": {
        "c": leaf(np.array([1j], np.complex64)), "empty": leaf(np.zeros((0, 2), np.float32)),
    }}, framework="mindspore")  # fmt: skip
    result = onward("export", output.url, tmp_path / "w.ckpt", code=1)
    assert "c is C64, empty is empty" in result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


def test_every_dtype_arrives(onward: Onward, output: Output, tmp_path: Path) -> None:
    """Bit for bit, bfloat16 and scalars too, also into an output again."""
    bits = np.array([0x3F80, 0x7F80, 0xFF81, 0x0001], np.uint16)
    output.save({"model": {
        "bf16": leaf(bits.view(np.float16), "BF16"), "bool": leaf(np.array([True, False])),
        "scalar": leaf(np.array(2.5)), "f16": leaf(np.array([1.5], np.float16)),
        "i64": leaf(np.array([[1], [2]])),
    }}, framework="mindspore")  # fmt: skip
    onward("export", output.url, tmp_path / "w.ckpt", "--model", "model")
    onward("import", tmp_path / "w.ckpt", tmp_path / "again")
    net = state_of(tmp_path / "again")[1]["model"]
    assert {name: (x.dtype, x.shape) for name, x in net.items()} == {
        "bf16": ("BF16", (4,)), "bool": ("BOOL", (2,)), "scalar": ("F64", ()),
        "f16": ("F16", (1,)), "i64": ("I64", (2, 1)),
    }  # fmt: skip
    np.testing.assert_array_equal(net["bf16"].data.view(np.uint16), bits)
