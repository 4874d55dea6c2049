"""Optimizers, and what drives or follows them, go on as if training had never stopped."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from onward.frameworks import torch as framework
from tests.frameworks.torch_training import (
    check_resumed_equals_uninterrupted,
    net,
    same,
    through_bytes,
    train,
)


def matrices(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.ndim == 2]


OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adadelta": lambda m: torch.optim.Adadelta(m.parameters()),
    "adafactor": lambda m: torch.optim.Adafactor(m.parameters()),
    "adagrad": lambda m: torch.optim.Adagrad(m.parameters(), lr_decay=0.1),
    "adam amsgrad": lambda m: torch.optim.Adam(m.parameters(), amsgrad=True),
    "adam with a tensor as learning rate": lambda m: torch.optim.Adam(
        m.parameters(), lr=torch.tensor(0.01), foreach=False
    ),
    "adamax": lambda m: torch.optim.Adamax(m.parameters()),
    "adamw for-loop": lambda m: torch.optim.AdamW(m.parameters(), foreach=False),
    "adamw foreach": lambda m: torch.optim.AdamW(m.parameters(), foreach=True),
    "adamw fused": lambda m: torch.optim.AdamW(m.parameters(), fused=True),
    "asgd": lambda m: torch.optim.ASGD(m.parameters(), t0=3),
    "lbfgs": lambda m: torch.optim.LBFGS(m.parameters(), lr=0.1, max_iter=3, history_size=4),
    "nadam": lambda m: torch.optim.NAdam(m.parameters()),
    "radam": lambda m: torch.optim.RAdam(m.parameters()),
    "rmsprop centred": lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.9, centered=True),
    "rprop": lambda m: torch.optim.Rprop(m.parameters()),
    "sgd": lambda m: torch.optim.SGD(m.parameters(), lr=0.1),
    "sgd momentum fused": lambda m: torch.optim.SGD(
        m.parameters(), lr=0.1, momentum=0.9, fused=True
    ),
    "sgd momentum": lambda m: torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9, nesterov=True),
}


if hasattr(torch.optim, "Muon"):  # since PyTorch 2.9
    OPTIMIZERS["muon"] = lambda m: torch.optim.Muon(matrices(m))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_each_optimizer_of_torch_goes_on_as_if_never_stopped(name: str) -> None:
    """Capture, bytes, restore into other objects, train on: the same bits as without a stop."""

    def make() -> dict[str, Any]:
        model = net()
        return {"model": model, "optimizer": OPTIMIZERS[name](model)}

    check_resumed_equals_uninterrupted(make)


def test_every_optimizer_of_torch_is_tested() -> None:
    """A new optimizer in PyTorch must not go unnoticed."""
    kinds = {
        kind.__name__
        for kind in vars(torch.optim).values()
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)
    }
    model = net()
    made = {type(make(model)).__name__ for name, make in OPTIMIZERS.items()}
    assert kinds - made <= {"Optimizer", "SparseAdam"}


def test_sparse_gradients_of_an_embedding() -> None:
    """SparseAdam keeps dense moments for sparse gradients."""

    def make() -> dict[str, Any]:
        torch.manual_seed(0)
        table = nn.Embedding(20, 3, sparse=True)
        return {"model": table, "optimizer": torch.optim.SparseAdam(table.parameters())}

    def steps(table: nn.Embedding, optimizer: torch.optim.Optimizer, which: range) -> None:
        for step in which:
            optimizer.zero_grad()
            table(torch.tensor([step, step + 1])).sum().backward()
            optimizer.step()

    whole, first, second = make(), make(), make()
    steps(whole["model"], whole["optimizer"], range(6))
    steps(first["model"], first["optimizer"], range(3))
    framework.restore(second, through_bytes(framework.capture(first)))
    steps(second["model"], second["optimizer"], range(3, 6))
    assert same(framework.capture(second), framework.capture(whole))


@pytest.mark.parametrize("fused", [False, True])
def test_float32_moments_of_bfloat16_parameters_are_not_rounded(fused: bool) -> None:
    """The dtype of optimizer state is the state's own, whatever its parameter has."""
    model = net(dtype=torch.bfloat16)
    optimizer = torch.optim.AdamW(model.parameters(), fused=fused)
    train(model, optimizer, range(3))
    for values in optimizer.state.values():
        for name in ("exp_avg", "exp_avg_sq"):
            values[name] = values[name].float() + 1e-9
    tree = through_bytes(framework.capture({"model": model, "optimizer": optimizer}))

    other = net(1, dtype=torch.bfloat16)
    fresh = torch.optim.AdamW(other.parameters(), fused=fused)
    framework.restore({"model": other, "optimizer": fresh}, tree)
    moments = [values["exp_avg"] for values in fresh.state.values()]
    assert {moment.dtype for moment in moments} == {torch.float32}
    assert same(framework.capture({"model": other, "optimizer": fresh}), tree)


def test_state_of_a_channels_last_parameter_has_its_strides_again() -> None:
    """Kernels may round differently over other layouts, so moments get the layout they had."""
    torch.manual_seed(0)
    model = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    objects = {"model": model, "optimizer": optimizer}
    tree = through_bytes(framework.capture(objects))
    framework.restore(objects, tree)
    moment = optimizer.state[model.weight]["exp_avg"]
    assert moment.stride() == model.weight.stride()
    assert same(framework.capture(objects), tree)


def test_state_is_cleared_for_parameters_that_had_none() -> None:
    """After a restore the optimizer knows what the checkpoint knew and nothing else."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    objects = {"model": model, "optimizer": optimizer}
    fresh = through_bytes(framework.capture(objects))
    train(model, optimizer, range(2))
    assert len(optimizer.state) > 0
    framework.restore(objects, fresh)
    assert len(optimizer.state) == 0


def test_optimizer_state_goes_by_name_and_unnamed_parameters_by_place() -> None:
    """Names come from the modules that were given; other parameters have a place in a group."""
    model, loose = net(), nn.Parameter(torch.ones(2))
    optimizer = torch.optim.SGD(
        [{"params": [model.fc.weight]}, {"params": [loose], "lr": 0.5}], lr=0.1, momentum=0.9
    )
    (model.fc.weight.sum() + loose.sum()).backward()
    optimizer.step()
    tree = framework.capture({"net": model, "sgd": optimizer})["sgd"]
    assert tree["type"] == "SGD"
    assert [group["params"] for group in tree["param_groups"]] == [
        ["net.fc.weight"],
        ["group1.param0"],
    ]
    assert set(tree["state"]) == {"net.fc.weight", "group1.param0"}


def test_optimizer_with_its_own_verbs_uses_them() -> None:
    """A subclass that overrides state_dict or load_state_dict knows more than we do."""

    class Own(torch.optim.SGD):
        extra = 0

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "extra": self.extra}

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            self.extra = state_dict["extra"]
            super().load_state_dict({k: v for k, v in state_dict.items() if k != "extra"})

    def make() -> dict[str, Any]:
        model = net()
        return {"model": model, "optimizer": Own(model.parameters(), lr=0.1, momentum=0.9)}

    check_resumed_equals_uninterrupted(make)
    objects = make()
    objects["optimizer"].extra = 7
    tree = through_bytes(framework.capture(objects))
    other = make()
    other["optimizer"].param_groups[0]["lr"] = 0.3
    framework.restore_for_new_budget(other, tree)
    assert other["optimizer"].extra == 7
    assert framework.learning_rates(other["optimizer"]) == [0.3]


class Warmup:
    """A callable with state, as LambdaLR keeps it."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, step: int) -> float:
        self.calls += 1
        return min(1.0, (step + self.calls) / 20)


def warm_then_cosine(o: torch.optim.Optimizer) -> lr_scheduler.LRScheduler:
    return lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 6)],
        milestones=[3],
    )


SCHEDULERS: dict[str, Callable[[torch.optim.Optimizer], lr_scheduler.LRScheduler]] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "warm-up then cosine": warm_then_cosine,
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, max_lr=0.2, total_steps=10),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, [2, 6, 6]),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.1, 4), lr_scheduler.ExponentialLR(o, 0.9)]
    ),
    "function": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "callable object": lambda o: lr_scheduler.LambdaLR(o, Warmup()),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1, factor=0.5),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "stochastic averaging": lambda o: torch.optim.swa_utils.SWALR(o, swa_lr=0.01, anneal_epochs=4),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_go_on_where_they_were(name: str) -> None:
    """A scheduler and the optimizer it drives resume together, bit for bit."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}

    check_resumed_equals_uninterrupted(make)


def test_a_learning_rate_that_is_a_tensor_stays_the_same_tensor() -> None:
    """A captured CUDA graph reads the tensor, so its value changes and not its place."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(0.1), foreach=False)
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=9)
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    check_resumed_equals_uninterrupted(make)
    objects = make()
    tree = through_bytes(framework.capture(objects))
    held = objects["optimizer"].param_groups[0]["lr"]
    train(steps=range(4), **objects)
    framework.restore(objects, tree)
    assert objects["optimizer"].param_groups[0]["lr"] is held
    assert held.item() == torch.tensor(0.1).item()


def test_averaged_model_scaler_and_generator_are_restored() -> None:
    """Averages keep their count, the scaler its scale and tracker, a generator its place."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters())
        ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        return {"model": model, "optimizer": optimizer, "ema": ema}

    check_resumed_equals_uninterrupted(make)

    def scaler() -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)

    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    live = scaler()
    for _ in range(4):
        live.scale(model(torch.arange(11)).sum()).backward()
        live.step(optimizer)
        live.update()
    generator = torch.Generator().manual_seed(5)
    torch.rand(3, generator=generator)
    tree = through_bytes(framework.capture({"scaler": live, "generator": generator}))
    others = {"scaler": scaler(), "generator": torch.Generator()}
    assert framework.differences(others, tree) == []
    framework.restore(others, tree)
    assert others["scaler"].state_dict() == live.state_dict()
    assert live.state_dict()["_growth_tracker"] == 1
    assert torch.equal(
        torch.rand(4, generator=others["generator"]), torch.rand(4, generator=generator)
    )
    disabled = {"scaler": torch.amp.GradScaler("cpu", enabled=False), "generator": generator}
    assert framework.differences(disabled, tree) == [
        "scaler: the checkpoint has it enabled, the live one is disabled"
    ]
