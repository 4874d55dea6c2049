"""`Model.train` and `Model.fit` under Onward's callback: what they continue, tell and refuse."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore import nn
from mindspore.train import Accuracy, Callback, Model, RunContext
from mindspore.train.callback import _InternalCallbackParam

from onward import errors, learning
from onward.repository import Commit, open_repository, read_state
from onward.stores import open_store
from onward.trainers.mindspore import OnwardCallback
from tests.frameworks.mindspore_training import at_once, same

FEATURES, CLASSES = 4, 2


MADE: list[OnwardCallback] = []


@pytest.fixture(autouse=True)
def _as_a_process_of_its_own() -> Iterator[None]:
    """Operators run at once; what a refused training had opened is closed, as by its end."""
    with at_once():
        yield
    while MADE:
        MADE.pop().run.close()


class Points:
    """Points around a centre for each class, known by their numbers."""

    def __init__(self, count: int, start: int = 0) -> None:
        self.ids = list(range(start, start + count))
        self.labels = np.array([number % CLASSES for number in self.ids], np.int64)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Any:
        noise = np.random.Philox(key=self.ids[index]).random_raw(FEATURES) / 2.0**64
        label = int(self.labels[index])
        return (noise + 2 * (np.arange(FEATURES) == label)).astype(np.float32), np.int32(label)


def pipeline(count: int = 24, **options: Any) -> Any:
    return ds.GeneratorDataset(Points(count), ["x", "y"], **options).batch(4)


def model(*, rate: Any = 0.1, optimizer: Any = None, **options: Any) -> Model:
    ms.set_seed(3)  # Python's generator, too: it is part of the state
    random.seed(3)
    network = nn.Dense(FEATURES, CLASSES)
    generator = np.random.Generator(np.random.Philox(0))
    network.weight.set_data(ms.Tensor(generator.normal(0, 0.1, (2, 4)).astype(np.float32)))
    network.bias.set_data(ms.Tensor(np.zeros(2, np.float32)))
    made = optimizer or (lambda p: nn.Momentum(p, rate, 0.9))
    return Model(network, nn.CrossEntropyLoss(), made(network.trainable_params()), **options)


def callback(out: Any, trained: Model | None = None, **options: Any) -> OnwardCallback:
    given = {"save_every_seconds": None, **options}
    MADE.append(OnwardCallback(out, trained or model(), **given))
    return MADE[-1]


def train(
    out: Any, data: Any = None, *, epochs: int = 2, trained: Model | None = None,
    others: Any = (), loader: dict[str, Any] | None = None, **options: Any,
) -> OnwardCallback:  # fmt: skip
    """One process's training: a pipeline is read by `batches`, anything else by `loader`."""
    trained = trained or model()
    keep = callback(out, trained, **options)
    data = pipeline() if data is None else data
    batches = (
        keep.batches(data)
        if isinstance(data, ds.Dataset)
        else keep.loader(data, batch_size=4, ids=data.ids, **(loader or {}))
    )
    trained.train(epochs, batches, callbacks=[*others, keep], initial_epoch=keep.initial_epoch)
    return keep


def commits(out: Path) -> list[Commit]:
    return list(open_repository(open_store(str(out))).history.newest_first())


def state(out: Path) -> dict[str, Any]:
    store = open_store(str(out))
    repository = open_repository(store)
    found = dict(read_state(store, repository.manifest(repository.history.latest())))
    return {name: found[name] for name in ("network", "optimizer", "randomness")}


class At(Callback):  # type: ignore[misc]
    """Calls something after a step."""

    def __init__(self, step: int, call: Any) -> None:
        super().__init__()
        self.step, self.call = step, call

    def on_train_step_end(self, run_context: Any) -> None:
        if run_context.original_args().cur_step_num == self.step:
            self.call()


class Steps(Callback):  # type: ignore[misc]
    """Notes the numbers of epochs and steps that `Model.train` tells."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, int]] = []

    def on_train_step_end(self, run_context: Any) -> None:
        told = run_context.original_args()
        self.seen.append((told.cur_epoch_num, told.cur_step_num))


def fail() -> None:
    raise RuntimeError("boom")


def test_an_increment_has_its_own_budget_on_new_data(tmp_path: Path) -> None:
    """Two epochs, then two more on what is new, old samples mixed in; the model's steps go on."""
    first = train(tmp_path, Points(16))
    second = train(tmp_path, Points(24))
    assert (first.run.increment, first.run.verb, first.run.global_step) == (1, "fresh", 8)
    assert (second.run.increment, second.run.verb) == (2, "continue")
    assert second.run.increment_step == 8  # 8 new and 8 old items an epoch, in batches of 4
    assert second.run.global_step == 16
    assert [commit.finished for commit in commits(tmp_path)][:1] == [True]


def test_a_pipeline_trains_its_new_budget(tmp_path: Path) -> None:
    """`batches` of a longer pipeline: as many epochs again, from epoch 0."""
    train(tmp_path)
    more = train(tmp_path, pipeline(32))
    assert more.run.verb == "continue"
    assert more.run.increment_step == 16
    assert more.run.global_step == 12 + 16


@pytest.mark.parametrize("how", ["loader", "batches"])
def test_nothing_new_says_so_and_trains_nothing(how: str, tmp_path: Path) -> None:
    """The same command after it finished ends with status 0."""
    data = Points(16) if how == "loader" else pipeline()
    train(tmp_path, data)
    before = len(commits(tmp_path))
    with pytest.raises(errors.NothingNew) as caught:
        train(tmp_path, data)
    assert caught.value.code == 0
    assert len(commits(tmp_path)) == before
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.parametrize("how", ["loader", "batches"])
@pytest.mark.parametrize("step", [3, 6, 7])
def test_an_interrupted_training_resumes_with_the_same_bits(
    how: str, step: int, tmp_path: Path
) -> None:
    """Failed within an epoch, at its end and after it: the same weights, optimizer, randomness."""

    def data() -> Any:
        return Points(24) if how == "loader" else pipeline(shuffle=True)

    train(tmp_path / "whole", data(), save_every_steps=1)
    out = tmp_path / "out"
    with pytest.raises(RuntimeError, match="boom"):
        train(out, data(), save_every_steps=1, others=[At(step, fail)])
    steps = Steps()
    resumed = train(out, data(), save_every_steps=1, others=[steps])
    assert resumed.run.verb == "resume"
    assert steps.seen[-1] == (2, 12)
    assert steps.seen[0][1] == resumed.run.increment_step - len(steps.seen) + 1
    assert same(state(out), state(tmp_path / "whole"))


def test_a_signal_stops_with_all_saved(tmp_path: Path) -> None:
    """SIGTERM: saved after that very step, `Stopped` with status 75; the handler is back."""
    with pytest.raises(errors.Stopped) as raised:
        train(tmp_path, others=[At(4, lambda: os.kill(os.getpid(), signal.SIGTERM))])
    assert raised.value.code == 75
    assert commits(tmp_path)[0].step == 4
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert train(tmp_path).run.global_step == 12


def test_a_stop_that_another_callback_asks_for_is_finished(tmp_path: Path) -> None:
    """`request_stop`, as early stopping does: the increment ends there, finished."""

    class Enough(Callback):  # type: ignore[misc]
        def on_train_epoch_end(self, run_context: Any) -> None:
            run_context.request_stop()

    keep = train(tmp_path, epochs=5, others=[Enough()])
    assert keep.run.global_step == 6
    assert commits(tmp_path)[0].finished


def test_fit_evaluates_and_its_results_are_in_the_log(tmp_path: Path) -> None:
    """`Model.fit` with validation data: an own budget, and metrics beside each checkpoint."""
    for count in (24, 32):
        fitted = model(metrics={"accuracy": Accuracy()})
        keep = callback(tmp_path, fitted)
        fitted.fit(
            2, keep.batches(pipeline(count)), pipeline(8), callbacks=[keep],
            initial_epoch=keep.initial_epoch,
        )  # fmt: skip
    newest = commits(tmp_path)[0]
    assert newest.finished
    assert newest.increment == 2
    assert set(newest.metrics) >= {"loss", "accuracy"}


def test_a_table_of_rates_begins_anew_with_each_increment(tmp_path: Path) -> None:
    """Its position is `global_step`, which belongs to the budget where a schedule reads it."""
    rates = [0.1 / (1 + step) for step in range(16)]
    train(tmp_path, Points(16), trained=model(rate=rates))
    trained = model(rate=rates)
    train(tmp_path, Points(24), trained=trained)
    assert int(trained._optimizer.global_step.asnumpy()[0]) == 8


def test_a_plan_gives_the_epochs_and_ends_within_the_last(tmp_path: Path) -> None:
    """A share of a retrain: that many steps, whatever an epoch holds, at a planned rate."""
    trained = model()
    keep = callback(tmp_path, trained)
    loader = keep.loader(Points(24), batch_size=4)
    epochs = keep.plan("8 steps")
    assert epochs == 2
    rates: list[float] = []
    note = At(1, lambda: None)
    note.on_train_step_end = lambda context: rates.append(  # type: ignore[method-assign]
        float(trained._optimizer.learning_rate.asnumpy())
    )
    trained.train(epochs, loader, callbacks=[note, keep], initial_epoch=keep.initial_epoch)
    assert keep.run.increment_step == 8
    assert max(rates) <= np.float32(0.1)
    assert rates[-1] < rates[2]
    assert commits(tmp_path)[0].finished


def test_the_budget_of_the_job_takes_the_place_of_the_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs that `Model.train` is told are those of what the job asks."""
    monkeypatch.setenv("ONWARD_OUTPUT", str(tmp_path))
    monkeypatch.setenv("ONWARD_BUDGET", "8 steps")
    trained = model()
    keep = callback(tmp_path, trained)
    loader = keep.loader(Points(24), batch_size=4)
    epochs = keep.plan(1)
    assert epochs == 2
    trained.train(epochs, loader, callbacks=[keep], initial_epoch=keep.initial_epoch)
    assert keep.run.increment_step == 8
    assert commits(tmp_path)[0].finished


def test_a_plan_that_is_a_time_is_refused(tmp_path: Path) -> None:
    """`Model.train` counts epochs."""
    keep = callback(tmp_path)
    keep.loader(Points(24), batch_size=4)
    with pytest.raises(errors.UsageError, match="counts epochs"):
        keep.plan("10 min")
    keep.run.close()


def test_holdouts_are_scored_and_the_gate_decides(tmp_path: Path) -> None:
    """Through `callback.run`: frozen before training, scored at its end, the champion crowned."""
    for count in (24, 40):
        trained = model()
        keep = callback(tmp_path, trained)
        network = trained._network
        keep.run.scoring(lambda batch, net=network: net(batch[0]).argmax(1) == batch[1])
        keep.run.holdout("spring", Points(8, start=100))
        loader = keep.loader(Points(count), batch_size=4, holdout=0.25)
        trained.train(3, loader, callbacks=[keep], initial_epoch=keep.initial_epoch)
    assert keep.verdict is not None
    repository = open_repository(open_store(str(tmp_path)))
    scores = commits(tmp_path)[0].scores
    assert scores is not None
    assert repository.history.resolve("champion").finished


def test_a_memory_replays_what_is_gone(tmp_path: Path) -> None:
    """Given only what is new, the second increment repeats what the memory kept of the first."""
    options = {"loader": {"only_new": True}}
    train(tmp_path, Points(16), strategy=learning.strategy("er", memory=8), **options)
    second = train(
        tmp_path, Points(8, start=50), strategy=learning.strategy("er", memory=8), **options
    )
    assert second.run.increment == 2
    assert second.run.increment_step > 4  # more than its own items would make


def test_a_loss_scale_of_the_models_own_is_found(tmp_path: Path) -> None:
    """What scales the loss is among the parts: on a CPU MindSpore has the fixed one only."""
    trained = model(loss_scale_manager=ms.amp.FixedLossScaleManager(128.0, False))
    assert train(tmp_path, trained=trained).run.global_step == 12
    scaled = model()
    scaled._train_network = nn.TrainOneStepWithLossScaleCell(
        nn.WithLossCell(scaled._network, nn.CrossEntropyLoss()),
        scaled._optimizer,
        nn.DynamicLossScaleUpdateCell(1024.0, 2, 3),
    )
    for out in (tmp_path / "scaled", tmp_path / "scaled"):
        keep = callback(out, scaled)
        if keep.run.verb == "fresh":
            scaled.train_network.scale_sense.copy_(ms.Tensor(64.0, ms.float32))
            keep.run.save()
            scaled.train_network.scale_sense.copy_(ms.Tensor(1.0, ms.float32))
        keep.run.close()
    assert float(scaled.train_network.scale_sense.asnumpy()) == 64.0


# What is refused.


def test_a_wrong_initial_epoch_is_refused(tmp_path: Path) -> None:
    """Left out after an interruption, it would count epochs twice: the error says what to pass."""
    with pytest.raises(RuntimeError, match="boom"):
        train(tmp_path, others=[At(9, fail)], save_every_steps=1)
    trained = model()
    keep = callback(tmp_path, trained)
    assert keep.initial_epoch == 1
    with pytest.raises(errors.UsageError, match="begins with epoch 0") as caught:
        trained.train(2, keep.batches(pipeline()), callbacks=[keep])
    assert "initial_epoch=callback.initial_epoch" in caught.value.do
    assert train(tmp_path).run.global_step == 12  # nothing is spoiled


@pytest.mark.parametrize("data", [pipeline, lambda: pipeline().repeat(2)])
def test_a_dataset_that_onward_does_not_know_is_refused(data: Any, tmp_path: Path) -> None:
    """Given past the callback, nobody could tell what was learned."""
    trained = model()
    keep = callback(tmp_path, trained)
    with pytest.raises(errors.UsageError, match="does not know") as caught:
        trained.train(1, data(), callbacks=[keep])
    assert "callback.batches(dataset)" in caught.value.do


def test_a_dataset_without_a_size_is_refused(tmp_path: Path) -> None:
    """`Model.train` asks how many batches an epoch has; a generator does not know."""

    def numbers() -> Any:
        while True:
            yield np.ones(FEATURES, np.float32), np.int32(0)

    with pytest.raises(errors.UsageError, match="needs the size of its dataset") as caught:
        train(tmp_path, ds.GeneratorDataset(numbers, ["x", "y"]).batch(4))
    assert "__len__" in caught.value.do


def test_sink_mode_is_refused(tmp_path: Path) -> None:
    """There, batches are taken where nobody can count them. A CPU has no such mode."""
    trained = model()
    keep = callback(tmp_path, trained)
    batches = keep.batches(pipeline())
    sunk = _InternalCallbackParam()
    sunk.update(train_dataset=batches, dataset_sink_mode=True)
    with pytest.raises(errors.UsageError, match="sink mode") as caught:
        keep.on_train_begin(RunContext(sunk))
    assert "dataset_sink_mode=False" in caught.value.do
    trained.train(1, batches, callbacks=[keep], dataset_sink_mode=True)
    assert keep.run.global_step == 6


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: nn.Dense(2, 2), "was given a Dense"),
        (lambda: Model(nn.Dense(2, 2), nn.CrossEntropyLoss()), "has no optimizer"),
    ],
)
def test_what_is_no_model_that_trains_is_refused(make: Any, words: str, tmp_path: Path) -> None:
    """It says what to pass."""
    with pytest.raises(errors.UsageError, match=words) as caught:
        OnwardCallback(tmp_path / "out", make())
    assert caught.value.do
    assert not (tmp_path / "out").exists()


def test_objects_of_the_model_are_refused(tmp_path: Path) -> None:
    """Network and optimizer are found in it."""
    trained = model()
    with pytest.raises(errors.UsageError, match="network= is the model's own"):
        OnwardCallback(tmp_path, trained, network=trained._network)


def test_a_penalty_in_graph_mode_is_refused(tmp_path: Path) -> None:
    """`Model.train` compiles whole steps there; the strategy says so before anything is trained."""
    ms.set_context(mode=ms.GRAPH_MODE)
    try:
        with pytest.raises(errors.UsageError, match="graph mode"):
            train(tmp_path, Points(16), strategy=learning.strategy("der++", memory=8))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)


def test_an_error_in_training_lets_go_of_the_output(tmp_path: Path) -> None:
    """The error is the user's; signals are as before."""
    with pytest.raises(RuntimeError, match="boom"):
        train(tmp_path, others=[At(2, fail)])
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
