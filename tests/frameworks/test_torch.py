"""PyTorch's objects: modules, the three ways to restore, differences, randomness, hooks."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import AveragedModel

from onward.frameworks import torch as framework
from onward.frameworks.base import Framework
from tests.frameworks.torch_training import (
    Remembers,
    net,
    same,
    through_bytes,
    train,
    without_data,
)

PROTOCOL: Framework = framework  # a module can keep a protocol; mypy checks it here


def test_parameters_stay_the_same_objects() -> None:
    """Whoever holds a parameter (an optimizer, a tie, a hook) still holds the live one."""
    model = net()
    before = {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()}
    tree = through_bytes(framework.capture({"model": net(1)}))
    framework.restore({"model": model}, tree)
    assert {name: (id(p), p.data_ptr()) for name, p in model.named_parameters()} == before
    assert model.out.weight is model.embedding.weight


def test_wrapped_models_have_the_names_of_the_model_within() -> None:
    """A checkpoint does not depend on torch.compile or data parallelism being in use."""
    plain = net()
    inner = net()
    inner.fc = torch.compile(inner.fc)  # type: ignore[assignment]
    tree = framework.capture({"model": plain})
    for wrapped in (torch.compile(net(1)), nn.DataParallel(net(1)), inner):
        assert framework.differences({"model": wrapped}, tree) == []
        framework.restore({"model": wrapped}, through_bytes(tree))
        assert same(framework.capture({"model": wrapped}), tree)
    optimizer = torch.optim.SGD(inner.parameters(), lr=0.1)
    groups = framework.capture({"model": inner, "optimizer": optimizer})["optimizer"][
        "param_groups"
    ]
    assert groups[0]["params"][1] == "model.fc.weight"


def test_extra_state_of_a_module_is_kept() -> None:
    """What a module gives as extra state comes back as it was."""

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: Any = None

        def get_extra_state(self) -> Any:
            return self.seen

        def set_extra_state(self, state: Any) -> None:
            self.seen = state

    model, other = Counting(), Counting()
    model.seen = {"count": 3, "mean": torch.tensor([1.5]), "shape": torch.Size([2, 3])}
    framework.restore({"model": other}, through_bytes(framework.capture({"model": model})))
    assert other.seen["count"] == 3
    assert torch.equal(other.seen["mean"], torch.tensor([1.5]))
    assert type(other.seen["shape"]) is torch.Size


def test_all_differences_are_listed_and_nothing_is_touched() -> None:
    """Names, shapes, dtypes, optimizer groups and missing objects, in one list."""
    small = nn.Sequential(nn.Linear(4, 10), nn.Linear(10, 2), nn.BatchNorm1d(2))
    groups = [{"params": small[0].parameters()}, {"params": small[1].parameters()}]
    saved = {
        "model": small,
        "optimizer": torch.optim.SGD(groups, lr=0.1),
        "adam": torch.optim.Adam(small.parameters()),
        "scheduler": lr_scheduler.ExponentialLR(torch.optim.SGD(small.parameters()), 0.9),
        "ema": AveragedModel(small),
    }
    tree = without_data(framework.capture(saved))
    big = nn.Sequential(nn.Linear(4, 12), nn.Linear(12, 2, bias=False), nn.Linear(2, 2))
    big[2].to(torch.float64)
    sgd = torch.optim.SGD(
        [{"params": big[0].parameters()}, {"params": [*big[1].parameters(), big[2].bias]}], lr=0.1
    )
    live = {
        "model": big,
        "optimizer": sgd,
        "adam": torch.optim.AdamW(big.parameters()),
        "scheduler": lr_scheduler.CosineAnnealingLR(sgd, 3),
        "scaler": torch.amp.GradScaler("cpu"),
    }
    before = through_bytes(framework.capture(live))
    assert framework.differences(live, tree) == [
        "model.0.weight: the checkpoint has F32 [10, 4], the live model F32 [12, 4]",
        "model.0.bias: the checkpoint has F32 [10], the live model F32 [12]",
        "model.1.weight: the checkpoint has F32 [2, 10], the live model F32 [2, 12]",
        "model.2.weight: the checkpoint has F32 [2], the live model F64 [2, 2]",
        "model.2.bias: the checkpoint has F32 [2], the live model F64 [2]",
        "model.1.bias: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.running_mean: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.running_var: the checkpoint has it F32 [2], the live model has no such entry",
        "model.2.num_batches_tracked: the checkpoint has it I64 [], "
        "the live model has no such entry",
        "optimizer.param_groups[1]: the checkpoint has no model.2.bias",
        "optimizer.param_groups[1]: the checkpoint has model.1.bias, the live one does not",
        "adam: the checkpoint has Adam, the live one is AdamW",
        "scheduler: the checkpoint has ExponentialLR, the live one is CosineAnnealingLR",
        "scaler: the checkpoint has no such object",
        "ema: the checkpoint has it, but it was not given (pass ema=…)",
    ]
    assert same(framework.capture(live), before)


def test_optimizer_groups_of_another_number_or_order_differ() -> None:
    """The number of groups and the order within one are compared too."""
    model = nn.Linear(2, 2)
    one = torch.optim.SGD(model.parameters(), lr=0.1)
    turned = torch.optim.SGD([model.bias, model.weight], lr=0.1)
    two = torch.optim.SGD([{"params": [model.weight]}, {"params": [model.bias]}], lr=0.1)
    tree = framework.capture({"model": model, "o": one})
    assert framework.differences({"model": model, "o": two}, tree) == [
        "o: the checkpoint has 1 parameter groups (of 2 parameters), the live one has 2 (of 1, 1)"
    ]
    assert framework.differences({"model": model, "o": turned}, tree) == [
        "o.param_groups[0]: the checkpoint has the same parameters in another order"
    ]


def test_a_finished_run_trains_its_new_budget_on_the_fresh_schedule() -> None:
    """Continue: all that was learned comes back, and the learning rate does not stay at zero."""

    def make(steps: int) -> dict[str, Any]:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps),
            "ema": AveragedModel(model),
            "mine": Remembers({"count": 0}),
        }

    finished = make(5)
    train(
        finished["model"],
        finished["optimizer"],
        range(5),
        scheduler=finished["scheduler"],
        ema=finished["ema"],
    )
    finished["mine"].state = {"count": 5}
    assert framework.learning_rates(finished["optimizer"]) == [0.0]
    tree = through_bytes(framework.capture(finished))

    live = make(20)
    expected_schedule = copy.deepcopy(live["scheduler"].state_dict())
    assert framework.differences_for_new_budget(live, without_data(tree)) == []
    framework.restore_for_new_budget(live, tree)
    assert framework.learning_rates(live["optimizer"]) == [0.1]
    assert live["scheduler"].state_dict() == expected_schedule
    after = framework.capture(live)
    for key in ("model", "ema", "mine"):
        assert same(after[key], tree[key])
    assert same(after["optimizer"]["state"], tree["optimizer"]["state"])
    train(live["model"], live["optimizer"], range(2), scheduler=live["scheduler"])
    assert framework.learning_rates(live["optimizer"])[0] > 0.09


def test_a_new_budget_may_have_another_schedule_or_none() -> None:
    """Schedules belong to a budget; everything else must still fit."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = lr_scheduler.ExponentialLR(optimizer, 0.9)
    without = {"model": model, "optimizer": optimizer}
    with_one = {**without, "scheduler": scheduler}
    cosine = {**without, "scheduler": lr_scheduler.CosineAnnealingLR(optimizer, 3)}
    saved = framework.capture(with_one)
    for objects in (without, with_one, cosine):
        assert framework.differences_for_new_budget(objects, saved) == []
        framework.restore_for_new_budget(objects, through_bytes(saved))
    assert framework.differences_for_new_budget(with_one, framework.capture(without)) == []
    assert framework.differences_for_new_budget({"model": model}, saved) == [
        "optimizer: the checkpoint has it, but it was not given (pass optimizer=…)"
    ]


def test_a_branch_takes_the_weights_and_nothing_else() -> None:
    """Modules, averaged ones too, come from the checkpoint; the optimizer starts fresh."""
    model = net()
    objects = {
        "model": model,
        "ema": AveragedModel(model),
        "optimizer": torch.optim.AdamW(model.parameters(), lr=0.1),
    }
    train(**objects, steps=range(3))
    tree = through_bytes(framework.capture(objects))
    other = net(3)
    branch = {
        "model": other,
        "ema": AveragedModel(other),
        "optimizer": torch.optim.SGD(other.parameters(), lr=0.5),
    }
    assert framework.differences_in_weights(branch, tree) == []
    framework.restore_weights(branch, tree)
    after = framework.capture(branch)
    assert same(after["model"], tree["model"])
    assert same(after["ema"], tree["ema"])
    assert framework.learning_rates(branch["optimizer"]) == [0.5]
    assert len(branch["optimizer"].state) == 0
    assert framework.differences_in_weights({"net": other}, tree) == [
        "net: the checkpoint has no such object"
    ]


def test_global_randomness_comes_back_exactly() -> None:
    """Python, NumPy (with its spare Gaussian) and PyTorch draw on as they would have."""

    def draw() -> list[Any]:
        return [
            random.random(),
            random.gauss(0, 1),
            np.random.standard_normal(3).tolist(),
            torch.rand(3).tolist(),
        ]

    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    random.gauss(0, 1)
    np.random.standard_normal(1)  # leaves a spare one in each
    tree = through_bytes(framework.capture_randomness())
    expected = draw()
    draw()
    framework.restore_randomness(tree)
    assert draw() == expected


def test_randomness_of_devices_that_are_gone_is_passed_over() -> None:
    """A checkpoint from a machine with accelerators can be restored on one without."""
    tree = framework.capture_randomness()
    tree["devices"]["cuda"] = [tree["torch"]]
    if not torch.cuda.is_available():
        framework.restore_randomness(tree)


def test_another_global_bit_generator_of_numpy_comes_back_too() -> None:
    """NumPy's global generator may have been exchanged; its state says which it is."""
    from numpy.random.mtrand import get_bit_generator, set_bit_generator

    before = get_bit_generator()
    try:
        set_bit_generator(np.random.PCG64(5))
        tree = through_bytes(framework.capture_randomness())
        expected = np.random.random(3).tolist()
        framework.restore_randomness(tree)
        assert np.random.random(3).tolist() == expected
    finally:
        set_bit_generator(before)


def test_steps_are_counted_until_the_hook_is_removed() -> None:
    """Every step that the optimizer takes calls back once."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    calls: list[int] = []
    remove = framework.after_optimizer_step(optimizer, lambda: calls.append(1))
    assert remove is not None
    train(model, optimizer, range(3))
    remove()
    train(model, optimizer, range(1))
    assert len(calls) == 3
    assert framework.after_optimizer_step(model, lambda: None) is None
    assert framework.learning_rates(model) == []


def test_models_evaluate_without_gradients_and_are_then_as_before() -> None:
    """Each module has its own mode back, also where training only uses a part."""
    model = net()
    model.norm.eval()
    with framework.evaluating({"model": model, "ema": AveragedModel(model)}):
        assert not model.training
        assert not model.drop.training
        assert not model(torch.arange(4)).requires_grad
    assert model.training
    assert model.drop.training
    assert not model.norm.training
