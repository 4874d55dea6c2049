"""MindSpore's optimizers, and what drives them, go on as if training had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import nn
from mindspore.experimental import optim
from mindspore.experimental.optim import lr_scheduler
from mindspore.mint import optim as mint_optim

from onward.errors import UsageError
from onward.frameworks import mindspore as framework
from tests.frameworks.mindspore_training import (
    at_once,
    check_resumed_equals_uninterrupted,
    net,
    same,
    through_bytes,
    train,
)


@pytest.fixture(autouse=True)
def _operators_run_at_once() -> Iterator[None]:
    with at_once():
        yield


def groups(model: Any) -> list[dict[str, Any]]:
    """Two groups: a rate and a decay of its own for what is normalised or embedded."""
    chosen = [p for p in model.trainable_params() if "norm" in p.name or "embedding" in p.name]
    rest = [p for p in model.trainable_params() if all(p is not other for other in chosen)]
    return [{"params": chosen, "lr": 0.01, "weight_decay": 0.1}, {"params": rest}]


def table(steps: int = 6) -> list[float]:
    return [0.1 / (1 + step) for step in range(steps)]


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "adadelta": lambda m: nn.Adadelta(m.trainable_params()),
    "adagrad": lambda m: nn.Adagrad(m.trainable_params(), accum=0.2),
    "adam": lambda m: nn.Adam(m.trainable_params(), 0.01),
    "adam amsgrad": lambda m: nn.Adam(m.trainable_params(), 0.01, use_amsgrad=True),
    "adam nesterov": lambda m: nn.Adam(m.trainable_params(), 0.01, use_nesterov=True),
    "adam in groups": lambda m: nn.Adam(groups(m), 0.02, weight_decay=0.01),
    "adam offload": lambda m: nn.AdamOffload(m.trainable_params(), 0.01),
    "adam with decay": lambda m: nn.AdamWeightDecay(m.trainable_params(), 0.01, weight_decay=0.1),
    "adamax": lambda m: nn.AdaMax(m.trainable_params(), 0.01),
    "asgd": lambda m: nn.ASGD(m.trainable_params(), 0.05, t0=2.0),
    "ftrl": lambda m: nn.FTRL(m.trainable_params(), learning_rate=0.05),
    "lamb": lambda m: nn.Lamb(m.trainable_params(), 0.01, weight_decay=0.1),
    "lars": lambda m: nn.LARS(nn.Momentum(m.trainable_params(), 0.1, 0.9)),
    "lazy adam": lambda m: nn.LazyAdam(m.trainable_params(), 0.01),
    "momentum": lambda m: nn.Momentum(m.trainable_params(), 0.1, 0.9),
    "momentum, table": lambda m: nn.Momentum(m.trainable_params(), table(), 0.9),
    "momentum, schedule": lambda m: nn.Momentum(
        m.trainable_params(), nn.CosineDecayLR(0.0, 0.1, 6), 0.9
    ),
    "momentum, schedule of the decay": lambda m: nn.Momentum(
        m.trainable_params(), 0.1, 0.9, weight_decay=nn.ExponentialDecayLR(0.1, 0.5, 4)
    ),
    "momentum, tables in groups": lambda m: nn.Momentum(
        [{**groups(m)[0], "lr": table()}, groups(m)[1]], 0.05, 0.9
    ),
    "momentum in groups": lambda m: nn.Momentum(groups(m), 0.1, 0.9, use_nesterov=True),
    "proximal adagrad": lambda m: nn.ProximalAdagrad(m.trainable_params(), learning_rate=0.05),
    "rmsprop": lambda m: nn.RMSProp(m.trainable_params(), 0.01, momentum=0.9),
    "rmsprop centred": lambda m: nn.RMSProp(m.trainable_params(), 0.01, centered=True),
    "rprop": lambda m: nn.Rprop(m.trainable_params(), 0.01),
    "sgd": lambda m: nn.SGD(m.trainable_params(), 0.1),
    "sgd momentum": lambda m: nn.SGD(m.trainable_params(), 0.1, momentum=0.9),
}
EXPERIMENTAL: dict[str, Callable[[Any], Any]] = {
    "adadelta": lambda m: optim.Adadelta(m.trainable_params()),
    "adagrad": lambda m: optim.Adagrad(
        m.trainable_params(), lr_decay=0.1, initial_accumulator_value=0.3
    ),
    "adam": lambda m: optim.Adam(m.trainable_params(), lr=0.01),
    "adam amsgrad": lambda m: optim.Adam(m.trainable_params(), lr=0.01, amsgrad=True),
    "adamax": lambda m: optim.Adamax(m.trainable_params(), lr=0.01),
    "adamw": lambda m: optim.AdamW(m.trainable_params(), lr=0.01),
    "adamw in groups": lambda m: optim.AdamW(groups(m), lr=0.02, weight_decay=0.3),
    "asgd": lambda m: optim.ASGD(m.trainable_params(), lr=0.05, t0=2.0),
    "nadam": lambda m: optim.NAdam(m.trainable_params(), lr=0.01),
    "radam": lambda m: optim.RAdam(m.trainable_params(), lr=0.01),
    "rmsprop": lambda m: optim.RMSprop(m.trainable_params(), lr=0.01, momentum=0.9, centered=True),
    "rprop": lambda m: optim.Rprop(m.trainable_params(), lr=0.01),
    "sgd": lambda m: optim.SGD(m.trainable_params(), lr=0.1, momentum=0.9),
}
NO_KERNEL = {"lamb", "lars"}
"""Those that MindSpore has no kernel for on a CPU: their state is moved, but they cannot step."""
ALL = OPTIMIZERS | {f"experimental {name}": make for name, make in EXPERIMENTAL.items()}


def objects(name: str) -> dict[str, Any]:
    model = net()
    return {"model": model, "optimizer": ALL[name](model)}


@pytest.mark.parametrize("name", sorted(ALL.keys() - NO_KERNEL))
def test_each_optimizer_goes_on_as_if_never_stopped(name: str) -> None:
    """Capture, bytes, restore into other objects, train on: the same bits as without a stop."""
    check_resumed_equals_uninterrupted(lambda: objects(name))


@pytest.mark.parametrize("name", sorted(NO_KERNEL))
def test_state_of_an_optimizer_without_a_kernel_here_is_moved_whole(name: str) -> None:
    """Every slot and number of it comes back into another one."""
    saved, live = objects(name), objects(name)
    for parameter in saved["optimizer"].get_parameters():
        if parameter.dtype == ms.float32:
            parameter.asnumpy()[...] += np.float32(0.25)
    tree = through_bytes(framework.capture(saved))
    assert not same(framework.capture(live), tree)
    assert framework.differences(live, tree) == []
    framework.restore(live, tree)
    assert same(framework.capture(live), tree)
    values = {p.name: p.asnumpy() for p in saved["optimizer"].get_parameters()}
    for parameter in live["optimizer"].get_parameters():
        if "fake" not in parameter.name:  # LARS's own, which nobody reads
            assert np.array_equal(parameter.asnumpy(), values[parameter.name]), parameter.name


def test_lars_has_the_rate_and_the_steps_of_the_optimizer_within() -> None:
    """A wrapper's own rate is a zero that nobody reads; a run would say that nothing is learned."""
    lars = objects("lars")["optimizer"]
    framework.set_learning_rates(lars, [0.25])
    assert framework.learning_rates(lars) == [0.25]
    assert float(lars.opt.learning_rate.asnumpy()) == 0.25


def test_every_optimizer_of_mindspore_is_tested() -> None:
    """A new optimizer in MindSpore must not go unnoticed."""

    def kinds(module: Any, base: type) -> set[type]:
        found = (v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base))
        return {kind for kind in found if kind is not base}

    elsewhere = {nn.AdaFactor, nn.OptTFTWrapper}  # on Ascend only
    made = {type(objects(name)["optimizer"]) for name in ALL}
    assert kinds(nn, nn.Optimizer) - made == elsewhere
    assert kinds(optim, optim.Optimizer) - made == set()
    for kind in kinds(mint_optim, optim.Optimizer):  # the same protocol; no kernels on a CPU
        assert issubclass(kind, framework.OPTIMIZERS)


@pytest.mark.parametrize("name", sorted(ALL.keys() - NO_KERNEL))
def test_an_optimizer_that_forgot_trains_like_a_fresh_one(name: str) -> None:
    """Slots, powers and counts as when it was made: the next steps have the same bits."""
    one, fresh = objects(name), objects(name)
    train(steps=range(1), **one)
    weights = through_bytes(framework.capture({"model": one["model"]}))
    framework.forget_moments(one["optimizer"])
    framework.restore_weights({"model": fresh["model"]}, weights)
    scheduled = framework.has_schedule(one)
    if scheduled:  # where the schedule stands is no moment
        fresh["optimizer"].global_step.copy_(one["optimizer"].global_step)
    assert same(framework.capture(one), framework.capture(fresh))
    train(steps=range(1, 2), **one)
    train(steps=range(1, 2), **fresh)
    assert same(framework.capture(one), framework.capture(fresh))


@pytest.mark.parametrize("name", ["momentum in groups", "experimental adamw in groups", "adam"])
def test_learning_rates_are_set_group_by_group(name: str) -> None:
    """What is set is what the next step uses: it equals an optimizer that was built with it."""
    one = objects(name)
    rates = [0.5, 0.25][: len(framework.learning_rates(one["optimizer"]))]
    framework.set_learning_rates(one["optimizer"], rates)
    assert framework.learning_rates(one["optimizer"]) == rates
    before = through_bytes(framework.capture({"model": one["model"]}))
    train(steps=range(1), **one)
    assert not same(framework.capture({"model": one["model"]}), before)
    other = objects(name)
    train(steps=range(1), **other)
    assert not same(framework.capture(one), framework.capture(other))


@pytest.mark.parametrize("name", [name for name in ALL if "table" in name or "schedule" in name])
def test_a_schedule_of_the_optimizers_own_cannot_be_set(name: str) -> None:
    """It says so, and what to do; a plan leaves such a rate alone."""
    one = objects(name)
    assert framework.has_schedule(one)
    if name == "momentum, schedule of the decay":
        return  # its rate is a number, which can be set
    with pytest.raises(UsageError, match="schedule of its own"):
        framework.set_learning_rates(one["optimizer"], framework.learning_rates(one["optimizer"]))


def test_a_table_of_rates_has_the_rate_of_the_next_step() -> None:
    """`learning_rates` reads it where `global_step` stands, and after its end the last one."""
    one = objects("momentum, table")
    rates = [framework.learning_rates(one["optimizer"])[0]]
    for step in range(6):  # MindSpore itself refuses a step beyond the table's end
        train(steps=range(step, step + 1), **one)
        rates.append(framework.learning_rates(one["optimizer"])[0])
    expected = np.array([*table(), table()[-1]], np.float32)
    assert np.array_equal(np.array(rates, np.float32), expected)
    with pytest.raises(UsageError, match="a schedule"):
        framework.set_learning_rates(one["optimizer"], [0.1])


@pytest.mark.parametrize(
    "name", ["momentum", "lazy adam", "experimental adam", "experimental nadam"]
)
def test_steps_are_counted_by_the_optimizer(name: str) -> None:
    """Where MindSpore counts, by whatever name, a run can tell a step from a micro-batch."""
    one = objects(name)
    assert framework.optimizer_steps(one["optimizer"]) == 0
    train(steps=range(3), **one)
    assert framework.optimizer_steps(one["optimizer"]) == 3
    assert framework.optimizer_steps(one["model"]) is None


def test_differences_of_optimizers_are_listed() -> None:
    """Another class, other parameters, other slots."""
    saved = framework.capture(objects("adam"))
    assert framework.differences(objects("momentum"), saved) == [
        "optimizer: the checkpoint has Adam, the live one is Momentum"
    ]
    assert "optimizer.state[model.fc.weight]: vhat is not in the checkpoint" in (
        framework.differences(objects("adam amsgrad"), saved)
    )
    model = net()
    partly = {"model": model, "optimizer": nn.Adam([model.fc.weight], 0.01)}
    assert (
        "optimizer: the checkpoint has model.fc.bias, the live one does not"
        in framework.differences(partly, saved)
    )
    lars = framework.capture(objects("lars"))
    assert len(framework.differences(objects("momentum"), lars)) == 1


def test_a_new_budget_keeps_moments_and_begins_the_table_anew() -> None:
    """Continue: `global_step` is where the table stands, and begins with it; moments stay."""
    finished = objects("momentum, table")
    train(steps=range(6), **finished)
    tree = through_bytes(framework.capture(finished))
    live = objects("momentum, table")
    framework.restore_for_new_budget(live, tree)
    assert framework.learning_rates(live["optimizer"])[0] == np.float32(0.1)
    after = framework.capture(live)["optimizer"]
    assert same(after["state"], tree["optimizer"]["state"])
    plain = objects("adam")
    train(steps=range(2), **plain)
    framework.set_learning_rates(plain["optimizer"], [0.5])
    other = objects("adam")
    framework.restore_for_new_budget(other, through_bytes(framework.capture(plain)))
    assert framework.learning_rates(other["optimizer"])[0] == np.float32(0.01)
    assert framework.optimizer_steps(other["optimizer"]) == 2  # Adam's bias correction goes on


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=9),
    "warm restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3),
    "constant": lambda o: lr_scheduler.ConstantLR(o, 0.1, 4),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "function": lambda o: lr_scheduler.LambdaLR(o, [lambda step: 0.9**step]),
    "linear": lambda o: lr_scheduler.LinearLR(o, 0.1, total_iters=4),
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, [lambda step: 0.95]),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, factor=0.5),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, total_iters=9),
    "steps": lambda o: lr_scheduler.StepLR(o, 2),
    "warm-up then cosine": lambda o: lr_scheduler.SequentialLR(
        o,
        [lr_scheduler.LinearLR(o, 0.1, total_iters=3), lr_scheduler.CosineAnnealingLR(o, 6)],
        milestones=[3],
    ),
}


@pytest.mark.parametrize("name", SCHEDULERS)
def test_schedules_go_on_where_they_were(name: str) -> None:
    """A scheduler and the optimizer it drives resume together, bit for bit."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = optim.SGD(model.trainable_params(), lr=0.1, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "scheduler": SCHEDULERS[name](optimizer)}

    check_resumed_equals_uninterrupted(make)


def test_every_scheduler_of_mindspore_is_tested() -> None:
    """A new scheduler in MindSpore must not go unnoticed."""
    kinds = {
        kind
        for kind in vars(lr_scheduler).values()
        if isinstance(kind, type) and issubclass(kind, lr_scheduler.LRScheduler)
    }
    optimizer = optim.SGD(net().trainable_params(), lr=0.1)
    made = {type(make(optimizer)) for make in SCHEDULERS.values()}
    assert kinds - made <= {lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau}
    assert lr_scheduler.ReduceLROnPlateau in made
