"""`onward import`: files from elsewhere, and back; code in them never runs."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import nn

from onward.errors import StateError
from onward.frameworks.torch_indices import guess_type, to_indices, to_names
from onward.repository import open_repository, read_state
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats
from tests.frameworks.test_ckpt_files import entry


def trained(**options: Any) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A little network with buffers and an optimizer that has taken two steps."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, **options)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).square().sum().backward()
        optimizer.step()
    return model, optimizer


def saved(path: Path, **more: Any) -> Path:
    model, optimizer = trained()
    states = {"net": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}
    torch.save({**states, **more}, path)
    return path


def equal(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor):
        return first.dtype == second.dtype and torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return bool(first == second)


def test_a_classic_file_goes_in_and_comes_out_equal(
    onward: Onward, as_json: AsJson, tmp_path: Path
) -> None:
    """net, optimizer and epoch survive import and export; torch loads them with weights_only."""
    file, out = saved(tmp_path / "ckpt_7.pth", acc=0.5), tmp_path / "out"

    said = as_json("import", file, out)
    onward("export", out, tmp_path / "back.pth")

    assert (said["step"], said["epoch"], said["optimizer"]) == (2, 7, "AdamW")
    assert said["left_out"] == ["acc"]
    before = torch.load(file, weights_only=True)
    after = torch.load(tmp_path / "back.pth", weights_only=True)
    assert equal(dict(before["net"]), after["net"])
    assert equal(before["optimizer"]["state"], after["optimizer"]["state"])
    assert after["optimizer"]["param_groups"][0]["params"] == list(range(6))
    assert (after["epoch"], after["step"]) == (7, 2)
    model, optimizer = trained()
    model.load_state_dict(after["net"])
    optimizer.load_state_dict(after["optimizer"])
    onward("verify", out, "--every-byte")


def test_a_script_goes_on_from_an_import(
    onward: Onward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The imported checkpoint is a finished increment: `onward.open` continues with all of it."""
    import onward as library

    monkeypatch.chdir(tmp_path)
    onward("import", saved(tmp_path / "c.pth"), "out")
    expected, reference = trained()
    model, optimizer = trained()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    optimizer.state.clear()

    run = library.open("out", model=model, optimizer=optimizer)
    run.close()

    assert run.verb == "continue"
    assert run.global_step == 2
    assert equal(dict(expected.state_dict()), dict(model.state_dict()))
    assert equal(reference.state_dict()["state"], optimizer.state_dict()["state"])


def test_a_bare_state_dict_and_wrapped_names_go_in(onward: Onward, tmp_path: Path) -> None:
    """Only weights, saved from DataParallel: the names are those of the model itself."""
    model, _ = trained()
    wrapped = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save(wrapped, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert "no optimizer" in onward("import", tmp_path / "w.pth", tmp_path / "out").stdout
    repository = open_repository(LocalStore(tmp_path / "out"))
    latest = repository.history.latest()
    assert latest is not None
    state = read_state(repository.store, repository.manifest(latest))
    assert list(state["model"]) == list(model.state_dict())
    assert latest.finished


def test_a_safetensors_file_goes_in_without_torch(
    onward: Onward, as_json: AsJson, tmp_path: Path
) -> None:
    weights: dict[str, Any] = {
        "b.weight": np.ones((2, 3), np.float32),
        "a": np.zeros(2, np.float16),
    }
    save_file(weights, tmp_path / "f.safetensors", {"step": "5", "epoch": "x"})
    said = as_json("import", tmp_path / "f.safetensors", tmp_path / "out", "--model", "net")
    assert (said["tensors"], said["step"], said["epoch"]) == (2, 5, 0)
    onward("export", tmp_path / "out", tmp_path / "g.safetensors")
    assert "net/b.weight" in onward("show", tmp_path / "out").stdout


def test_a_ckpt_goes_in_without_mindspore(onward: Onward, as_json: AsJson, tmp_path: Path) -> None:
    """Network and optimizer under MindSpore's names; texts are left out and named."""
    (tmp_path / "f.ckpt").write_bytes(
        entry("w", [2], "Float32", bytes(8))
        + entry("global_step", [1], "Int32", b"\7\0\0\0")
        + entry("learning_rate", [], "Float32", bytes(4))
        + entry("moments.w", [2], "Float32", bytes(8))
        + entry("epoch_num", [], "Int64", b"\3" + bytes(7))
        + entry("note", [0], "str", b"h\0\0\0")
    )
    said = as_json("import", tmp_path / "f.ckpt", tmp_path / "out")
    assert (said["step"], said["epoch"], said["optimizer"]) == (7, 3, "Momentum")
    assert (said["tensors"], said["left_out"]) == (1, ["note"])
    shown = onward("show", tmp_path / "out").stdout
    assert re.search(r"framework +mindspore", shown)
    assert "optimizer/state/model.w/moments" in shown
    onward("verify", tmp_path / "out", "--every-byte")


def test_a_ckpt_that_does_not_tell_its_optimizer_asks(onward: Onward, tmp_path: Path) -> None:
    """LazyAdam and AdamOffload keep the same things: the class is asked for."""
    (tmp_path / "f.ckpt").write_bytes(
        entry("w", [1], "Float32", bytes(4))
        + entry("global_step", [1], "Int32", bytes(4))
        + entry("beta1_power", [1], "Float32", bytes(4))
        + entry("moment1.w", [1], "Float32", bytes(4))
        + entry("moment2.w", [1], "Float32", bytes(4))
    )
    said = onward("import", tmp_path / "f.ckpt", tmp_path / "out", code=2).stderr
    assert "moment1, moment2" in said
    assert "--optimizer-type" in said
    given = ("--optimizer-type", "LazyAdam")
    assert "LazyAdam" in onward("import", tmp_path / "f.ckpt", tmp_path / "out", *given).stdout
    weights = onward("import", tmp_path / "f.ckpt", tmp_path / "two", "--only", "weights").stdout
    assert "left out: the optimizer" in weights


def test_a_ckpt_that_lies_is_refused(onward: Onward, tmp_path: Path) -> None:
    (tmp_path / "f.ckpt").write_bytes(entry("w", [1 << 40], "Float32", bytes(4)))
    said = onward("import", tmp_path / "f.ckpt", tmp_path / "out", code=1).stderr
    assert "f.ckpt cannot be imported: w claims" in said
    assert not (tmp_path / "out").exists()


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch pwned",)


def laughs() -> list[Any]:
    value: list[Any] = [1] * 10
    for _ in range(6):
        value = [value] * 10
    return value


def compressed(path: Path) -> None:
    plain = saved(path.with_suffix(".plain"))
    with (
        zipfile.ZipFile(plain) as old,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "code": (lambda path: torch.save({"net": Evil()}, path), "posix.system"),
    "whole model": (lambda path: torch.save(nn.Linear(1, 1), path), "nn.modules.linear.Linear"),
    "noise": (lambda path: path.write_bytes(b"\x80\x02" * 500), "no file of torch.save"),
    "nothing": (lambda path: path.write_bytes(b""), "no file of torch.save"),
    "cut short": (
        lambda path: path.write_bytes(saved(path).read_bytes()[:3000]), "no file of torch.save"
    ),
    "no table": (lambda path: torch.save([1, 2], path), "holds a list"),
    "no model": (lambda path: torch.save({"epoch": 1}, path), "has no model"),
    "endless tensor": (
        lambda path: torch.save({"net": {"w": torch.ones(1).expand(10**12)}}, path), "claims"
    ),
    "endless list": (
        lambda path: torch.save(
            {"net": {"w": torch.ones(1)},
             "optimizer": {"state": {}, "param_groups": [{"params": [0], "x": laughs()}]}}, path
        ),
        "too deep or too large",
    ),
    "compressed": (compressed, "compressed"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_and_foreign_files_are_refused(
    onward: Onward, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One message with why and what to do; no code ran, no output came to be."""
    monkeypatch.chdir(tmp_path)
    make, reason = HOSTILE[name]
    make(tmp_path / "f.pth")
    result = onward("import", "f.pth", "out", code=1)
    assert "f.pth cannot be imported" in result.stderr
    assert reason in result.stderr
    assert "what to do:" in result.stderr
    assert "weights_only=False" not in result.stderr
    assert not (tmp_path / "pwned").exists()
    assert not (tmp_path / "out").exists()


def test_an_output_with_checkpoints_is_left_alone(
    onward: Onward, output: Output, tmp_path: Path
) -> None:
    output.chain(2)
    file = saved(tmp_path / "c.pth")
    assert "2 checkpoints already" in onward("import", file, output.url, code=2).stderr
    assert "no file" in onward("import", tmp_path / "nope.pth", tmp_path / "x", code=2).stderr
    onward("import", file, tmp_path / "y", "--model", "onward", code=2)
    output.repository.refresh()
    assert output.repository.history.generation == 1


def test_an_optimizer_that_does_not_fit_is_refused(onward: Onward, tmp_path: Path) -> None:
    """Other counts or shapes: nothing is guessed, the weights alone are offered."""
    model, optimizer = trained()
    state = optimizer.state_dict()
    del state["state"][5], state["param_groups"][0]["params"][5]
    torch.save({"net": model.state_dict(), "optimizer": state}, tmp_path / "a.pth")
    result = onward("import", tmp_path / "a.pth", tmp_path / "out", code=1)
    assert "it has 5 parameters, the model 6" in result.stderr
    onward("import", tmp_path / "a.pth", tmp_path / "out", "--only", "weights")

    parameters = [("model.w", (2,)), ("model.v", (3,))]
    numbered = {"state": {0: {"exp_avg": floats(1, 2, 3)}}, "param_groups": [{"params": [0, 1]}]}
    with pytest.raises(StateError, match="does not fit"):
        to_names(numbered, parameters, kind="Adam")


def test_an_ambiguous_optimizer_must_be_named(onward: Onward, tmp_path: Path) -> None:
    """Files of older PyTorch do not tell Adam from AdamW."""
    model, optimizer = trained()
    state = optimizer.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    torch.save({"net": model.state_dict(), "optimizer": state}, tmp_path / "a.pth")
    result = onward("import", tmp_path / "a.pth", tmp_path / "out", code=2)
    assert "--optimizer-type" in result.stderr
    arguments = (tmp_path / "a.pth", tmp_path / "out", "--optimizer-type", "AdamW")
    assert "optimizer AdamW" in onward("import", *arguments).stdout


def test_numbers_become_names_and_numbers_again() -> None:
    """Several groups, names given by the groups themselves, state that belongs to no parameter."""
    parameters = [("model.a", (1,)), ("model.b", (1,)), ("model.c", (1,))]
    numbered = {
        "state": {1: {"momentum_buffer": floats(1)}, "shared": 5},
        "param_groups": [
            {"lr": 1, "params": [0, 1], "param_names": ["c", "a"]},
            {"lr": 2, "params": [2], "param_names": ["b"]},
        ],
    }
    tree = to_names(numbered, parameters, kind="SGD")
    names = [group["params"] for group in tree["param_groups"]]
    assert names == [["model.c", "model.a"], ["model.b"]]
    assert list(tree["state"]) == ["model.a"]
    again = to_indices(tree)
    assert again["state"].keys() == {1, "shared"}
    assert [group["params"] for group in again["param_groups"]] == [[0, 1], [2]]


def test_pytorchs_optimizers_are_recognised() -> None:
    """A state dict does not name its class; hyperparameters and state tell most of them."""
    for name in ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "Adagrad",
                 "Adadelta", "ASGD", "Rprop", "LBFGS", "Adafactor"):  # fmt: skip
        weight = nn.Parameter(torch.ones(2, 2))
        optimizer: torch.optim.Optimizer = getattr(torch.optim, name)([weight], lr=0.1)
        weight.grad = torch.ones(2, 2)
        optimizer.step(lambda: torch.tensor(1.0))  # type: ignore[arg-type, return-value]
        assert guess_type(optimizer.state_dict()) == name
