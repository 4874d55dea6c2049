"""Saving behind the loop's back: what is stored is the state at that step, and nothing is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from torch import nn

import onward
from onward import errors
from onward.cli import main
from onward.repository import open_repository, read_state, verify
from onward.stores import LocalStore, open_store
from onward.training.interval import MeasuredInterval, young_daly
from tests.frameworks.torch_training import same, through_bytes


class Gate:
    """Holds every pack back until it is opened, so that a save stays on its way."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.reached = threading.Event()
        self.error: Exception | None = None

    def let_through(self) -> None:
        self.open.set()


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    found, put = Gate(), LocalStore.put

    def waiting(self: LocalStore, key: str, chunks: Any, size_bytes: int) -> None:
        if "packs/" in key:
            found.reached.set()
            assert found.open.wait(60)
            if found.error is not None:
                raise found.error
        put(self, key, chunks, size_bytes)

    monkeypatch.setattr(LocalStore, "put", waiting)
    yield found
    found.let_through()


class Net(nn.Module):
    """Everything that changes in its own way: weights, normalisation, counters, sparse rows."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2000, 16, sparse=True)
        self.dense = nn.Linear(16, 64)
        self.norm = nn.BatchNorm1d(64)
        self.out = nn.Linear(64, 3)
        self.frozen = nn.Linear(64, 64).requires_grad_(False)
        self.register_buffer("seen", torch.zeros(300, 300))

    def forward(self, ids: Any) -> Any:
        self.seen += 1
        return self.out(self.frozen(torch.relu(self.norm(self.dense(self.table(ids))))))


class Training:
    def __init__(self, *, fused: bool = False) -> None:
        torch.manual_seed(1)
        self.net = Net()
        dense = [p for n, p in self.net.named_parameters() if p.requires_grad and n[:5] != "table"]
        self.adam = torch.optim.AdamW(dense, lr=0.01, fused=fused)
        self.sparse = torch.optim.SparseAdam(list(self.net.table.parameters()), lr=0.01)

    def open(self, output: Path, **options: Any) -> onward.Run:
        options = {"save_every_seconds": None, **options}
        return onward.open(
            output, net=self.net, adam=self.adam, sparse=self.sparse, **options
        )  # fmt: skip

    def step(self, seed: int) -> None:
        ids = torch.randint(0, 2000, (8,), generator=torch.Generator().manual_seed(seed))
        loss = self.net(ids).square().mean()
        self.adam.zero_grad()
        self.sparse.zero_grad()
        loss.backward()
        self.adam.step()
        self.sparse.step()

    def captured(self) -> Any:
        """The state as it is now, in memory of its own."""
        from onward.frameworks import torch as framework

        return through_bytes(
            framework.capture({"net": self.net, "adam": self.adam, "sparse": self.sparse})
        )


def stored(output: Path, checkpoint: str | None) -> Any:
    repository = open_repository(open_store(output))
    commit = repository.history.commits[str(checkpoint)]
    state = read_state(repository.store, repository.manifest(commit))
    return {name: state[name] for name in ("net", "adam", "sparse")}


def mutate_everything(training: Training) -> None:
    """Every tensor, in ways that no version counter sees."""
    with torch.no_grad():
        for tensor in training.net.state_dict().values():
            tensor.view(-1).numpy()[...] += 1
        for optimizer in (training.adam, training.sparse):
            for values in optimizer.state.values():
                for value in values.values():
                    if isinstance(value, torch.Tensor):
                        value.data.add_(1)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("staging", [True, False])
def test_what_is_stored_is_the_state_before_what_came_after(
    tmp_path: Path, gate: Gate, fused: bool, staging: bool
) -> None:
    """Every tensor is changed while the save waits to write: the one before is stored, bitwise."""
    training = Training(fused=fused)
    run = training.open(tmp_path, staging=staging)
    if not staging:
        gate.let_through()
    saved: list[tuple[str, Any]] = []
    for number in range(4):
        training.step(number)
        run.step()
        run.wait()
        before = training.captured()
        checkpoint = run.save(wait=False)
        assert checkpoint is not None
        saved.append((checkpoint, before))
        if staging:
            assert gate.reached.wait(60)
        training.step(100 + number)
        if number == 2:
            mutate_everything(training)
        gate.open.set()
        run.wait()
        if staging:
            gate.open.clear()
            gate.reached.clear()
    gate.let_through()
    run.close()
    for checkpoint, before in saved:
        assert same(through_bytes(stored(tmp_path, checkpoint)), before)
    assert verify(open_repository(open_store(tmp_path)), every_byte=True).intact


def parts_of(output: Path, path: str) -> list[list[str]]:
    repository = open_repository(open_store(output))
    manifests = [repository.manifest(commit) for commit in repository.history.live()]
    found = [next(t for t in manifest.tensors if t.path == path) for manifest in manifests]
    return [[type(part).__name__ for part in tensor.parts] for tensor in found]


def test_a_save_costs_what_changed_also_after_a_resume(tmp_path: Path) -> None:
    """Sparse rows are patches, the frozen is named again, and a restart changes neither."""
    packs: list[str] = []
    for process in range(2):
        training = Training()
        run = training.open(tmp_path)
        assert run.verb == ("resume" if process else "fresh")
        for number in range(3):
            training.step(10 * process + number)
            run.step()
            run.save()
        state = training.captured()
        run.close()
    assert same(through_bytes(stored(tmp_path, run.checkpoint)), state)
    assert parts_of(tmp_path, "net/table.weight") == [["Full"] + ["Rows"] * n for n in range(6)]
    repository = open_repository(open_store(tmp_path))
    for commit in repository.history.live():
        manifest = repository.manifest(commit)
        (frozen,) = (t for t in manifest.tensors if t.path == "net/frozen.weight")
        packs += [found.pack for found in frozen.ranges()]
    assert len(set(packs)) == 1
    sizes = [commit.stored for commit in repository.history.live()]
    assert all(size < 0.7 * sizes[0] for size in sizes[1:])  # `seen` changes whole every time


def test_what_a_user_changed_after_the_restore_is_stored(tmp_path: Path) -> None:
    """Only what still is what was restored is taken for unchanged."""
    training = Training()
    with training.open(tmp_path) as run:
        training.step(0)
        run.step()
    again = Training()
    run = again.open(tmp_path, verb="continue")
    with torch.no_grad():
        again.net.frozen.weight.mul_(2)
        again.net.table.weight[7] = 5
    again.step(1)
    run.step()
    run.save()
    state = again.captured()
    run.close()
    assert same(through_bytes(stored(tmp_path, run.checkpoint)), state)


def test_a_save_between_a_restore_and_its_first_step_is_stored_as_it_was_taken(
    tmp_path: Path, gate: Gate
) -> None:
    """The first step after a resume comes while a save waits to write: the state before is stored.

    So does a training that resumes at an epoch's last step: the epoch's end is saved at once.
    """
    training = Training()
    gate.let_through()
    run = training.open(tmp_path)
    training.step(0)
    run.step()
    run.save()
    run.close()
    gate.open.clear()
    gate.reached.clear()
    again = Training()
    run = again.open(tmp_path)
    again.net.seen += 1
    before = again.captured()
    checkpoint = run.save(wait=False)
    assert gate.reached.wait(60)
    again.step(1)
    gate.let_through()
    run.close()
    assert same(through_bytes(stored(tmp_path, checkpoint)), before)


def test_a_save_asked_for_meanwhile_follows(tmp_path: Path, gate: Gate) -> None:
    """While one is on its way no second begins; it comes with the first step that finds it done."""
    training = Training()
    run = training.open(tmp_path, save_every_steps=1)
    for number in range(3):
        training.step(number)
        run.step()
    assert run.checkpoint is None
    assert run.save("a person asked", wait=False) is None
    gate.let_through()
    run.wait()
    training.step(3)
    run.step()
    run.close()
    commits = open_repository(open_store(tmp_path)).history.live()
    assert [(c.step, c.reason) for c in commits] == [(1, "every 1 steps"), (4, "a person asked")]
    assert commits[1].parent == commits[0].checkpoint


def test_finish_waits_for_the_save_on_its_way(tmp_path: Path, gate: Gate) -> None:
    """Nothing that was begun is left behind."""
    training = Training()
    run = training.open(tmp_path, save_every_steps=1)
    training.step(0)
    run.step()
    assert gate.reached.wait(60)
    timer = threading.Timer(0.05, gate.let_through)
    timer.start()
    run.finish()
    commits = open_repository(open_store(tmp_path)).history.live()
    assert [c.finished for c in commits] == [False, True]


def fail_one_save(run: onward.Run, training: Training, gate: Gate, error: Exception) -> None:
    gate.let_through()
    training.step(0)
    run.step()
    run.save()
    gate.error = error
    training.step(1)
    run.step()
    run.save(wait=False)
    run.wait()
    gate.error = None


@pytest.mark.parametrize(
    "error",
    [
        errors.NoSpace("the disk is full", do="free some space"),
        errors.Unreachable("the store does not answer"),
        errors.StoreError("could not write", why="[Errno 5] Input/output error"),
    ],
)
def test_a_failed_save_is_owed_and_told(
    tmp_path: Path, gate: Gate, error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    """The last checkpoint stays, the next save works and holds what the failed one did not store.

    The failure stands in the log, with its reason.
    """
    training = Training()
    run = training.open(tmp_path)
    fail_one_save(run, training, gate, error)
    assert "step 2 was NOT saved" in capsys.readouterr().err
    training.step(2)
    run.step()
    run.save()
    state = training.captured()
    run.close()
    commits = open_repository(open_store(tmp_path)).history.live()
    assert [c.step for c in commits] == [1, 3]
    assert commits[1].parent == commits[0].checkpoint
    assert [(m.step, error.what in m.why) for m in commits[1].failed_before] == [(2, True)]
    assert "\n" not in commits[1].failed_before[0].why
    assert same(through_bytes(stored(tmp_path, commits[1].checkpoint)), state)
    assert parts_of(tmp_path, "net/table.weight") == [["Full"], ["Full", "Rows"]]


def test_a_failed_save_stops_those_who_want_it(tmp_path: Path, gate: Gate) -> None:
    training = Training()
    run = training.open(tmp_path, on_save_failure="stop")
    with pytest.raises(errors.NoSpace):
        fail_one_save(run, training, gate, errors.NoSpace("the disk is full"))
    run.close()


def test_a_fenced_save_stops_training_at_the_next_step(tmp_path: Path, gate: Gate) -> None:
    """Another writer took over while the save was on its way: this run must not go on unsaved."""
    training = Training()
    run = training.open(tmp_path)
    training.step(0)
    run.step()
    run.wait()
    run.save(wait=False)
    assert gate.reached.wait(60)
    open_repository(open_store(tmp_path)).claim("another")
    gate.let_through()
    with pytest.raises(errors.Fenced):
        run.wait()
    run.close()


def test_too_little_memory_does_without_the_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state that does not fit twice is hashed and stored while training waits; it says so."""
    from onward.training import session

    monkeypatch.setattr(session, "available_bytes", lambda: 1000)
    training = Training()
    run = training.open(tmp_path)
    for number in range(2):
        training.step(number)
        run.step()
        run.wait()
        assert run.save(wait=False) is not None
    state = training.captured()
    run.close()
    told = capsys.readouterr().err
    assert told.count("too little memory for a second copy") == 1
    assert same(through_bytes(stored(tmp_path, run.checkpoint)), state)


def test_rebase_when_patches_pile_up(tmp_path: Path) -> None:
    """A tensor is written whole again before its patches weigh more than twice itself."""
    training = Training()
    run = training.open(tmp_path)
    for number in range(40):
        training.step(number)
        run.step()
        run.save()
    run.close()
    parts = parts_of(tmp_path, "net/table.weight")
    assert ["Full"] in parts[1:]
    assert max(map(len, parts)) <= 32
    assert verify(open_repository(open_store(tmp_path)), every_byte=True).intact


def test_rules_are_kept_to_while_training_goes_on(tmp_path: Path) -> None:
    """After each save what no rule keeps goes; aliases stay; a resumed run goes on from what is."""
    for _ in range(2):
        training = Training()
        run = training.open(tmp_path, keep_last=2, keep_best="score:max")
        for number in range(4):
            training.step(run.global_step)
            run.step()
            run.log(score=10.0 if run.global_step == 2 else float(number))
            run.save()
            if run.global_step == 1:
                open_repository(open_store(tmp_path)).set_alias("mine", run.checkpoint)
        state = training.captured()
        run.close()
    repository = open_repository(open_store(tmp_path))
    assert [c.step for c in repository.history.live()] == [1, 2, 7, 8]
    assert same(through_bytes(stored(tmp_path, run.checkpoint)), state)
    found = verify(repository, every_byte=True)
    assert found.intact
    assert found.leftovers == []


# When to save.


def test_young_and_daly() -> None:
    """The figures of the formula: the square root for small costs, the mean time for huge ones."""
    assert young_daly(0.4, 3 * 3600) == pytest.approx(92.95 - 0.4 + 0.133, abs=0.1)
    assert young_daly(60, 24 * 3600) == pytest.approx(3220 - 60 + 20, rel=0.01)
    assert young_daly(100, 40) == 40


def test_interval_follows_what_saves_cost() -> None:
    """The median of the last five decides, and never less than a save takes to be durable."""
    interval = MeasuredInterval(mtbf_s=3600)
    assert interval.seconds == 60
    for stall_s in (5.0, 0.1, 0.1, 0.1, 0.1):
        interval.observe(stall_s=stall_s, durable_s=2.0)
    assert interval.seconds == pytest.approx(young_daly(0.1, 3600))
    for _ in range(5):
        interval.observe(stall_s=0.1, durable_s=500.0)
    assert interval.seconds == 500


def test_auto_is_chosen_and_shown(
    tmp_path: Path,
) -> None:
    """`save_every="auto"` stores what it measured; `onward show` says it in a line."""
    training = Training()
    run = training.open(tmp_path, save_every="auto", mtbf_hours=1)
    for number in range(3):
        training.step(number)
        run.step()
        run.save(wait=False)
        run.wait()
    run.finish()
    shown = CliRunner().invoke(main, ["show", str(tmp_path), "latest"]).output
    assert "chosen for a failure every 60 min: a save stalls" in " ".join(shown.split())


@pytest.mark.parametrize(
    "options", [{"save_every": "often"}, {"mtbf_hours": 0}, {"mtbf_hours": float("inf")}]
)
def test_impossible_policies(tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(errors.UsageError, match=r"save_every|mtbf_hours"):
        Training().open(tmp_path, **options)
