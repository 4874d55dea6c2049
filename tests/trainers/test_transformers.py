"""The callback for `transformers`: what it continues, what it tells, what it refuses."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.utils.data import DataLoader, Dataset, IterableDataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    EarlyStoppingCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from onward import learning
from onward.errors import Mismatch, NothingNew, Stopped, UsageError
from onward.learning.hooks import Penalty
from onward.repository import Commit, open_repository
from onward.stores import open_store
from onward.trainers.transformers import OnwardCallback
from onward.trainers.transformers_checks import TESTED

pytestmark = pytest.mark.filterwarnings("ignore")

TOKENS, CLASSES = 6, 4


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    transformers.logging.set_verbosity_error()
    monkeypatch.chdir(tmp_path)  # where the trainers' own folders go
    torch.manual_seed(0)
    torch.set_num_threads(1)


class Sentences(Dataset[dict[str, Any]]):
    """Token ids with a class each."""

    def __init__(self, items: range) -> None:
        self.items = items
        self.labels = [item % CLASSES for item in items]
        self.asked: list[int] = []

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        self.asked.append(self.items[index])
        generator = torch.Generator().manual_seed(self.items[index])
        ids = torch.randint(1, 32, (TOKENS,), generator=generator)
        return {"input_ids": ids, "labels": self.labels[index]}


class Stream(IterableDataset[dict[str, Any]]):
    def __init__(self, count: int) -> None:
        self.data = Sentences(range(count))

    def __iter__(self) -> Any:
        return (self.data[index] for index in range(len(self.data)))


class Rates(TrainerCallback):
    """Notes the learning rate of each step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_pre_optimizer_step(self, *args: Any, optimizer: Any, **kwargs: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


class Fails(TrainerCallback):
    def __init__(self, at: int, call: Callable[[], None]) -> None:
        self.at, self.call = at, call

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.at:
            self.call()


def boom() -> None:
    raise RuntimeError("boom")


def network() -> BertForSequenceClassification:
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=32, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=16, max_position_embeddings=TOKENS, num_labels=CLASSES,
        )
    )  # fmt: skip


def trainer(
    *callbacks: TrainerCallback,
    data: Any = None,
    kind: type[Trainer] = Trainer,
    model: Any = None,
    **options: Any,
) -> Trainer:
    arguments: dict[str, Any] = {
        "output_dir": "trainer", "num_train_epochs": 2, "per_device_train_batch_size": 4,
        "learning_rate": 1e-2, "save_strategy": "no", "report_to": [], "disable_tqdm": True,
        "use_cpu": True, "logging_steps": 5, "dataloader_pin_memory": False,
    } | options  # fmt: skip
    return kind(
        model=model or network(),
        args=TrainingArguments(**arguments),
        train_dataset=Sentences(range(24)) if data is None else data,
        eval_dataset=Sentences(range(100, 108)),
        callbacks=list(callbacks),
    )


def commits(output: Path | str) -> list[Commit]:
    return list(open_repository(open_store(output)).history.live())


# What it continues.


def test_an_increment_has_the_trainers_budget_for_itself(tmp_path: Path) -> None:
    """`num_train_epochs` epochs of what is new, old samples beside; the schedule spans them."""
    first, second = Rates(), Rates()
    trainer(OnwardCallback("out"), first).train()
    data = Sentences(range(32))
    again = trainer(OnwardCallback("out"), second, data=data)
    found = again.train()
    one, two = (c for c in commits("out") if c.finished)
    assert (one.increment, one.step, two.increment) == (1, 12, 2)
    assert two.step - one.step == found.global_step == 2 * 4  # 8 new and 8 old, in batches of 4
    assert len(set(data.asked) & set(range(24, 32))) == 8
    assert set(data.asked) & set(range(24))
    assert first.seen[0] == second.seen[0] == 1e-2
    assert 0 < second.seen[-1] < second.seen[0] / 4


def test_max_steps_are_the_increments_own(tmp_path: Path) -> None:
    """The same number again in the second increment, and not what is left of it."""
    trainer(OnwardCallback("out"), max_steps=5).train()
    trainer(OnwardCallback("out"), max_steps=5, data=Sentences(range(48))).train()
    assert [c.step for c in commits("out") if c.finished] == [5, 10]


def test_one_trainer_trains_twice(tmp_path: Path) -> None:
    """Given more data after `train()`, the same trainer trains the next increment."""
    one = trainer(OnwardCallback("out"))
    one.train()
    one.train_dataset = Sentences(range(32))
    one.train()
    assert [(c.increment, c.step) for c in commits("out") if c.finished] == [(1, 12), (2, 20)]


def test_nothing_new_says_so_and_ends_a_script_with_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished model and the same data: no step is made."""
    trainer(OnwardCallback("out")).train()
    before = len(commits("out"))
    rates = Rates()
    with pytest.raises(NothingNew) as raised:
        trainer(OnwardCallback("out"), rates).train()
    assert raised.value.code == 0
    assert "new" in capsys.readouterr().out
    assert (rates.seen, len(commits("out"))) == ([], before)


def test_the_budget_of_the_job_takes_the_place_of_the_trainers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More or less than num_train_epochs: the trainer is held to what the job asks."""
    for steps in (3, 20):
        out = str(tmp_path / str(steps))
        monkeypatch.setenv("ONWARD_OUTPUT", out)
        monkeypatch.setenv("ONWARD_BUDGET", f"{steps} steps")
        trainer(OnwardCallback(out)).train()
        assert (commits(out)[-1].step, commits(out)[-1].finished) == (steps, True)


def test_a_plan_takes_the_place_of_the_trainers_budget(tmp_path: Path) -> None:
    """A share of a retrain: that many steps, with the trainer's own schedule over them."""
    plan = "0.25 x retrain"
    trainer(OnwardCallback("out", plan=plan), num_train_epochs=2).train()
    first = commits("out")[-1]
    rates = Rates()
    again = trainer(
        OnwardCallback("out", plan=plan), rates, data=Sentences(range(40)), num_train_epochs=100
    )
    again.train()
    # Of 40 items, twice, in batches of 4.
    assert commits("out")[-1].step - first.step == len(rates.seen) == 5
    assert again.args.max_steps == -1
    assert rates.seen[0] == 1e-2
    assert rates.seen[-1] == pytest.approx(1e-2 / 5)


def test_a_share_of_an_epoch_is_as_many_steps_as_the_trainer_makes_of_it(tmp_path: Path) -> None:
    """`num_train_epochs=0.4` of 7 batches, two of which make a step: two steps."""
    found = trainer(
        OnwardCallback("out"),
        data=Sentences(range(28)), num_train_epochs=0.4, gradient_accumulation_steps=2,
    ).train()  # fmt: skip
    assert found.global_step == commits("out")[-1].step == 2


def test_ids_tell_what_is_new(tmp_path: Path) -> None:
    """In another order, and with new items among the old: those are learned, each once an epoch."""
    names = [f"item {i}" for i in range(24)]
    trainer(OnwardCallback("out", ids=names)).train()
    data = Sentences(range(32))
    data.items = [*range(24, 32), *range(24)]  # type: ignore[assignment]
    again = [f"item {i}" for i in data.items]
    found = trainer(OnwardCallback("out", ids=again), data=data).train()
    assert found.global_step == 8
    assert all(data.asked.count(item) >= 1 for item in range(24, 32))


def test_early_stopping_judges_each_increment_anew(tmp_path: Path) -> None:
    """Patience and the best metric belong to an increment, like the trainer's other counters."""
    options = {
        "eval_strategy": "epoch", "metric_for_best_model": "loss", "learning_rate": 0.0 + 1e-9,
        "num_train_epochs": 6,
    }  # fmt: skip
    for items in (24, 40):
        stopping = EarlyStoppingCallback(1, early_stopping_threshold=1.0)
        one = trainer(OnwardCallback("out"), stopping, data=Sentences(range(items)), **options)
        one.train()
        assert round(one.state.epoch) == 2  # the first evaluation is the best, the second no better
    assert [c.increment for c in commits("out") if c.finished] == [1, 2]


def test_a_stream_is_trained_on(tmp_path: Path) -> None:
    """An `IterableDataset` is read by `run.batches`; as much again is a further increment."""
    trainer(OnwardCallback("out"), data=Stream(24), max_steps=5).train()
    trainer(OnwardCallback("out"), data=Stream(24), max_steps=3).train()
    assert [c.step for c in commits("out") if c.finished] == [5, 8]


class OwnLoader(Trainer):
    def get_train_dataloader(self) -> DataLoader[Any]:
        data = torch.utils.data.Subset(self.train_dataset, range(8))
        return DataLoader(data, batch_size=2, collate_fn=self.data_collator)


def test_a_subclass_with_a_loader_of_its_own_is_trained_on_that(tmp_path: Path) -> None:
    """What a user's class overrides is not passed over."""
    data = Sentences(range(24))
    found = trainer(OnwardCallback("out"), data=data, kind=OwnLoader).train()
    assert found.global_step == 2 * 4
    assert set(data.asked) == set(range(8))


def test_a_model_made_by_a_function(tmp_path: Path) -> None:
    """`model_init` makes the model when training begins: that one is restored and saved."""
    made: list[Any] = []

    def make() -> Any:
        made.append(network())
        return made[-1]

    for items in (24, 32):
        one = Trainer(
            model_init=make,
            args=trainer().args,
            train_dataset=Sentences(range(items)),
            callbacks=[OnwardCallback("out")],
        )
        one.train()
        assert one.model is made[-1]
    assert [c.increment for c in commits("out") if c.finished] == [1, 2]


def test_optimizer_and_scheduler_of_the_user(tmp_path: Path) -> None:
    """Given as `optimizers=`, they are saved and restored like the trainer's own."""
    for call in (boom, lambda: None):
        model, rates = network(), Rates()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.5)
        one = Trainer(
            model=model, args=trainer().args, train_dataset=Sentences(range(24)),
            optimizers=(optimizer, scheduler),
            callbacks=[OnwardCallback("out", save_every_steps=1, staging=False), rates,
                       Fails(6, call)],
        )  # fmt: skip
        if call is boom:
            with pytest.raises(RuntimeError, match="boom"):
                one.train()
        else:
            one.train()
    assert rates.seen == [0.1 * 0.5 ** (step // 2) for step in range(5, 12)]


class Constant(Penalty):
    """One, for every batch; notes the rows that it was given."""

    name = "constant"

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []

    def penalty(self, outputs: Any, batch: Any) -> Any:
        self.rows.append((len(outputs), batch.size))
        return 1.0

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Any) -> None:
        return None


def test_a_penalty_is_added_to_the_loss(tmp_path: Path) -> None:
    """A strategy with a penalty learns through the trainer's `compute_loss`, in training only."""
    model = network().state_dict()
    losses, hook = [], Constant()
    for strategy in ((), hook):
        one = trainer(OnwardCallback(f"out{len(losses)}", strategy=strategy))
        one.model.load_state_dict(model)
        losses.append(one.train().training_loss)
        one.evaluate()
    assert losses[1] == pytest.approx(losses[0] + 1, abs=1e-4)
    assert hook.rows == [(4, 4)] * 12


@pytest.mark.parametrize("name", ["er", "der++"])
def test_a_replay_memory_holds_items_of_the_trainers_kind(name: str, tmp_path: Path) -> None:
    """Given only what is new, the second increment repeats what the memory kept of the first."""
    seen: list[int] = []

    class Notes(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            seen.append(len(inputs["labels"]))
            return super().compute_loss(model, inputs, *args, **kwargs)

    for part in (range(24), range(24, 48)):
        seen.clear()
        strategy, data = learning.strategy(name, memory=12), Sentences(part)
        callback = OnwardCallback("out", strategy=strategy, only_new=True, ids=[*map(str, part)])
        trainer(callback, data=data, kind=Notes).train()
        assert set(data.asked) == set(part)
    assert commits("out")[-1].increment == 2
    assert sum(seen) > 2 * 24  # 24 new items an epoch, and others that the data no longer has


def test_holdouts_are_scored_by_what_prepare_says(tmp_path: Path) -> None:
    """`prepare` gets the run before data is looked at; a share is held out and scored."""

    def prepare(run: Any) -> None:
        def right(batch: Any) -> Any:
            logits = one.model(input_ids=batch["input_ids"]).logits
            return logits.argmax(1) == batch["labels"]

        run.scoring(right)

    one = trainer(OnwardCallback("out", prepare=prepare, holdout=0.25))
    one.train()
    assert "increment 1" in commits("out")[-1].scores.after
    assert commits("out")[-1].step < 12  # of what is not held out


# What it tells.


def test_logs_are_in_the_checkpoints(tmp_path: Path) -> None:
    """What the trainer logs as numbers are a checkpoint's metrics."""
    trainer(OnwardCallback("out"), eval_strategy="epoch").train()
    metrics = commits("out")[-1].metrics
    assert {"loss", "grad_norm", "learning_rate", "eval_loss", "train_loss"} <= metrics.keys()


def test_an_error_in_training_lets_go_of_the_output(tmp_path: Path) -> None:
    """The error is the user's; signals are as before, and the next process resumes."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RuntimeError, match="boom"):
        trainer(OnwardCallback("out", save_every_steps=2, staging=False), Fails(5, boom)).train()
    assert signal.getsignal(signal.SIGTERM) is before
    callback = OnwardCallback("out")
    trainer(callback).train()
    assert callback.run is not None
    assert callback.run.verb == "resume"
    assert commits("out")[-1].step == 12


def test_a_signal_stops_with_all_saved(tmp_path: Path) -> None:
    """SIGTERM: saved after that very step, `Stopped` with status 75."""
    with pytest.raises(Stopped) as raised:
        trainer(
            OnwardCallback("out"), Fails(5, lambda: signal.raise_signal(signal.SIGTERM))
        ).train()
    assert raised.value.code == 75
    assert (commits("out")[-1].step, commits("out")[-1].finished) == (5, False)


def test_without_training_it_does_nothing(tmp_path: Path) -> None:
    """`evaluate` and `predict`, and looking at the loader, open no output."""
    one = trainer(OnwardCallback("out"))
    one.evaluate()
    one.predict(Sentences(range(4)))
    assert isinstance(one.get_train_dataloader(), DataLoader)
    assert not (tmp_path / "out").exists()


def test_a_callback_added_later_is_attached_by_hand(tmp_path: Path) -> None:
    """It cannot know its trainer, and says so; `attach` tells it."""
    one = trainer()
    callback = OnwardCallback("out")
    one.add_callback(callback)
    with pytest.raises(UsageError, match=r"callback\.attach\(trainer\)"):
        one.train()
    callback.attach(one)
    one.train()
    assert commits("out")[-1].finished


# What it refuses.


@pytest.mark.parametrize("version", ["4.57.6", "5.2.0", "5.25.0", "6.0"])
def test_a_version_that_was_not_tested_is_refused(version: str) -> None:
    """It names the range, and the command that installs a version within it."""
    with pytest.raises(UsageError, match=r"5\.3 to 5\.24") as raised:
        TESTED.check(version)
    assert "pip install 'transformers>=5.3,<5.25'" in str(raised.value)


def refused(one: Trainer, words: str, *args: Any, **kwargs: Any) -> None:
    with pytest.raises(UsageError, match=words):
        one.train(*args, **kwargs)
    assert not Path("out").exists()


def test_a_checkpoint_of_the_trainers_own_is_refused(tmp_path: Path) -> None:
    """Two would decide where to go on from."""
    refused(trainer(OnwardCallback("out")), "resume_from_checkpoint", resume_from_checkpoint=True)
    refused(trainer(OnwardCallback("out")), "resume_from_checkpoint", "trainer/checkpoint-5")


def test_a_hyperparameter_search_is_refused(tmp_path: Path) -> None:
    """One output holds one model."""
    refused(trainer(OnwardCallback("out")), "search", trial={"learning_rate": 1})


@pytest.mark.parametrize(
    "name", ["auto_find_batch_size", "ignore_data_skip", "enable_jit_checkpoint"]
)
def test_arguments_that_an_exact_resume_cannot_have_are_refused(name: str, tmp_path: Path) -> None:
    """Each says why, before an output is made."""
    refused(trainer(OnwardCallback("out"), **{name: True}), name)


@pytest.mark.parametrize(
    ("name", "words"), [("is_deepspeed_enabled", "DeepSpeed"), ("is_fsdp_enabled", "FSDP")]
)
def test_sharded_training_is_refused(name: str, words: str, tmp_path: Path) -> None:
    """One process must hold all of the state."""
    one = trainer(OnwardCallback("out"))
    setattr(one, name, True)
    refused(one, words)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As torchrun would start them."""
    one = trainer(OnwardCallback("out"))
    monkeypatch.setattr(type(one.args), "world_size", property(lambda self: 2))
    refused(one, "2 processes")


def test_a_penalty_with_accumulation_is_refused(tmp_path: Path) -> None:
    """The trainer fetches ahead: the penalty would be about another batch."""
    refused(
        trainer(OnwardCallback("out", strategy="lwf"), gradient_accumulation_steps=2),
        "penalty|strategy",
    )


def test_options_of_the_loader_for_a_stream_are_refused(tmp_path: Path) -> None:
    """Nobody knows the items of a stream."""
    one = trainer(OnwardCallback("out", ids="content"), data=Stream(24), max_steps=5)
    with pytest.raises(UsageError, match="ids= cannot be used"):
        one.train()


def test_a_plan_that_is_a_time_is_refused(tmp_path: Path) -> None:
    """The trainer's schedule needs a number of steps."""
    with pytest.raises(UsageError, match="is a time"):
        trainer(OnwardCallback("out", plan="10 min")).train()


def test_objects_of_the_trainer_are_refused() -> None:
    """They are the trainer's to give."""
    with pytest.raises(UsageError, match="model, optimizer"):
        OnwardCallback("out", model=network(), optimizer=None)


def test_two_callbacks_are_refused(tmp_path: Path) -> None:
    """One trainer, one output."""
    with pytest.raises(UsageError, match="already"):
        trainer(OnwardCallback("out"), OnwardCallback("other"))


def interrupted(*callbacks: TrainerCallback, **options: Any) -> None:
    with pytest.raises(RuntimeError, match="boom"):
        trainer(
            OnwardCallback("out", save_every_steps=1, staging=False),
            *callbacks,
            Fails(4, boom),
            **options,
        ).train()


def test_other_accumulation_within_an_epoch_is_refused(tmp_path: Path) -> None:
    """The rest of the epoch would be other steps."""
    interrupted()
    with pytest.raises(Mismatch, match="gradient_accumulation_steps: 1 in the checkpoint, 2 now"):
        trainer(OnwardCallback("out"), gradient_accumulation_steps=2).train()


def test_a_callback_that_is_gone_is_told(tmp_path: Path) -> None:
    """State that nobody would take up is not skipped quietly."""
    options = {"eval_strategy": "epoch", "metric_for_best_model": "loss"}
    interrupted(EarlyStoppingCallback(3), **options)
    with pytest.raises(Mismatch, match="EarlyStoppingCallback"):
        trainer(OnwardCallback("out"), **options).train()


def test_a_best_model_that_is_gone_is_told(tmp_path: Path) -> None:
    """It is in the trainer's folder, which Onward does not keep."""
    options = {
        "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2,
        "load_best_model_at_end": True, "metric_for_best_model": "loss",
    }  # fmt: skip
    interrupted(**options)
    Path("trainer").rename("elsewhere")
    with pytest.raises(Mismatch, match="is no folder"):
        trainer(OnwardCallback("out"), **options).train()
    Path("elsewhere").rename("trainer")
    trainer(OnwardCallback("out"), **options).train()
    assert commits("out")[-1].finished
