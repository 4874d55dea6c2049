"""The run: verbs, budgets, saving, stopping, and errors that say everything at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from torch import nn

import onward
from onward import errors
from onward.repository import open_repository
from onward.stores import open_store

DATA = torch.utils.data.TensorDataset(torch.arange(24.0).reshape(12, 2), torch.arange(12) % 2)
MORE = torch.utils.data.TensorDataset(torch.arange(40.0).reshape(20, 2), torch.arange(20) % 2)


class Training:
    """A model and its optimizer, made alike each time, and a loop over them."""

    def __init__(self, *, out: int = 2, rate: float = 0.1) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(2, out)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=rate, momentum=0.9)

    def open(self, output: Path, **options: Any) -> onward.Run:
        options = {"save_every_seconds": None, **options}
        return onward.open(output, model=self.model, optimizer=self.optimizer, **options)

    def step(self, values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = nn.functional.cross_entropy(self.model(values / 40), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss


def train(
    output: Path,
    *,
    data: Any = DATA,
    epochs: int = 1,
    finish: bool = True,
    each: Callable[[onward.Run], None] = lambda run: None,
    **options: Any,
) -> onward.Run:
    training = Training()
    run = training.open(output, **options)
    loader = run.loader(data, batch_size=4)
    for _epoch in run.epochs(epochs):
        for values, labels in loader:
            run.step(loss=training.step(values, labels))
            each(run)
    if finish:
        run.finish()
    else:
        run.close()
    return run


def history(output: Path) -> Any:
    return open_repository(open_store(output)).history


def test_first_run_is_fresh_then_resumes_then_continues(tmp_path: Path) -> None:
    """The same call chooses the verb that is right, and says so."""
    assert train(tmp_path, finish=False).verb == "fresh"
    resumed = train(tmp_path)
    assert (resumed.verb, resumed.increment) == ("resume", 1)
    continued = train(tmp_path, data=MORE)
    assert (continued.verb, continued.increment, continued.global_step) == ("continue", 2, 3 + 4)
    assert [c.increment for c in history(tmp_path).live() if c.finished] == [1, 2]


def test_nothing_new_is_said_and_ends_with_status_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished model and no new data: a typed end, nothing trained, nothing written."""
    train(tmp_path)
    before = history(tmp_path).latest().checkpoint
    with pytest.raises(errors.NothingNew) as caught:
        train(tmp_path)
    assert caught.value.code == 0
    assert "nothing new" in capsys.readouterr().out
    assert history(tmp_path).latest().checkpoint == before


def test_the_agent_hears_that_there_is_nothing_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job that trained nothing can then say why."""
    train(tmp_path)
    reading, writing = os.pipe()
    monkeypatch.setenv("ONWARD_EVENTS_FD", str(writing))
    with pytest.raises(errors.NothingNew) as caught:
        train(tmp_path)
    os.close(writing)
    with open(reading) as pipe:
        told = [msgspec.json.decode(line) for line in pipe]
    assert {"nothing_new": caught.value.sentence()} in told


def test_continue_insisted_on_trains_again_on_the_same_data(tmp_path: Path) -> None:
    """verb="continue" is the way to train on without new data."""
    train(tmp_path)
    again = train(tmp_path, verb="continue")
    assert (again.increment, again.global_step) == (2, 6)


@pytest.mark.parametrize(
    ("before", "verb", "right"),
    [
        (None, "resume", "fresh"),
        (None, "continue", "fresh"),
        ("unfinished", "continue", "--resume"),
        ("finished", "resume", "--continue"),
        ("finished", "branch", "--branch"),
    ],
)
def test_impossible_verb_names_the_right_one(
    tmp_path: Path, before: str | None, verb: str, right: str
) -> None:
    """An impossible verb is refused before anything is claimed or made."""
    output = tmp_path / "out"
    if before is not None:
        train(output, finish=before == "finished")
    records = history(output).seq if before else None
    with pytest.raises(errors.WrongVerb, match=right):
        train(output, verb=verb, branch_from=str(output) if verb == "branch" else "")
    if before is None:
        assert not output.exists()
    else:
        assert history(output).seq == records


def test_branch_takes_weights_only_and_records_its_origin(tmp_path: Path) -> None:
    """A branch begins a new output from another's weights; step and moments are fresh."""
    train(tmp_path / "a")
    parent = history(tmp_path / "a").latest()
    training = Training()
    run = training.open(tmp_path / "b", branch_from=str(tmp_path / "a"))
    assert (run.verb, run.global_step, training.optimizer.state_dict()["state"]) == (
        "branch",
        0,
        {},
    )
    source = Training()
    with source.open(tmp_path / "c", branch_from=f"{tmp_path / 'a'}@{parent.checkpoint}") as other:
        assert torch.equal(source.model.weight, training.model.weight)
        for values, labels in other.loader(DATA, batch_size=4):
            other.step(loss=source.step(values, labels))
    run.close()
    repository = open_repository(open_store(tmp_path / "c"))
    manifest = repository.manifest(repository.history.live()[-1])
    assert manifest.origin == {"url": str(tmp_path / "a"), "checkpoint": parent.checkpoint}


def test_every_difference_is_reported_at_once_and_nothing_is_touched(tmp_path: Path) -> None:
    """A model that does not fit: all differences, live weights and log unchanged."""
    train(tmp_path, finish=False)
    seq = history(tmp_path).seq
    other = Training(out=5)
    before = other.model.weight.clone()
    with pytest.raises(errors.Mismatch) as caught:
        onward.open(tmp_path, model=other.model, optimizer=other.optimizer, extra=nn.Linear(1, 1))
    text = str(caught.value)
    for name in ("weight", "bias", "extra"):
        assert name in text
    assert "[2, 2]" in text
    assert "[5, 2]" in text
    assert torch.equal(before, other.model.weight)
    assert history(tmp_path).seq == seq


def test_zero_epochs_and_a_learning_rate_of_zero_are_refused(tmp_path: Path) -> None:
    """An increment that would train nothing is an error, not a finished model."""
    training = Training()
    run = training.open(tmp_path / "a")
    with pytest.raises(errors.EmptyBudget):
        list(run.epochs(0))
    with pytest.raises(errors.EmptyBudget):
        run.finish()
    run.close()
    still = Training(rate=0.0)
    run = still.open(tmp_path / "b")
    for values, labels in run.loader(DATA, batch_size=4):
        run.step(loss=still.step(values, labels))
    with pytest.raises(errors.EmptyBudget, match="learning rate"):
        run.finish()
    run.close()


def test_triggers_combine(tmp_path: Path) -> None:
    """Every N steps, at epochs' ends and on demand, each with its reason in the log."""

    def demand(run: onward.Run) -> None:
        if run.increment_step == 4:
            assert run.save("a person asked") == run.checkpoint

    train(tmp_path, epochs=2, save_every_steps=2, each=demand)
    reasons = [(c.step, c.reason) for c in history(tmp_path).live()]
    assert reasons == [
        (2, "every 2 steps"), (3, "end of epoch 1"), (4, "a person asked"),
        (6, "every 2 steps"), (6, "end of epoch 2"), (6, "finished"),
    ]  # fmt: skip


def test_save_among_accumulated_gradients_waits_for_the_step(tmp_path: Path) -> None:
    """A checkpoint never holds half an optimizer step."""
    training = Training()
    run = training.open(tmp_path, save_every_epoch=False)
    for number, (values, labels) in enumerate(run.loader(DATA, batch_size=4)):
        nn.functional.cross_entropy(training.model(values / 40), labels).backward()
        if number == 1:
            training.optimizer.step()
            training.optimizer.zero_grad()
        run.step()
        if number == 0:
            assert run.save() is None
    run.close()
    assert [(c.step, c.reason) for c in history(tmp_path).live()] == [(1, "asked for")]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(tmp_path: Path, number: int, code: int) -> None:
    """SIGTERM and Ctrl-C save at the step's end and exit with the documented status."""

    def ask(run: onward.Run) -> None:
        if run.increment_step == 2:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(onward.Stopped) as caught:
        train(tmp_path, epochs=5, each=ask)
    assert caught.value.code == code
    latest = history(tmp_path).latest()
    assert (latest.step, latest.finished, latest.reason) == (2, False, signal.Signals(number).name)
    assert signal.getsignal(number) == before
    assert train(tmp_path, epochs=5).global_step == 15


def test_damaged_newest_is_an_error_and_falls_back_only_when_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Damage raises and names what to do; fall-back names what it passed over and why."""
    train(tmp_path, epochs=2, finish=False)
    newest, older = list(history(tmp_path).newest_first())[:2]
    manifest = open_repository(open_store(tmp_path)).manifest(newest)
    own = [
        p
        for p in manifest.packs
        if p not in open_repository(open_store(tmp_path)).manifest(older).packs
    ]
    pack = tmp_path / "onward" / "packs" / f"{own[0]}.safetensors"
    data = bytearray(pack.read_bytes())
    data[-1] ^= 1
    pack.write_bytes(data)
    with pytest.raises(errors.Damaged, match="tensor"):
        train(tmp_path, epochs=2)
    run = train(tmp_path, epochs=2, on_damage="fall-back")
    assert run.global_step == 6
    assert newest.checkpoint in capsys.readouterr().err


def test_a_taken_over_run_stops_for_good(tmp_path: Path) -> None:
    """The earlier of two writers gets Fenced, which names who took over; it commits nothing."""
    first, second = Training(), Training()
    run = first.open(tmp_path)
    other = second.open(tmp_path)
    values, labels = DATA[:4]
    run.step(loss=first.step(values, labels))
    with pytest.raises(errors.Fenced, match=f"pid {os.getpid()}"):
        run.save()
    assert history(tmp_path).latest() is None
    other.step(loss=second.step(values, labels))
    assert other.save() is not None
    run.close()
    other.close()


def test_a_failing_store_warns_and_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A save that fails costs a checkpoint; the next one works; "stop" raises instead."""
    from onward.stores import LocalStore

    real, failing = LocalStore.put, {"now": True}

    def put(self: LocalStore, key: str, chunks: Any, size_bytes: int) -> None:
        if failing["now"] and "packs" in key:
            raise errors.NoSpace("the disk is full", do="free some space")
        real(self, key, chunks, size_bytes)

    monkeypatch.setattr(LocalStore, "put", put)

    def mend(run: onward.Run) -> None:
        run.wait()
        failing["now"] = run.increment_step < 2

    train(tmp_path / "a", save_every_steps=1, each=mend)
    assert "NOT saved" in capsys.readouterr().err
    commits = history(tmp_path / "a").live()
    assert [c.step for c in commits] == [3, 3, 3]
    assert [missed.step for missed in commits[0].missed] == [1, 2]
    assert "the disk is full" in commits[0].missed[0].why
    assert commits[1].missed is msgspec.UNSET
    failing["now"] = True
    with pytest.raises(errors.NoSpace):
        train(tmp_path / "b", save_every_steps=1, on_save_failure="stop")


def test_evaluation_changes_neither_randomness_nor_modes(tmp_path: Path) -> None:
    """How often a run is evaluated does not change what it learns; its numbers are kept."""
    training = Training()
    run = training.open(tmp_path)
    before = torch.get_rng_state()

    def evaluate() -> dict[str, float]:
        assert not training.model.training
        assert not torch.is_grad_enabled()
        return {"accuracy": float(torch.rand(()))}

    found = run.evaluate(evaluate, name="test")
    assert torch.equal(before, torch.get_rng_state())
    assert training.model.training
    run.step(loss=training.step(*DATA[:4]))
    run.save()
    run.close()
    assert history(tmp_path).latest().metrics["test_accuracy"] == found["test_accuracy"]


def test_a_metric_that_is_not_finite_is_recorded_as_unknown(tmp_path: Path) -> None:
    """A loss of NaN does not prevent the save that may help to find out why."""
    training = Training()
    run = training.open(tmp_path)
    training.step(*DATA[:4])
    run.step(loss=torch.tensor(float("nan")))
    run.save()
    run.close()
    assert history(tmp_path).latest().metrics == {"loss": None}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"save_every_steps": 0}, errors.UsageError),
        ({"verb": "restart"}, errors.UsageError),
        ({"checkpoint": "feedbeef"}, errors.UnknownCheckpoint),
        ({"onward": nn.Linear(1, 1)}, errors.UsageError),
        ({"extra": object()}, errors.Unstorable),
        ({"branch_from": "/nowhere/at/all"}, errors.NotAnOutput),
    ],
)
def test_bad_calls_are_refused_before_anything_is_made(
    tmp_path: Path, options: dict[str, Any], error: type[Exception]
) -> None:
    """Every wrong argument is a typed error, and the output stays unmade."""
    with pytest.raises(error):
        Training().open(tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_file_is_not_an_output(tmp_path: Path) -> None:
    """An output must be a folder; the message says what stands there."""
    (tmp_path / "out").write_text("hello")
    with pytest.raises(errors.OnwardError, match="out"):
        Training().open(tmp_path / "out")


def test_a_read_only_output_is_refused_at_the_start(tmp_path: Path) -> None:
    """Not being able to write is found when the run opens, not at its first save."""
    if os.geteuid() == 0:
        target = Path("/proc/onward-output")
    else:
        target = tmp_path / "locked"
        target.mkdir(mode=0o500)
    with pytest.raises(errors.StoreError):
        Training().open(target)


def test_data_gone_under_a_resume_is_refused(tmp_path: Path) -> None:
    """An unfinished increment goes on with the items it began with, or not at all."""
    train(tmp_path, data=MORE, epochs=2, finish=False)
    with pytest.raises(errors.DataChanged, match="20"):
        train(tmp_path, epochs=2)


def test_another_batch_size_within_an_epoch_is_refused(tmp_path: Path) -> None:
    """A position within an epoch means nothing under other settings."""
    train(tmp_path, save_every_steps=2, save_every_epoch=False, finish=False)
    training = Training()
    run = training.open(tmp_path)
    with pytest.raises(errors.Mismatch, match="batch_size"):
        run.loader(DATA, batch_size=6)
    run.close()


def test_save_before_the_step_waits_for_it(tmp_path: Path) -> None:
    """A batch that was taken but not learned is never counted as learned."""
    training = Training()
    run = training.open(tmp_path, save_every_epoch=False)
    for values, labels in run.loader(DATA, batch_size=4):
        if run.increment_step == 0:
            assert run.save("early") is None
        run.step(loss=training.step(values, labels))
    run.close()
    assert [(c.step, c.reason) for c in history(tmp_path).live()] == [(1, "early")]


def test_a_signal_during_evaluation_stops_at_the_epochs_end(tmp_path: Path) -> None:
    """What a loop does once per epoch is neither left out nor done twice by a stop."""
    training = Training()
    run = training.open(tmp_path)
    loader, held_out = (
        run.loader(DATA, batch_size=4),
        run.batches(torch.utils.data.DataLoader(DATA, batch_size=4)),
    )
    tails = []

    def train_and_evaluate() -> None:
        for epoch in run.epochs(3):
            for values, labels in loader:
                run.step(loss=training.step(values, labels))
            for number, _batch in enumerate(held_out):
                if number == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            tails.append(epoch)

    with pytest.raises(onward.Stopped):
        train_and_evaluate()
    assert tails == [0]
    latest = history(tmp_path).latest()
    assert (latest.epoch, latest.step) == (1, 3)


def _damage(output: Path, commit: Any, entry: str) -> None:
    """Changes the last byte of a tensor that is below `entry` in the state."""
    store = open_store(output)
    manifest = open_repository(store).manifest(commit)
    tensor = next(t for t in manifest.tensors if t.path.startswith(entry))
    found = next(tensor.ranges())
    pack = output / "onward" / "packs" / f"{found.pack}.safetensors"
    data = bytearray(pack.read_bytes())
    data[found.offset + found.size - 1] ^= 1
    pack.write_bytes(data)


@pytest.mark.parametrize("entry", ["model/", "optimizer/state/model.bias"])
@pytest.mark.parametrize("trained", [False, True])
def test_falling_back_ends_bitwise_in_the_older_checkpoint(
    tmp_path: Path, entry: str, trained: bool
) -> None:
    """Whatever the damaged one left in live objects, nothing of it stays."""
    train(tmp_path / "out", epochs=2, finish=False)
    newest, older = list(history(tmp_path / "out").newest_first())[:2]

    def opened(**options: Any) -> tuple[Any, Training]:
        training = Training(rate=0.3)
        if trained:
            training.step(*DATA[:4])
        training.open(tmp_path / "out", **options).close()
        return training.model.state_dict(), training

    expected, same = opened(checkpoint=older.checkpoint)
    _damage(tmp_path / "out", newest, entry)
    with pytest.raises(errors.Damaged, match=f"tensor {entry}"):
        opened()
    found, training = opened(on_damage="fall-back")
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    for ours, theirs in zip(training.model.parameters(), same.model.parameters(), strict=True):
        moment = training.optimizer.state[ours]["momentum_buffer"]
        assert torch.equal(moment, same.optimizer.state[theirs]["momentum_buffer"])
    assert training.optimizer.param_groups[0]["lr"] == 0.1


def test_restoring_keeps_the_live_tensors(tmp_path: Path) -> None:
    """Whoever holds a parameter holds it after the restore, with the value that was saved."""
    train(tmp_path, finish=False)
    training = Training()
    held = {name: (p, p.data_ptr()) for name, p in training.model.named_parameters()}
    training.open(tmp_path).close()
    for name, parameter in training.model.named_parameters():
        assert held[name] == (parameter, parameter.data_ptr())


def test_a_mismatch_touches_nothing(tmp_path: Path) -> None:
    """Nothing is read into a model that the checkpoint does not fit."""
    train(tmp_path, finish=False)
    training = Training(out=3)
    before = {name: value.clone() for name, value in training.model.state_dict().items()}
    with pytest.raises(errors.Mismatch):
        training.open(tmp_path)
    for name, value in training.model.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_branch_reads_only_weights(tmp_path: Path) -> None:
    """Damage in the origin's optimizer is nothing to a branch; in its weights it is."""
    train(tmp_path / "from", finish=False)
    latest = history(tmp_path / "from").latest()
    _damage(tmp_path / "from", latest, "optimizer/")
    Training().open(tmp_path / "to", branch_from=str(tmp_path / "from")).close()
    _damage(tmp_path / "from", latest, "model/")
    with pytest.raises(errors.Damaged, match="tensor model/"):
        Training().open(tmp_path / "to too", branch_from=str(tmp_path / "from"))
