"""MindSpore's objects: cells, the three ways to restore, differences, randomness, growth."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import Generator, Parameter, Tensor, amp, nn, ops
from mindspore.experimental import optim
from mindspore.experimental.optim import lr_scheduler
from mindspore.nn.utils import no_init_parameters
from mindspore.train import DynamicLossScaleManager, Model

import onward
from onward.errors import Mismatch, Unstorable, UsageError
from onward.frameworks import mindspore as framework
from onward.frameworks.base import Framework
from onward.frameworks.growth import Table
from onward.repository import open_repository, read_state
from onward.stores import open_store
from tests.frameworks.mindspore_training import (
    Net,
    Remembers,
    at_once,
    check_resumed_equals_uninterrupted,
    net,
    same,
    through_bytes,
    train,
    without_data,
)

PROTOCOL: Framework = framework  # a module can keep a protocol; mypy checks it here


@pytest.fixture(autouse=True)
def _operators_run_at_once() -> Iterator[None]:
    with at_once():
        yield


def adam(model: Any) -> Any:
    return nn.Adam(model.trainable_params(), 0.01)


def test_parameters_stay_the_same_objects_in_the_same_memory() -> None:
    """Whoever holds a parameter (an optimizer, a tie, a graph) still holds the live one."""
    model = net()

    def places() -> dict[str, Any]:
        return {
            name: (id(p), p.asnumpy().__array_interface__["data"][0])
            for name, p in model.parameters_and_names()
        }

    before = places()
    framework.restore({"model": model}, through_bytes(framework.capture({"model": net(1)})))
    assert places() == before
    assert same(framework.capture({"model": model}), framework.capture({"model": net(1)}))
    assert model.out.weight is model.embedding.embedding_table


def test_buffers_are_saved_but_for_those_that_shall_not_be() -> None:
    """Statistics of normalisation and buffers are in the tree; non-persistent ones are not."""
    model = net()
    train(model, adam(model), range(1))
    tree = framework.capture({"model": model})["model"]
    assert set(tree) == {
        "embedding.embedding_table", "fc.weight", "fc.bias", "norm.gamma", "norm.beta",
        "norm.moving_mean", "norm.moving_variance", "scale",
    }  # fmt: skip
    assert tree["norm.moving_mean"].data.any()
    other = net(1)
    other.scale.asnumpy()[...] = 7
    framework.restore({"model": other}, through_bytes({"model": tree}))
    assert other.scale.asnumpy().tolist() == [0.5] * 8


def test_a_tied_parameter_is_one_entry_and_stays_tied() -> None:
    """MindSpore names it once; equal values in two places are two tensors."""
    tied = framework.capture({"model": net()})["model"]
    assert "out.weight" not in tied
    model = net()
    model.out.weight = Parameter(model.embedding.embedding_table.asnumpy().copy(), name="apart")
    apart = framework.capture({"model": model})["model"]
    one, other = apart["out.weight"], apart["embedding.embedding_table"]
    assert np.array_equal(one.data, other.data)
    assert one.identity != other.identity
    assert framework.differences({"model": model}, {"model": without_data(tied)}) == [
        "model.out.weight: the checkpoint has no such entry"
    ]


def test_names_are_paths_in_the_network_not_names_of_parameters() -> None:
    """`Parameter.name` changes when a cell becomes part of another one; the path does not."""
    model = net()
    before = list(framework.capture({"model": model})["model"])
    nn.WithLossCell(model, nn.CrossEntropyLoss())
    for parameter in model.get_parameters():
        parameter.name = f"other.{parameter.name}"
    assert list(framework.capture({"model": model})["model"]) == before


@pytest.mark.parametrize("mode", [ms.PYNATIVE_MODE, ms.GRAPH_MODE])
def test_a_network_comes_back_bit_for_bit_through_a_repository(mode: int, tmp_path: Path) -> None:
    """Saved by one run and read by the next, after a compiled graph has trained it, too."""
    ms.set_context(mode=mode)
    expected: Any = None
    try:
        for number, seed in enumerate((0, 1)):  # the second begins with other weights
            model = net(seed)
            objects = {"model": model, "optimizer": adam(model)}
            run = onward.open(tmp_path, save_every_seconds=None, save_every_epoch=False, **objects)
            if number:
                assert same(framework.capture(objects), expected)
            train(steps=range(2 * number, 2 * number + 2), **objects)
            run.step()
            run.save()
            expected = through_bytes(framework.capture(objects))
            run.close()
            store = open_store(str(tmp_path))
            repository = open_repository(store)
            stored = read_state(store, repository.manifest(repository.history.latest()))
            assert same({name: stored[name] for name in objects}, expected)
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_a_compiled_network_computes_with_what_was_restored() -> None:
    """A graph that has run already sees restored weights: they are written where it reads."""
    model, other = net(), net(1)
    compiled, inputs = ms.jit(model.construct), Tensor([1, 2, 3], ms.int32)
    before = compiled(inputs).asnumpy()
    framework.restore({"model": model}, through_bytes(framework.capture({"model": other})))
    after = compiled(inputs).asnumpy()
    assert not np.array_equal(after, before)
    assert np.allclose(after, model(inputs).asnumpy(), atol=1e-5)


def test_all_differences_are_listed_and_nothing_is_touched() -> None:
    """Names, shapes, dtypes, classes and missing objects, in one list."""
    small = nn.SequentialCell(nn.Dense(4, 10), nn.Dense(10, 2), nn.BatchNorm1d(2))
    sgd = optim.SGD(small.trainable_params(), lr=0.1)
    saved = {
        "model": small,
        "adam": nn.Adam(small.trainable_params()),
        "scheduler": lr_scheduler.ExponentialLR(sgd, 0.9),
        "scaler": amp.DynamicLossScaler(4.0, 2, 3),
        "mean": Remembers(),
    }
    tree = without_data(framework.capture(saved))
    big = nn.SequentialCell(nn.Dense(4, 12), nn.Dense(12, 2, has_bias=False), nn.Dense(2, 2))
    big[2].to_float(ms.float16)
    big[2].weight.set_dtype(ms.float16)
    live = {
        "model": big,
        "adam": nn.Momentum(big.trainable_params(), 0.1, 0.9),
        "scheduler": lr_scheduler.StepLR(optim.SGD(big.trainable_params(), lr=0.1), 2),
        "scaler": Parameter(Tensor(1.0), name="scale"),
        "generator": Generator(),
    }
    before = through_bytes(framework.capture(live))
    assert framework.differences(live, tree) == [
        "model.0.weight: the checkpoint has F32 [10, 4], the live network F32 [12, 4]",
        "model.0.bias: the checkpoint has F32 [10], the live network F32 [12]",
        "model.1.weight: the checkpoint has F32 [2, 10], the live network F32 [2, 12]",
        "model.2.weight: the checkpoint has no such entry",
        "model.2.bias: the checkpoint has no such entry",
        "model.1.bias: the checkpoint has it F32 [2], the live network has no such entry",
        "model.2.moving_mean: the checkpoint has it F32 [2], the live network has no such entry",
        "model.2.moving_variance: the checkpoint has it F32 [2], "
        "the live network has no such entry",
        "model.2.gamma: the checkpoint has it F32 [2], the live network has no such entry",
        "model.2.beta: the checkpoint has it F32 [2], the live network has no such entry",
        "adam: the checkpoint has Adam, the live one is Momentum",
        "scheduler: the checkpoint has ExponentialLR, the live one is StepLR",
        "scaler: the checkpoint has something else than a Parameter there",
        "generator: the checkpoint has no such object",
        "mean: the checkpoint has it, but it was not given (pass mean=…)",
    ]
    assert same(framework.capture(live), before)


def test_a_finished_run_trains_its_new_budget_on_the_fresh_schedule() -> None:
    """Continue: all that was learned comes back, and the learning rate does not stay at zero."""

    def make(steps: int) -> dict[str, Any]:
        model = net()
        optimizer = optim.AdamW(model.trainable_params(), lr=0.1)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps),
            "scaler": amp.DynamicLossScaler(4.0, 2, 3),
            "mine": Remembers({"count": 0}),
        }

    finished = make(3)
    parts = {name: finished[name] for name in ("model", "optimizer", "scheduler")}
    train(steps=range(3), **parts)
    finished["mine"].state = {"count": 3}
    finished["scaler"].adjust(Tensor(False))
    assert framework.learning_rates(finished["optimizer"]) == [0.0]
    tree = through_bytes(framework.capture(finished))

    live = make(20)
    assert framework.differences_for_new_budget(live, without_data(tree)) == []
    framework.restore_for_new_budget(live, tree)
    assert framework.learning_rates(live["optimizer"])[0] == np.float32(0.1)
    after = framework.capture(live)
    for key in ("model", "scaler", "mine"):
        assert same(after[key], tree[key])
    assert same(after["optimizer"]["state"], tree["optimizer"]["state"])
    assert live["scheduler"].last_epoch == 0
    train(steps=range(2), **{name: live[name] for name in parts})
    assert 0.08 < framework.learning_rates(live["optimizer"])[0] < 0.1


def test_a_new_budget_may_have_another_schedule_or_none() -> None:
    """Schedules belong to a budget; everything else must still fit."""
    model = net()
    optimizer = optim.SGD(model.trainable_params(), lr=0.1)
    without = {"model": model, "optimizer": optimizer}
    with_one = {**without, "scheduler": lr_scheduler.ExponentialLR(optimizer, 0.9)}
    other = {**without, "scheduler": lr_scheduler.StepLR(optimizer, 3)}
    saved = framework.capture(with_one)
    for objects in (without, with_one, other):
        assert framework.differences_for_new_budget(objects, saved) == []
        framework.restore_for_new_budget(objects, through_bytes(saved))
    assert framework.differences_for_new_budget({"model": model}, saved) == [
        "optimizer: the checkpoint has it, but it was not given (pass optimizer=…)"
    ]


def test_a_branch_takes_the_weights_and_nothing_else() -> None:
    """Networks come from the checkpoint; the optimizer starts fresh."""
    model = net()
    objects = {"model": model, "optimizer": adam(model)}
    train(steps=range(2), **objects)
    tree = through_bytes(framework.capture(objects))
    other = net(3)
    branch = {"model": other, "optimizer": nn.Momentum(other.trainable_params(), 0.5, 0.9)}
    fresh = through_bytes(framework.capture(branch))["optimizer"]
    assert framework.names_of_weights(branch) == ["model"]
    assert framework.differences_in_weights(branch, tree) == []
    framework.restore_weights(branch, tree)
    assert same(framework.capture(branch)["model"], tree["model"])
    assert same(framework.capture(branch)["optimizer"], fresh)
    assert framework.differences_in_weights({"net": other}, tree) == [
        "net: the checkpoint has no such object"
    ]


@pytest.mark.parametrize("make", [adam, lambda m: optim.AdamW(m.trainable_params(), lr=0.01)])
def test_a_table_grows_in_the_network_and_in_its_optimizer(make: Any) -> None:
    """Old rows go where their names are now; new ones are as the script made them."""

    class Head(nn.Cell):  # type: ignore[misc]
        def __init__(self, classes: int) -> None:
            super().__init__()
            self.head = nn.Dense(4, classes)

        def construct(self, x: Any) -> Any:
            return self.head(x)

    def objects(classes: int) -> dict[str, Any]:
        model = Head(classes)
        return {"model": model, "optimizer": make(model)}

    old, live = objects(2), objects(3)
    learn = ms.value_and_grad(lambda: (old["model"](ops.ones((1, 4))) ** 2).sum(), None,
                              old["optimizer"].parameters)  # fmt: skip
    old["optimizer"](learn()[1])
    tree = through_bytes(framework.capture(old))
    fresh = through_bytes(framework.capture(live))
    rows = np.array([2, 0])  # row 0 of the checkpoint is row 2 now, row 1 is row 0
    tables = {
        f"model.head.{name}": Table((2, *shape), 3, rows)
        for name, shape in (("weight", (4,)), ("bias", ()))
    }
    assert framework.differences_in_growth(live, tree, tables) == []
    grown = framework.grown(live, tree, tables)
    assert framework.differences(live, without_data(grown)) == []
    framework.restore(live, grown)
    weight = live["model"].head.weight.asnumpy()
    stored = tree["model"]["head.weight"].data.view(np.float32).reshape(2, 4)
    first = fresh["model"]["head.weight"].data.view(np.float32).reshape(3, 4)
    assert np.array_equal(weight, np.stack([stored[1], first[1], stored[0]]))
    for slot, leaf in framework.capture(live)["optimizer"]["state"]["model.head.weight"].items():
        moments = leaf.data.view(np.float32).reshape(3, 4)
        kept = tree["optimizer"]["state"]["model.head.weight"][slot].data.view(np.float32)
        assert np.array_equal(moments[[2, 0]], kept.reshape(2, 4))
        assert not moments[1].any()


def test_networks_evaluate_and_are_then_as_before() -> None:
    """Each part has its own mode back, also where training only uses a part."""
    model = net(rate=0.5)
    model.norm.set_train(False)
    inputs = Tensor(np.arange(8), ms.int32)
    with framework.evaluating({"model": model, "optimizer": adam(model)}):
        assert not model.training
        assert not model.drop.training
        assert np.array_equal(model(inputs).asnumpy(), model(inputs).asnumpy())
    assert model.training
    assert model.drop.training
    assert not model.norm.training


def test_scalers_generators_and_parameters_come_back() -> None:
    """The scale and its counter, a generator's place, a loose parameter such as `scale_sense`."""

    def make() -> dict[str, Any]:
        return {
            "scaler": amp.DynamicLossScaler(4.0, 2, 3),
            "manager": DynamicLossScaleManager(8, 2, 3),
            "static": amp.StaticLossScaler(4.0),
            "update": nn.DynamicLossScaleUpdateCell(8.0, 2, 3),
            "scale": Parameter(Tensor(8.0, ms.float32), name="scale_sense"),
            "generator": Generator(),
        }

    saved = make()
    for finite in (True, True, False):
        saved["scaler"].adjust(Tensor(finite))
        saved["manager"].update_loss_scale(not finite)
    saved["update"].cur_iter.copy_(Tensor(5, ms.int32))
    saved["scale"].copy_(Tensor(2.0, ms.float32))
    saved["generator"].manual_seed(7)
    tree = through_bytes(framework.capture(saved))
    others = make()
    assert not same(framework.capture(others), tree)
    assert framework.differences(others, without_data(tree)) == []
    framework.restore(others, tree)
    assert same(framework.capture(others), tree)
    assert others["manager"].get_loss_scale() == saved["manager"].get_loss_scale()
    assert float(others["scale"].asnumpy()) == 2.0
    wrong = {**others, "scaler": amp.StaticLossScaler(1.0)}
    assert framework.differences(wrong, tree) == [
        "scaler: the checkpoint has DynamicLossScaler, the live one is StaticLossScaler"
    ]


def test_global_randomness_comes_back_exactly() -> None:
    """Python, NumPy (with its spare Gaussian) and MindSpore draw on as they would have."""

    def draw() -> list[Any]:
        return [
            random.random(),
            random.gauss(0, 1),
            np.random.standard_normal(3).tolist(),
            ops.rand(3).asnumpy().tolist(),
            ops.standard_normal((3,)).asnumpy().tolist(),
            ops.uniform((2,), Tensor(0.0), Tensor(1.0)).asnumpy().tolist(),
            ds.config.get_seed(),
            ms.get_seed(),
        ]

    ms.set_seed(3)
    random.seed(1)
    np.random.seed(2)
    ds.config.set_seed(5)
    random.gauss(0, 1)
    np.random.standard_normal(1)  # leaves a spare one in each
    draw()
    tree = through_bytes(framework.capture_randomness())
    expected = draw()
    assert draw() != expected
    ds.config.set_seed(6)
    framework.restore_randomness(tree)
    assert draw() == expected


def test_dropout_follows_from_the_step() -> None:
    """Taken over, it drops the same units at the same step, and others at the next."""

    def seeded(seed: int) -> tuple[Net, Any]:
        model = net(rate=0.5)
        seeds = framework.layer_seeds({"model": model}, lambda path, step: 100 * seed + step)
        assert seeds is not None
        return model, seeds

    inputs = Tensor(np.arange(8), ms.int32)

    def outputs(model: Net, seeds: Any, step: int) -> list[Any]:
        seeds.at_step(step)
        return [model(inputs).asnumpy().tolist() for _ in range(2)]

    (one, ones), (other, others) = seeded(1), seeded(1)
    first = outputs(one, ones, 4)
    assert first[0] != first[1]
    assert outputs(one, ones, 5) != first
    assert outputs(other, others, 4) == first
    assert outputs(*seeded(2), 4) != first
    assert ones.out_of_reach() == []
    assert framework.layer_seeds({"model": net()}, lambda path, step: 0) is None


def test_dropout_within_a_compiled_graph_is_told() -> None:
    """There it is MindSpore's own, whose numbers nobody can save: the run says which layers."""
    model = net(rate=0.5)
    seeds = framework.layer_seeds({"model": model}, lambda path, step: step)
    assert seeds is not None
    seeds.at_step(0)
    ms.jit(model.construct)(Tensor(np.arange(8), ms.int32))
    assert seeds.out_of_reach() == ["model.drop"]


def test_a_network_without_values_is_refused_before_an_output_is_made(tmp_path: Path) -> None:
    """Under `no_init_parameters`: it says which parameter, why, and what to call."""
    with no_init_parameters():
        model = net_without_values()
    out = tmp_path / "out"
    with pytest.raises(Unstorable, match=r"net\.weight has no values yet") as caught:
        onward.open(out, net=model)
    assert "init_parameters_data" in caught.value.do
    assert not out.exists()
    model.init_parameters_data()
    onward.open(out, net=model).close()


def net_without_values() -> Any:
    return nn.Dense(3, 2)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "hifloat8"])
def test_a_dtype_that_numpy_lacks_is_refused(dtype: str, tmp_path: Path) -> None:
    """Named by the parameter's path, with what to do."""
    model = nn.Dense(2, 2)
    with no_init_parameters():
        kind = getattr(ms.common.dtype, dtype)
        eighth = Parameter(Tensor(shape=(3,), dtype=kind, init=ms.common.initializer.Zero()))
    model.insert_param_to_cell("eighth", eighth)
    with pytest.raises(Unstorable, match=r"net\.eighth has the dtype .*Float8") as caught:
        onward.open(tmp_path / "out", net=model)
    assert "NumPy" in caught.value.why
    assert "bfloat16" in caught.value.do
    assert not (tmp_path / "out").exists()


def test_a_model_is_refused_for_its_parts(tmp_path: Path) -> None:
    """`mindspore.Model` is a loop with a network and an optimizer in it."""
    inner = net()
    model = Model(inner, nn.CrossEntropyLoss(), adam(inner))
    with pytest.raises(UsageError, match=r"model= is a mindspore\.Model") as caught:
        onward.open(tmp_path / "out", model=model)
    assert "OnwardCallback" in caught.value.do
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("thing", [ops.relu, Remembers, {"a": 1}])
def test_an_object_without_state_is_named_by_its_keyword(thing: Any) -> None:
    """What is neither MindSpore's nor `Stateful` is refused, never skipped."""
    with pytest.raises(Unstorable, match=r"loss= is a "):
        framework.capture({"loss": thing})


def test_a_checkpoint_of_another_network_is_refused_untouched(tmp_path: Path) -> None:
    """All differences at once through `onward.open`, and the network is as it was made."""
    run = onward.open(tmp_path, net=nn.Dense(2, 3))
    run.step()
    run.save()
    run.close()
    other = nn.Dense(2, 4)
    before = through_bytes(framework.capture({"net": other}))
    with pytest.raises(Mismatch) as caught:
        onward.open(tmp_path, net=other)
    assert len(caught.value.differences) == 2
    assert same(framework.capture({"net": other}), before)


def test_resuming_touches_no_randomness_of_initialisers() -> None:
    """An object of each kind together, trained on: the same bits as without a stop."""

    def make() -> dict[str, Any]:
        model = net()
        optimizer = optim.AdamW(model.trainable_params(), lr=0.01)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": lr_scheduler.StepLR(optimizer, 2),
        }

    check_resumed_equals_uninterrupted(make)
