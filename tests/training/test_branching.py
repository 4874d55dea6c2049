"""Branches from another framework's checkpoint, and from one whose modules had other names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onward
from onward import errors
from onward.frameworks import load_framework
from onward.frameworks.base import TensorLeaf
from onward.learning.names import Names
from onward.repository import Commit, open_repository
from onward.stores import open_store
from tests.cli.outputs import Output, leaf


class Net(nn.Module):
    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv1d(1, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.words = nn.Embedding(5, 3)
        self.head = nn.Linear(4, classes)


def of_mindspore(array: Any) -> TensorLeaf:
    made = leaf(np.asarray(array, np.float32))
    return TensorLeaf(made.dtype, made.shape, "mindspore", made.data)


def net_of_mindspore() -> dict[str, np.ndarray[Any, Any]]:
    """What a `Cell` with the same layers holds."""
    random = np.random.default_rng(3)
    shapes = {
        "conv.weight": (4, 1, 1, 3), "conv.bias": (4,), "norm.moving_mean": (4,),
        "norm.moving_variance": (4,), "norm.gamma": (4,), "norm.beta": (4,),
        "words.embedding_table": (5, 3), "head.weight": (2, 4), "head.bias": (2,),
    }  # fmt: skip
    return {name: random.normal(size=shape) for name, shape in shapes.items()}


def saved(folder: Path, net: dict[str, Any] | None = None, **given: Any) -> Commit:
    net = net_of_mindspore() if net is None else net
    state: dict[str, Any] = {
        "model": {name: of_mindspore(value) for name, value in net.items()},
        "optimizer": {"type": "Momentum", "state": {}, "shared": {}, "param_groups": []},
    }
    facts = {"framework": "mindspore", "framework_version": "2.10.0", "finished": True, **given}
    return Output(folder).save(state, **facts)


def test_weights_of_mindspore_go_on_in_pytorch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By name and by rule; what was taken is told and recorded; the branch resumes as its own."""
    commit = saved(tmp_path / "there")
    there, model = net_of_mindspore(), Net()
    run = onward.open(tmp_path / "here", branch_from=f"{tmp_path / 'there'}", model=model)
    run.save()
    run.close()

    state = model.state_dict()
    for name, value in {
        "conv.weight": there["conv.weight"][:, :, 0], "conv.bias": there["conv.bias"],
        "norm.running_mean": there["norm.moving_mean"], "norm.weight": there["norm.gamma"],
        "norm.running_var": there["norm.moving_variance"], "norm.bias": there["norm.beta"],
        "words.weight": there["words.embedding_table"], "head.weight": there["head.weight"],
    }.items():  # fmt: skip
        np.testing.assert_array_equal(state[name], np.float32(value))
    said = capsys.readouterr().err
    assert "tensors of mindspore 2.10.0 taken: 3 by name, 6 by rule" in said
    assert "(convolution 1d 1, embedding 1, normalisation 4)" in said
    assert "stay as they are: model.norm.num_batches_tracked" in said
    repository = open_repository(open_store(tmp_path / "here"))
    manifest = repository.manifest(repository.history.live()[-1])
    assert manifest.origin == {"url": str(tmp_path / "there"), "checkpoint": commit.checkpoint}
    assert manifest.about["branch"]["framework"] == "mindspore 2.10.0"
    assert manifest.about["branch"]["by_name"] == 3
    assert manifest.framework.name == "torch"

    again = Net()
    nn.init.zeros_(again.head.weight)
    resumed = onward.open(tmp_path / "here", model=again)
    resumed.close()
    assert resumed.verb == "resume"
    assert torch.equal(again.head.weight, model.head.weight)


@pytest.mark.parametrize("finished", [True, False])
def test_resume_and_continue_say_to_branch(tmp_path: Path, finished: bool) -> None:
    """Full state belongs to the framework that made it."""
    commit = saved(tmp_path, finished=finished)
    records = open_repository(open_store(tmp_path)).history.seq
    with pytest.raises(errors.Mismatch, match="mindspore, not torch") as caught:
        onward.open(tmp_path, model=Net())
    assert f"--branch {tmp_path}@{commit.checkpoint}" in str(caught.value)
    assert open_repository(open_store(tmp_path)).history.seq == records


def test_all_that_does_not_fit_is_said_at_once_and_nothing_is_touched(tmp_path: Path) -> None:
    """Missing, unknown and misshapen tensors in one error, by the names of here; no output made."""
    there = net_of_mindspore()
    there["neck.gamma"] = there.pop("norm.gamma")
    there["words.embedding_table"] = np.zeros((6, 3))
    saved(tmp_path / "there", there)
    model = Net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(tmp_path / "here", branch_from=str(tmp_path / "there"), model=model)
    said = "\n".join(caught.value.differences)
    assert "model.norm.weight: the checkpoint has no such entry" in said
    assert "model.neck.gamma: the checkpoint has it F32 [4]" in said
    assert "model.words.weight: the checkpoint has F32 [6, 3], the live model F32 [5, 3]" in said
    assert len(caught.value.differences) == 3
    assert 'rename={"model.neck": "model.norm"}' in str(caught.value)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not (tmp_path / "here").exists()


def test_modules_with_other_names_are_renamed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Paths of the checkpoint on the left, of here on the right; the longest that fits decides."""
    there = {f"body.{name}": value for name, value in net_of_mindspore().items()}
    there["top.weight"] = there.pop("body.head.weight")
    saved(tmp_path / "there", there)
    model = Net()
    onward.open(
        tmp_path / "here",
        branch_from=str(tmp_path / "there"),
        rename={"model.body": "net", "model.top.weight": "net.head.weight"},
        net=model,
    ).close()
    np.testing.assert_array_equal(
        model.head.weight.detach(), np.float32(net_of_mindspore()["head.weight"])
    )
    assert "9 of these renamed" in capsys.readouterr().err


def test_an_object_with_another_name_is_found(tmp_path: Path) -> None:
    """The model was called otherwise in onward.open: the error says what to rename."""
    saved(tmp_path / "there")
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(tmp_path / "here", branch_from=str(tmp_path / "there"), net=Net())
    assert 'rename={"model": "net"}' in str(caught.value)
    onward.open(
        tmp_path / "here", branch_from=str(tmp_path / "there"), rename={"model": "net"}, net=Net()
    ).close()


def test_renaming_serves_one_framework_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A module that was renamed since, both sides in PyTorch."""
    torch.manual_seed(1)
    old = nn.ModuleDict({"backbone": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    run = onward.open(tmp_path / "a", model=old)
    run.save()
    run.close()
    new = nn.ModuleDict({"features": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), model=new)
    assert 'rename={"model.backbone": "model.features"}' in str(caught.value)
    rename = {"model.backbone.": "model.features."}
    onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), rename=rename, model=new).close()
    assert "2 tensors renamed" in capsys.readouterr().err
    assert torch.equal(new["features"].weight, old["backbone"].weight)  # type: ignore[union-attr]
    assert torch.equal(new["head"].bias, old["head"].bias)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        ({"model.neck": "model.features"}, "rename: the checkpoint has no model.neck"),
        ({"model.a": "model.b"}, "model.b.weight: rename makes it of"),
    ],
)
def test_a_rename_that_is_wrong_is_a_difference(
    tmp_path: Path, rename: dict[str, str], said: str
) -> None:
    """A path that is not there, or two that would become one."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    run = onward.open(tmp_path / "a", model=model)
    run.save()
    run.close()
    with pytest.raises(errors.Mismatch, match=said):
        onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), rename=rename, model=model)
    with pytest.raises(errors.UsageError, match="rename is"):
        onward.open(tmp_path / "b", branch_from=str(tmp_path / "a"), rename={"": "x"}, model=model)


def test_a_head_grows_on_the_way(tmp_path: Path) -> None:
    """Rows of a translated checkpoint go to the same names; new rows stay as they are here."""
    old, grown = Names(["a", "b"]), Names(["a", "b", "c"])
    output = Output(tmp_path / "there")
    there = net_of_mindspore()
    state: dict[str, Any] = {
        "model": {name: of_mindspore(value) for name, value in there.items()},
        **load_framework("torch").capture({"classes": old}),
    }
    output.save(state, framework="mindspore", framework_version="2.10.0", finished=True)
    model = Net(classes=3)
    fresh = model.head.weight.detach().clone()
    onward.open(
        tmp_path / "here", branch_from=str(tmp_path / "there"), model=model, classes=grown,
        grow={"model.head": grown},
    ).close()  # fmt: skip
    weight = model.head.weight.detach()
    np.testing.assert_array_equal(weight[:2], np.float32(there["head.weight"]))
    assert torch.equal(weight[2], fresh[2])
