"""The callback for Lightning: what it continues, what it tells, what it refuses."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch import callbacks as known
from lightning.pytorch.utilities import CombinedLoader
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from onward import learning
from onward.errors import EmptyBudget, Mismatch, NothingNew, Stopped, Unstorable, UsageError
from onward.repository import Commit, open_repository
from onward.stores import open_store
from onward.trainers.lightning import OnwardCallback
from onward.trainers.lightning_checks import TESTED

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    torch.manual_seed(0)


class Network(L.LightningModule):
    def __init__(self, *, width: int = 8, schedule: bool = False) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.body = nn.Sequential(nn.Linear(4, width), nn.ReLU())
        self.head = nn.Linear(width, 3)
        self.validated = 0

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(values))

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1
        self.log("val", nn.functional.cross_entropy(self(batch[0]), batch[1]))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)
        if not self.hparams.schedule:
            return optimizer
        return [optimizer], [torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=2)]


class Fails(known.Callback):
    """Trains six steps, and no more."""

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 6:
            raise ZeroDivisionError


def data(count: int = 32) -> TensorDataset:
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(1000, 4, generator=generator)[:count]
    return TensorDataset(values, values.abs().argmax(1) % 3)


def batches(count: int = 32) -> DataLoader[Any]:
    return DataLoader(data(count), batch_size=8, shuffle=True)


def trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    usual: dict[str, Any] = {
        "max_epochs": 2, "accelerator": "cpu", "logger": False, "enable_checkpointing": False,
        "enable_progress_bar": False, "enable_model_summary": False,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **{**usual, **options})


def commits(output: Path) -> list[Commit]:
    return list(open_repository(open_store(output)).history.live())


# Going on.


def test_an_increment_has_the_trainers_budget_for_itself(tmp_path: Path) -> None:
    """max_epochs and max_steps are this increment's; steps and epochs of the model go on."""
    out = tmp_path / "out"
    trainer(OnwardCallback(out), max_epochs=2).fit(Network(), batches(32))
    second = trainer(OnwardCallback(out), max_epochs=3)
    second.fit(Network(), batches(64))
    assert (second.current_epoch, second.global_step) == (3, 24)
    trainer(OnwardCallback(out), max_epochs=-1, max_steps=5).fit(Network(), batches(80))
    finished = [commit for commit in commits(out) if commit.finished]
    assert [(c.increment, c.step, c.epoch) for c in finished] == [(1, 8, 2), (2, 32, 5), (3, 37, 6)]


def test_the_budget_of_the_job_takes_the_place_of_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More or less than max_epochs: the trainer is held to what the job asks."""
    for steps in (3, 20):
        out = tmp_path / str(steps)
        monkeypatch.setenv("ONWARD_OUTPUT", str(out))
        monkeypatch.setenv("ONWARD_BUDGET", f"{steps} steps")
        trainer(OnwardCallback(out), max_epochs=2).fit(Network(), batches(32))
        assert [(c.step, c.finished) for c in commits(out)][-1] == (steps, True)


def test_a_schedule_that_ended_at_zero_spans_the_new_budget(tmp_path: Path) -> None:
    """An increment learns at the rates of this script, not at those where the last one ended."""
    out = tmp_path / "out"
    trainer(OnwardCallback(out)).fit(Network(schedule=True), batches(32))
    module = Network(schedule=True)
    callback = OnwardCallback(out)
    trainer(callback).fit(module, batches(64))
    assert callback.run is not None
    assert (callback.run.verb, callback.run.increment_step) == ("continue", 16)


def test_one_trainer_fits_twice(tmp_path: Path) -> None:
    """The same trainer, module and callback go on with the next increment in the same process."""
    fitter, module = trainer(OnwardCallback(tmp_path / "out")), Network()
    fitter.fit(module, batches(32))
    fitter.fit(module, batches(64))
    assert [c.step for c in commits(tmp_path / "out") if c.finished] == [8, 24]
    assert (fitter.num_sanity_val_steps, fitter.limit_train_batches) == (2, 1.0)


def test_nothing_new_says_so_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished model without new data: told, status 0, and nothing validated or trained."""
    out = tmp_path / "out"
    trainer(OnwardCallback(out)).fit(Network(), batches(32))
    before, module = len(commits(out)), Network()
    with pytest.raises(NothingNew) as caught:
        trainer(OnwardCallback(out)).fit(module, batches(32), batches(16))
    assert caught.value.code == 0
    assert "nothing new to learn" in capsys.readouterr().out
    assert module.validated == 0
    assert len(commits(out)) == before
    trainer(OnwardCallback(out, verb="continue")).fit(module, batches(32))
    assert commits(out)[-1].increment == 2


def test_early_stopping_judges_each_increment_anew(tmp_path: Path) -> None:
    """Patience that was used up in one increment is there again in the next."""
    out = tmp_path / "out"
    for count, steps in ((32, 8), (64, 24)):
        stop = known.EarlyStopping("loss", patience=1, min_delta=9.0)
        trainer(OnwardCallback(out), stop, max_epochs=5).fit(Network(), batches(count))
        assert commits(out)[-1].step == steps  # two epochs, in each


def test_metrics_are_in_the_log(tmp_path: Path) -> None:
    """What the module logs stands beside each checkpoint, under its own name."""
    out = tmp_path / "out"
    trainer(OnwardCallback(out)).fit(Network(), batches(), batches(16))
    last = commits(out)[-1]
    assert last.metrics is not None
    assert {"loss", "val"} <= last.metrics.keys()


def test_an_error_in_training_closes_the_output(tmp_path: Path) -> None:
    """The error is raised as it is; handlers of signals are back; the run can be resumed."""

    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    out = tmp_path / "out"
    with pytest.raises(ZeroDivisionError):
        trainer(OnwardCallback(out, save_every_steps=1), Fails()).fit(Network(), batches())
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    callback = OnwardCallback(out)
    fitter = trainer(callback)
    fitter.fit(Network(), batches())
    assert callback.run is not None
    assert (callback.run.verb, fitter.global_step) == ("resume", 8)
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers


def test_a_signal_stops_with_all_saved(tmp_path: Path) -> None:
    """Stopped is raised through fit, and the handlers of before are back."""

    class Terminates(known.Callback):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            if trainer.global_step == 2:
                signal.raise_signal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped) as caught:
        trainer(OnwardCallback(tmp_path / "out"), Terminates()).fit(Network(), batches())
    assert caught.value.code == 75
    assert signal.getsignal(signal.SIGTERM) is before
    assert [(c.step, c.reason) for c in commits(tmp_path / "out")] == [(3, "SIGTERM")]


def test_a_callback_that_is_gone_is_told(tmp_path: Path) -> None:
    """State is never skipped quietly: who resumes without a callback hears of it."""
    out = tmp_path / "out"
    stop = known.EarlyStopping("loss", patience=9)
    callback = OnwardCallback(out, save_every_steps=1)
    with pytest.raises(ZeroDivisionError):
        trainer(callback, stop, Fails()).fit(Network(), batches())
    with pytest.warns(UserWarning, match="EarlyStopping"):
        trainer(OnwardCallback(out)).fit(Network(), batches())


# Learning.


def test_what_is_new_is_learned_with_old_samples_mixed_in(tmp_path: Path) -> None:
    """`callback.loader` is `run.loader`: ids, a plan of its own, the strategy's memory."""
    out = tmp_path / "out"
    for count, steps in ((32, 8), (64, 3)):
        callback = OnwardCallback(
            out,
            plan=2 if count == 32 else "0.2 x retrain",
            strategy=learning.strategy("er", memory=16),
        )
        ids = [f"item {i}" for i in range(count)]
        mixed = callback.loader(data(count), batch_size=8, ids=ids, labels=data(count).tensors[1])
        fitter = trainer(callback, max_epochs=1)
        fitter.fit(Network(), mixed)
        assert fitter.global_step == steps
        assert fitter.max_epochs == 1
    first, second = (commit for commit in commits(out) if commit.finished)
    assert (first.step, second.step - first.step) == (8, 3)


def test_a_mix_without_anything_new_says_so(tmp_path: Path) -> None:
    """What `callback.loader` was given is known by its ids: all learned is nothing new."""
    out = tmp_path / "out"
    for expected in (None, NothingNew):
        callback = OnwardCallback(out)
        mixed = callback.loader(data(), batch_size=8, ids="content")
        if expected is None:
            trainer(callback).fit(Network(), mixed)
            continue
        with pytest.raises(expected):
            trainer(callback).fit(Network(), mixed)


def test_a_hook_returns_the_loader_and_adds_a_penalty(tmp_path: Path) -> None:
    """A module takes its batches from the callback, and its penalty from the run."""
    callback = OnwardCallback(tmp_path / "out", strategy=learning.strategy("der++", memory=16))

    class Rehearsing(Network):
        def train_dataloader(self) -> Any:
            return callback.loader(data(), batch_size=8, ids="content")

        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            outputs = self(batch[0])
            assert callback.run is not None
            loss = nn.functional.cross_entropy(outputs, batch[1])
            return loss + callback.run.penalty(outputs)

    trainer(callback).fit(Rehearsing())
    assert commits(tmp_path / "out")[-1].finished


def test_holdouts_are_scored_by_what_prepare_says(tmp_path: Path) -> None:
    """The finished increment stands with its score, and is the champion."""
    module = Network()

    def prepare(run: Any) -> None:
        run.scoring(lambda batch: module(batch[0]).argmax(1) == batch[1])
        run.holdout("held", data(1000))

    callback = OnwardCallback(tmp_path / "out", prepare=prepare)
    train = TensorDataset(torch.randn(32, 4), torch.randint(0, 3, (32,)))
    trainer(callback).fit(module, DataLoader(train, batch_size=8))
    assert commits(tmp_path / "out")[-1].scores is not None
    assert open_repository(open_store(tmp_path / "out")).history.aliases["champion"]


def test_a_plan_spans_the_users_own_loader(tmp_path: Path) -> None:
    """`plan` decides in place of max_epochs, and schedules the rate where nobody else does."""
    callback, module = OnwardCallback(tmp_path / "out", plan="5 steps"), Network()
    fitter = trainer(callback, max_epochs=1)
    fitter.fit(module, batches())
    assert fitter.global_step == 5
    assert module.optimizers().param_groups[0]["lr"] < 0.1


def test_averages_of_a_branch_begin_with_its_weights(tmp_path: Path) -> None:
    """A branch takes weights only; what averages them does not average what the script made."""
    trainer(OnwardCallback(tmp_path / "out")).fit(Network(), batches())

    class Never(known.WeightAveraging):
        def should_update(self, *args: Any, **options: Any) -> bool:
            return False

    callback = OnwardCallback(tmp_path / "branch", branch_from=str(tmp_path / "out"))
    module = Network()
    trainer(callback, Never(), max_epochs=1).fit(module, batches())
    one, two = (open_repository(open_store(tmp_path / name)) for name in ("out", "branch"))
    digests = [
        {t.path: t.digest for t in r.manifest(list(r.history.live())[-1]).tensors}
        for r in (one, two)
    ]
    assert digests[0]["model/head.weight"] == digests[1]["model/head.weight"]


# What it refuses.


@pytest.mark.parametrize("version", ["2.4.1", "1.9", "2.7.0", "3.0"])
def test_a_version_that_was_not_tested_is_refused(version: str) -> None:
    """Outside of the tested range it says which one to install."""
    with pytest.raises(UsageError, match=r"pip install 'lightning>=2\.5,<2\.7'"):
        TESTED.check(version)
    TESTED.check("2.5.0")
    TESTED.check("2.6.6")


def refused(fit: Callable[[], Any], out: Path, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        fit()
    assert caught.value.why
    assert caught.value.do
    assert not out.exists()


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(data(32))


@pytest.mark.parametrize(
    ("loaders", "words"),
    [
        ([batches(), batches()], "a list"),
        ({"a": batches()}, "a dict"),
        (CombinedLoader([batches(), batches()]), "CombinedLoader"),
        (DataLoader(Stream(), batch_size=8), "no length"),
    ],
    ids=["list", "dict", "combined", "stream"],
)
def test_loaders_that_cannot_be_positioned_are_refused(
    loaders: Any, words: str, tmp_path: Path
) -> None:
    """Several train loaders, or one without an end, are an error that says what to do."""
    with pytest.raises(UsageError, match=words) as caught:
        trainer(OnwardCallback(tmp_path / "out")).fit(Network(), loaders)
    assert caught.value.do


def test_a_stream_with_a_limit_is_trained_on(tmp_path: Path) -> None:
    """limit_train_batches gives a stream the length that it lacks."""
    fitter = trainer(OnwardCallback(tmp_path / "out"), limit_train_batches=3)
    fitter.fit(Network(), DataLoader(Stream(), batch_size=8))
    assert fitter.global_step == 6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reload_dataloaders_every_n_epochs": 1}, "reload_dataloaders_every_n_epochs"),
        ({"overfit_batches": 1}, "overfit_batches"),
        ({"devices": 2, "strategy": "ddp_fork"}, "2 process"),
    ],
    ids=["reload", "overfit", "two processes"],
)
def test_trainers_that_cannot_be_resumed_exactly_are_refused(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Each is named before anything is made, with what to do instead."""
    out = tmp_path / "out"
    callback = OnwardCallback(out)
    fitter = trainer(callback, **options)
    # As `fit` calls it first; two processes would raise it in each of them.
    refused(lambda: callback.setup(fitter, Network(), "fit"), out, words)


@pytest.mark.parametrize(
    "other",
    [
        known.LearningRateFinder(), known.BatchSizeFinder(), known.BackboneFinetuning(),
        known.StochasticWeightAveraging(1e-2), known.OnExceptionCheckpoint("."),
    ],
    ids=lambda callback: type(callback).__name__,
)  # fmt: skip
def test_callbacks_that_rebuild_the_training_are_refused(other: L.Callback, tmp_path: Path) -> None:
    """Tuners, finetuning and swapped schedulers would not be there in a new process."""
    out = tmp_path / "out"
    callback = OnwardCallback(out)
    fitter = trainer(callback, other, enable_checkpointing=True)
    refused(lambda: callback.setup(fitter, Network(), "fit"), out, type(other).__name__)


def test_a_file_to_resume_from_is_refused(tmp_path: Path) -> None:
    """ckpt_path beside the callback: one of the two must decide."""
    plain = trainer()
    plain.fit(Network(), batches())
    plain.save_checkpoint(tmp_path / "plain.ckpt")
    out = tmp_path / "out"
    fit = trainer(OnwardCallback(out)).fit
    refused(lambda: fit(Network(), batches(), ckpt_path=tmp_path / "plain.ckpt"), out, "ckpt_path")


def test_a_step_that_takes_an_iterator_is_refused(tmp_path: Path) -> None:
    """Nobody could tell which batches it has learned."""

    class Takes(Network):
        def training_step(self, dataloader_iter: Any) -> Any:
            return next(dataloader_iter)

    out = tmp_path / "out"
    refused(lambda: trainer(OnwardCallback(out)).fit(Takes(), batches()), out, "dataloader_iter")


def test_two_outputs_are_refused(tmp_path: Path) -> None:
    """One trainer, one output."""
    out = tmp_path / "out"
    fit = trainer(OnwardCallback(out), OnwardCallback(tmp_path / "other")).fit
    refused(lambda: fit(Network(), batches()), out, "two OnwardCallbacks")


def test_objects_of_the_trainer_are_refused() -> None:
    """Module, optimizers and schedulers come from the trainer."""
    with pytest.raises(UsageError, match="optimizer1"):
        OnwardCallback("out", optimizer1=torch.optim.SGD([torch.zeros(1)]))


def test_the_length_of_a_mix_is_not_known_before_the_output_is_open(tmp_path: Path) -> None:
    """estimated_stepping_batches asks too early for it, and is told what to do."""

    class Estimates(Network):
        def configure_optimizers(self) -> Any:
            assert self.trainer.estimated_stepping_batches > 0

    out = tmp_path / "out"
    callback = OnwardCallback(out)
    fit = trainer(callback).fit
    refused(lambda: fit(Estimates(), callback.loader(data(), batch_size=8)), out, "not known")


def test_a_plan_that_is_a_time_is_refused(tmp_path: Path) -> None:
    """Lightning counts steps; max_time ends after a time."""
    with pytest.raises(UsageError, match="is a time"):
        trainer(OnwardCallback(tmp_path / "out", plan="10 min")).fit(Network(), batches())


def test_what_cannot_be_stored_is_named_before_training(tmp_path: Path) -> None:
    """An object that a hook adds to checkpoints is named by its path, and no output is made."""

    class Adds(Network):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["thing"] = object()

    out = tmp_path / "out"
    with pytest.raises(Unstorable, match=r"trainer.*added.*thing"):
        trainer(OnwardCallback(out)).fit(Adds(), batches())
    assert not out.exists()


def test_a_module_of_another_shape_is_refused_untouched(tmp_path: Path) -> None:
    """All differences at once, and the module stays as it was made."""
    trainer(OnwardCallback(tmp_path / "out")).fit(Network(), batches())
    module = Network(width=9)
    before = module.head.weight.clone()
    with pytest.raises(Mismatch) as caught:
        trainer(OnwardCallback(tmp_path / "out")).fit(module, batches(64))
    assert len(caught.value.differences) >= 3
    assert torch.equal(module.head.weight, before)


def test_a_budget_of_nothing_is_refused(tmp_path: Path) -> None:
    """A trainer that trains no batch cannot finish an increment."""
    with pytest.raises(EmptyBudget):
        trainer(OnwardCallback(tmp_path / "out"), max_epochs=0).fit(Network(), batches())


def test_without_fit_it_does_nothing(tmp_path: Path) -> None:
    """validate, test and fast_dev_run neither open nor make an output."""
    out = tmp_path / "out"
    fitter, module = trainer(OnwardCallback(out)), Network()
    fitter.validate(module, batches(), verbose=False)
    fitter.test(module, batches(), verbose=False)
    trainer(OnwardCallback(out), fast_dev_run=True).fit(module, batches())
    assert not out.exists()
