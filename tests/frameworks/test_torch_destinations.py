"""Restoring without a second copy: read into live tensors, or kept as it was read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from onward.frameworks import torch as framework
from onward.frameworks.base import TensorLeaf
from onward.frameworks.torch_tensors import thaw
from tests.frameworks.torch_training import (
    Net,
    Remembers,
    net,
    same,
    through_an_output,
    through_bytes,
    train,
)


def _trained(seed: int = 0, steps: int = 3) -> dict[str, Any]:
    model = net(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    train(model, optimizer, range(steps))
    return {"model": model, "optimizer": optimizer}


def _moments(optimizer: torch.optim.Optimizer) -> dict[tuple[int, str], torch.Tensor]:
    return {
        (number, name): value
        for number, values in enumerate(optimizer.state.values())
        for name, value in values.items()
    }


def _address(leaf: TensorLeaf) -> int:
    assert leaf.data is not None
    return leaf.data.ctypes.data


def test_live_tensors_are_read_into_and_stay_the_same() -> None:
    """Parameters, buffers and moments keep their objects and their places."""
    saved, live = _trained(), _trained(1, steps=5)
    tree = framework.capture(saved)
    model, optimizer = live["model"], live["optimizer"]
    tensors = [*model.parameters(), *model.buffers(), *_moments(optimizer).values()]
    places = [tensor.data_ptr() for tensor in tensors]

    read = through_an_output(tree, framework.destinations(live))
    assert all(not leaf.private for leaf in read["model"].values())
    assert same(framework.capture({"model": model}), framework.capture({"model": saved["model"]}))
    framework.restore(live, read)
    assert same(framework.capture(live), tree)
    after = [*model.parameters(), *model.buffers(), *_moments(optimizer).values()]
    assert all(a is b for a, b in zip(after, tensors, strict=True))
    assert [tensor.data_ptr() for tensor in after] == places
    assert model.out.weight is model.embedding.weight


def test_nothing_is_copied_that_was_read_into_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What copying there is, is of tensors onto themselves, which PyTorch passes over."""
    saved, live = _trained(), _trained(1)
    read = through_an_output(framework.capture(saved), framework.destinations(live))
    copies: list[tuple[int, int]] = []
    copy = torch.Tensor.copy_
    clone = torch.Tensor.clone

    def noting(self: torch.Tensor, other: torch.Tensor, *args: Any) -> torch.Tensor:
        copies.append((self.data_ptr(), other.data_ptr()))
        assert self.untyped_storage()._cdata == other.untyped_storage()._cdata
        return copy(self, other, *args)

    monkeypatch.setattr(torch.Tensor, "copy_", noting)
    monkeypatch.setattr(torch.Tensor, "clone", lambda self: pytest.fail("cloned"))
    framework.restore(live, read)
    monkeypatch.setattr(torch.Tensor, "clone", clone)
    assert copies
    assert all(here == there for here, there in copies)


def test_moments_of_a_fresh_optimizer_are_kept_as_they_were_read() -> None:
    """No second copy: the array that was read is the moment, and each has its own."""
    saved = _trained()
    model = net(1)
    live = {"model": model, "optimizer": torch.optim.AdamW(model.parameters())}
    read = through_an_output(framework.capture(saved), framework.destinations(live))
    names = read["optimizer"]["state"]
    places = [_address(leaf) for values in names.values() for leaf in values.values()]
    framework.restore(live, read)
    moments = _moments(live["optimizer"])
    assert [moment.data_ptr() for moment in moments.values()] == places
    assert all(moment.data_ptr() % 64 == 0 for moment in moments.values())
    del read, names  # the moments keep their memory alive
    saved["model"].zero_grad()
    train(**saved, steps=range(3, 6))
    train(**live, steps=range(3, 6))
    assert same(framework.capture(live), framework.capture(saved))


@pytest.mark.parametrize("trained", [False, True])
def test_equal_moments_do_not_become_one(trained: bool) -> None:
    """Moments that were all zero, and stored once, are trained on each by itself."""
    saved = _trained()
    for moment in _moments(saved["optimizer"]).values():
        moment.zero_()
    live = _trained(1) if trained else _trained(1, steps=0)
    read = through_an_output(framework.capture(saved), framework.destinations(live))
    framework.restore(live, read)
    assert same(framework.capture(live), framework.capture(saved))
    for number, moment in enumerate(_moments(live["optimizer"]).values()):
        moment.fill_(number)
    for number, moment in enumerate(_moments(live["optimizer"]).values()):
        assert bool((moment == number).all())


@pytest.mark.parametrize("trained", [False, True])
def test_channels_last_parameters_are_copied_with_their_strides(trained: bool) -> None:
    """What is not contiguous cannot be read into: it gets the values and keeps its layout."""

    def make(seed: int, steps: int) -> dict[str, Any]:
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.ones(2, 3, 8, 8) * torch.rand(2, 3, 8, 8)).sum().backward()
            optimizer.step()
        return {"model": model, "optimizer": optimizer}

    saved, live = make(0, 3), make(1, 2 if trained else 0)
    weight = live["model"][0].weight
    strides = weight.stride()
    assert not weight.is_contiguous()
    for values in live["optimizer"].state.values():
        values["exp_avg"] = values["exp_avg"].contiguous()  # as some scripts make their state
    destinations = framework.destinations(live)
    assert "0.weight" not in destinations["model"]
    assert "0.bias" in destinations["model"]
    framework.restore(live, through_an_output(framework.capture(saved), destinations))
    assert same(framework.capture(live), framework.capture(saved))
    assert weight.stride() == strides
    moments = live["optimizer"].state[weight]
    assert moments["exp_avg"].stride() == moments["exp_avg_sq"].stride() == strides


class _Untied(Net):
    """The same names; the output has weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.out.weight = nn.Parameter(torch.zeros_like(self.embedding.weight))


@pytest.mark.parametrize("saved", [Net, _Untied])
@pytest.mark.parametrize("live", [Net, _Untied])
def test_tied_or_not_as_before(saved: type[Net], live: type[Net]) -> None:
    """Live ties stay, none are made, and values are those that copying in order would give."""
    torch.manual_seed(5)
    model = saved()
    tree = framework.capture({"model": model})
    copied, read_into = live(), live()
    framework.restore({"model": copied}, through_bytes(tree))
    read = through_an_output(tree, framework.destinations({"model": read_into}))
    framework.restore({"model": read_into}, read)
    assert same(
        framework.capture({"model": read_into}), through_bytes(framework.capture({"model": copied}))
    )
    tied = read_into.out.weight.data_ptr() == read_into.embedding.weight.data_ptr()
    assert tied == (live is Net)


def test_modules_that_load_in_their_own_way_are_left_to_it() -> None:
    """A module or hook that does more than copy sees its old values, and the stored ones, once."""

    class Adds(nn.Linear):
        def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
            state = {**state, f"{prefix}bias": state[f"{prefix}bias"] + self.bias.detach()}
            super()._load_from_state_dict(state, prefix, *rest)

    hooked = nn.Linear(2, 2)
    double = lambda module, state, prefix, *rest: state.update(  # noqa: E731
        {f"{prefix}bias": state[f"{prefix}bias"] * 2}
    )
    hooked.register_load_state_dict_pre_hook(double)
    model = nn.ModuleDict({"adds": Adds(2, 2), "hooked": hooked, "plain": nn.Linear(2, 2)})
    for module in model.children():
        nn.init.ones_(module.bias)  # type: ignore[arg-type]
    live = {"model": model}
    assert set(framework.destinations(live)["model"]) == {"plain.weight", "plain.bias"}
    read = through_an_output(framework.capture(live), framework.destinations(live))
    framework.restore(live, read)
    assert [float(module.bias[0]) for module in model.children()] == [2.0, 2.0, 1.0]  # type: ignore[index]

    class Loads(nn.Linear):
        def load_state_dict(self, *args: Any, **options: Any) -> Any:
            return super().load_state_dict(*args, **options)

    assert framework.destinations({"model": Loads(2, 2)}) == {"model": {}}


def test_what_belongs_to_a_schedule_is_not_read_into() -> None:
    """Continue keeps learning rates and schedules as the script made them, tensors too."""

    def make(rate: float) -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(rate), foreach=False)
        scheduler = lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    saved, live = make(0.1), make(0.7)
    for each in (saved, live):
        train(each["model"], each["optimizer"], range(2))
    read = through_an_output(framework.capture(saved), framework.destinations(live))
    rate = live["optimizer"].param_groups[0]["lr"]
    assert float(rate) == pytest.approx(0.7)
    framework.restore_for_new_budget(live, read)
    assert live["optimizer"].param_groups[0]["lr"] is rate
    assert float(rate) == pytest.approx(0.7)
    after, before = framework.capture(live), framework.capture(saved)
    assert same(after["model"], before["model"])
    assert same(after["optimizer"]["state"], before["optimizer"]["state"])


def test_live_state_of_another_dtype_or_kind_is_not_read_into() -> None:
    """A moment that is float32 now and was float16 when saved is made anew, as it was."""
    saved, live = _trained(), _trained(1)
    for values in saved["optimizer"].state.values():
        values["exp_avg"] = values["exp_avg"].half()
        values["exp_avg_sq"] = values["exp_avg_sq"].view(torch.int32)
    read = through_an_output(framework.capture(saved), framework.destinations(live))
    framework.restore(live, read)
    assert same(framework.capture(live), framework.capture(saved))


def test_private_memory_is_kept_and_other_memory_copied() -> None:
    """A user's own state may live in the memory that was read, unless others use that too."""
    tensor, tied = torch.arange(6.0), torch.arange(3)
    state = {"one": tensor, "two": tied, "three": tied, "array": tensor.numpy() + 1}
    tree = framework.capture({"mine": Remembers(state)})
    read = through_an_output(tree, {})["mine"]
    thawed = thaw(read)
    assert thawed["one"].data_ptr() == _address(read["one"])
    assert thawed["array"].ctypes.data == _address(read["array"])
    assert thawed["array"].flags.writeable
    places = {thawed["two"].data_ptr(), thawed["three"].data_ptr(), _address(read["two"])}
    assert len(places) == 3
    assert same(framework.capture({"mine": Remembers(thawed)})["mine"]["two"], tree["mine"]["two"])


def test_names_of_weights() -> None:
    """A branch needs the modules' part of a checkpoint and nothing else."""
    live = {**_trained(), "wrapped": nn.DataParallel(net()), "mine": Remembers()}
    assert framework.names_of_weights(live) == ["model", "wrapped"]
