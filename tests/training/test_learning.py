"""Strategies in real runs: bad input is a typed error, nothing is lost, and replay is exact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import onward
from onward import errors, learning
from onward.data import Folder

from .learners import Learner, Points, about, history, increment, newest

FIRST, MORE = Points(range(16)), Points(range(24))
NEXT = Points(range(100, 116))


def er(memory: int = 6, **options: Any) -> Any:
    return learning.strategy("er", memory=memory, **options)


# Bad input.


@pytest.mark.parametrize("memory", [0, -1, 2.5, True, None])
def test_a_memory_of_nothing_is_refused(tmp_path: Path, memory: Any) -> None:
    """It says what else there is, and no output is made."""
    with pytest.raises(errors.UsageError) as caught:
        Learner(tmp_path / "out", strategy=er(memory))
    assert caught.value.do
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("strategy", ["er", "nothing of the kind", [3], ["er"]])
def test_a_strategy_that_is_none_is_refused(tmp_path: Path, strategy: Any) -> None:
    """Names that lack a memory, unknown ones, and things that are no hooks."""
    with pytest.raises(errors.UsageError) as caught:
        Learner(tmp_path / "out", strategy=strategy)
    assert caught.value.do


def test_two_items_with_one_id_are_refused(tmp_path: Path) -> None:
    """With the id; the output is as before, and the mended command goes on."""
    increment(tmp_path, FIRST)
    before = newest(tmp_path).checkpoint
    learner = Learner(tmp_path)
    with pytest.raises(errors.DataError, match="20") as caught:
        learner.loader(MORE, ids=[*range(20), *range(20, 23), 20])
    assert caught.value.do
    learner.run.close()
    assert newest(tmp_path).checkpoint == before
    assert increment(tmp_path, MORE).run.increment == 2


@pytest.mark.parametrize("strategy", ["uniform", "er"])
def test_a_label_outside_the_head_is_refused_before_anything_trains(
    tmp_path: Path, strategy: str
) -> None:
    """With the label; then the same output goes on with good labels."""
    hooks: Callable[[], Any] = er if strategy == "er" else lambda: "uniform"
    increment(tmp_path, FIRST, strategy=hooks())
    before = newest(tmp_path).checkpoint
    bad = Points(range(24), classes=2)
    bad.labels[20] = 7
    with pytest.raises(errors.UnknownLabel, match="7") as caught:
        increment(tmp_path, bad, strategy=hooks())
    assert caught.value.labels == [7]
    assert newest(tmp_path).checkpoint == before
    assert increment(tmp_path, MORE, strategy=hooks()).run.increment == 2


@pytest.mark.parametrize(
    "labels", [[0] * 5, np.zeros((16, 2), int), ["a"] * 16, np.full(16, 0.5), [-1] * 16]
)
def test_labels_that_are_none_are_refused(tmp_path: Path, labels: Any) -> None:
    """One whole number for each item, from 0 on."""
    with pytest.raises((errors.DataError, errors.UsageError)) as caught:
        increment(tmp_path, FIRST, loading={"labels": labels})
    assert caught.value.do
    assert history(tmp_path).latest() is None


def test_nothing_new_ends_before_any_worker(tmp_path: Path) -> None:
    """Exit code 0, before a data worker starts or an item is read."""
    increment(tmp_path, FIRST)

    class Unread(Points):
        def __getitem__(self, index: int) -> Any:
            raise AssertionError("read")

    with pytest.raises(SystemExit) as caught:
        increment(tmp_path, Unread(range(16)), loading={"num_workers": 2})
    assert isinstance(caught.value, errors.NothingNew)
    assert caught.value.code == 0


def test_only_new_needs_ids(tmp_path: Path) -> None:
    """Without them nobody could tell old from new."""
    with pytest.raises(errors.UsageError, match="ids"):
        increment(tmp_path, FIRST, loading={"only_new": True, "ids": None})


def test_two_loaders_with_a_memory_are_refused(tmp_path: Path) -> None:
    """A memory is about one; the default strategy takes several."""
    learner = Learner(tmp_path, strategy=er())
    learner.loader(FIRST)
    with pytest.raises(errors.UsageError, match="two loaders"):
        learner.loader(NEXT)
    learner.run.close()
    both = Learner(tmp_path)
    assert both.loader(FIRST) is not both.loader(NEXT)
    both.run.close()


def test_a_penalty_outside_of_a_batch_is_refused(tmp_path: Path) -> None:
    """Before the loop, and after it."""
    learner = Learner(tmp_path, strategy="lwf")
    with pytest.raises(errors.UsageError, match="no batch"):
        learner.run.penalty(torch.zeros(1, 2))
    loader = learner.loader(FIRST)
    learner.run.plan(1)
    learner.loop(loader)
    with pytest.raises(errors.UsageError, match="no batch"):
        learner.run.penalty(torch.zeros(1, 2))
    learner.run.finish()


@pytest.mark.parametrize("rows", [1, 3])
def test_outputs_of_another_batch_are_refused(tmp_path: Path, rows: int) -> None:
    """A penalty is about the rows of the batch; other ones would be matched wrongly."""
    increment(tmp_path, FIRST, strategy=learning.strategy("der++", memory=6))
    learner = Learner(tmp_path, strategy=learning.strategy("der++", memory=6))
    loader = learner.loader(MORE)
    learner.run.plan(1)
    for batch in loader:
        with pytest.raises(errors.OnwardError):
            learner.run.penalty(learner.model(batch[0])[:rows])
        break
    learner.run.close()


class Raising(learning.Penalty, learning.Observer, learning.Transform):
    """A hook that raises where it is told to."""

    name = "raising"

    def __init__(self, where: str) -> None:
        self.where = where

    def _at(self, where: str) -> None:
        if where == self.where:
            raise RuntimeError(f"raised at {where}")

    def begin(self, setting: Any) -> None:
        self._at("begin")

    def penalty(self, outputs: Any, batch: Any) -> Any:
        self._at("penalty")
        return 0.0

    def before_increment(self, lessons: Any) -> None:
        self._at("before_increment")

    def after_step(self) -> None:
        self._at("after_step")

    def after_increment(self, lessons: Any) -> None:
        self._at("after_increment")

    def at_start(self, fresh: Any) -> None:
        self._at("at_start")

    def state_dict(self) -> dict[str, Any]:
        return {"version": 1}

    def load_state_dict(self, state_dict: Any) -> None:
        return None


@pytest.mark.parametrize(
    "where", ["begin", "penalty", "before_increment", "after_step", "after_increment", "at_start"]
)
def test_a_hook_that_raises_costs_nothing_that_was_saved(tmp_path: Path, where: str) -> None:
    """Its own error is what the script sees; mended, the same command ends as if never raised."""
    for output in ("whole", "raised"):
        increment(tmp_path / output, FIRST, strategy=Raising(""))
    whole = increment(tmp_path / "whole", MORE, strategy=Raising(""))
    before = newest(tmp_path / "raised").checkpoint
    with pytest.raises(RuntimeError, match=where):
        increment(tmp_path / "raised", MORE, strategy=Raising(where))
    assert newest(tmp_path / "raised").parent in (before, newest(tmp_path / "raised").parent)
    assert not newest(tmp_path / "raised").finished or (
        newest(tmp_path / "raised").checkpoint == before
    )
    mended = increment(tmp_path / "raised", MORE, strategy=Raising(""))
    assert torch.equal(mended.model.weight, whole.model.weight)


def folder_of_points(path: Path) -> Path:
    path.mkdir()
    for number in range(12):
        (path / f"{number}.txt").write_text(f"{number} {number % 2}")
    return path


def _collate(files: list[bytes]) -> tuple[torch.Tensor, torch.Tensor]:
    numbers = torch.tensor([[float(word) for word in file.split()] for file in files])
    return numbers[:, :1].expand(-1, 4) / 12, numbers[:, 1].long()


def learn_folder(
    output: Path, data: Path, *, stop: int = -1, spoil: Callable[[], None] = lambda: None
) -> onward.Run:
    learner = Learner(output)
    try:
        loader = learner.run.loader(Folder(data), batch_size=4, collate_fn=_collate)
        learner.run.plan(1)
        spoil()
        if learner.loop(loader, stop=stop):
            learner.run.finish()
    finally:
        learner.run.close()
    return learner.run


def test_a_file_that_fails_while_it_is_read_is_named(tmp_path: Path) -> None:
    """A typed error with the file; the output is as before, and the mended folder goes on."""
    data, output = folder_of_points(tmp_path / "data"), tmp_path / "out"
    with pytest.raises(errors.DataError, match=r"9\.txt") as caught:
        learn_folder(output, data, spoil=(data / "9.txt").unlink)
    assert caught.value.do
    (data / "9.txt").write_text("9 1")
    assert learn_folder(output, data).increment == 1
    assert newest(output).finished


# Data that changes.


def test_grown_data_does_not_change_an_unfinished_increment(tmp_path: Path) -> None:
    """What came meanwhile is for the next increment; the bits are those of the data as it was."""
    whole = increment(tmp_path / "whole", FIRST, budget=2)
    increment(tmp_path / "grown", FIRST, budget=2, stop=3)
    grown = Points([*range(50, 60), *range(16)])
    resumed = increment(tmp_path / "grown", grown, budget=2)
    assert resumed.run.increment == 1
    assert torch.equal(resumed.model.weight, whole.model.weight)
    following = Learner(tmp_path / "grown")
    assert [grown.ids[i] for i in following.loader(grown).new] == list(range(50, 60))
    following.run.close()


def test_changed_content_is_refused_by_a_resume_and_learned_by_a_continue(tmp_path: Path) -> None:
    """The refusal shows both digests; put back, the increment goes on; later the change is new."""
    data, output = folder_of_points(tmp_path / "data"), tmp_path / "out"
    learn_folder(output, data, stop=1)
    before = newest(output).checkpoint
    (data / "3.txt").write_text("33 1")
    with pytest.raises(errors.DataChanged, match=r"3\.txt.*was [0-9a-f]+ and is [0-9a-f]+"):
        learn_folder(output, data)
    assert newest(output).checkpoint == before
    (data / "3.txt").write_text("3 1")
    assert learn_folder(output, data).increment == 1
    (data / "3.txt").write_text("33 1")
    assert learn_folder(output, data).increment == 2
    assert about(output)["new"] == 1


# A resume is as it began.


def test_a_resume_with_another_strategy_is_refused(tmp_path: Path) -> None:
    """Every difference is told; with the one it began with it goes on."""
    increment(tmp_path, FIRST, strategy=er(), stop=2)
    with pytest.raises(errors.Mismatch, match="another strategy"):
        increment(tmp_path, FIRST)
    assert increment(tmp_path, FIRST, strategy=er()).run.increment == 1
    assert increment(tmp_path, MORE, strategy="uniform").run.increment == 2


@pytest.mark.parametrize("size", [3, 12])
def test_a_resume_with_another_memory_goes_on_with_what_it_began_with(
    tmp_path: Path, size: int
) -> None:
    """The same batches; only what is remembered afterwards is of the new size."""
    only = {"only_new": True}
    for output in ("whole", "other"):
        increment(tmp_path / output, FIRST, strategy=er(), loading=only)
    whole = increment(tmp_path / "whole", NEXT, strategy=er(), loading=only, budget=2)
    killed = increment(tmp_path / "other", NEXT, strategy=er(), loading=only, budget=2, stop=6)
    resumed = increment(tmp_path / "other", NEXT, strategy=er(size), loading=only, budget=2)
    assert killed.rows + resumed.rows == whole.rows
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert about(tmp_path / "other")["memory"]["items"] == size


@pytest.mark.parametrize("budget", [1, 2, "5 steps"])
def test_a_plan_with_a_memory_trains_what_it_says(tmp_path: Path, budget: Any) -> None:
    """Steps made are steps planned, and the rate is about zero at the last of them."""
    only = {"only_new": True}
    increment(tmp_path, FIRST, strategy=er(), loading=only)
    learner = increment(tmp_path, NEXT, strategy=er(), loading=only, budget=budget)
    assert learner.run.increment_step == about(tmp_path)["plan"]["steps"]
    assert len(set(learner.rates)) == len(learner.rates)


def test_a_fixed_replay_with_a_memory_replays_from_the_memory(tmp_path: Path) -> None:
    """`replay=1.0`: one remembered sample for each new item, instead of the strategy's share."""
    only = {"only_new": True}
    increment(tmp_path, FIRST, strategy=er(), loading=only)
    learner = increment(tmp_path, NEXT, strategy=er(), loading={**only, "replay": 1.0})
    rows = [row for rows in learner.rows for row in rows]
    assert sum(row >= 16 for row in rows) == len(rows) / 2


# Replay is exact, whatever the workers.


@pytest.mark.parametrize("strategy", ["uniform", "er", "der++"])
def test_the_bits_do_not_depend_on_workers(tmp_path: Path, strategy: str) -> None:
    """Some or none, through a resume with another number; provenance too."""
    found = []
    for output, (first, second) in {"none": (0, 0), "two": (2, 2), "mixed": (0, 2)}.items():
        rows = []
        weights = None
        for data, stop in ((FIRST, -1), (MORE, 10), (MORE, -1)):
            workers = second if stop >= 0 or data is FIRST else first
            hooks = strategy if strategy == "uniform" else learning.strategy(strategy, memory=6)
            loading = {
                "num_workers": workers, "only_new": strategy != "uniform",
            }  # fmt: skip
            learner = increment(
                tmp_path / output, data, strategy=hooks, stop=stop, budget=2, loading=loading
            )
            rows += learner.rows
            weights = learner.model.weight.detach().clone()
        found.append((rows, weights))
    for rows, weights in found[1:]:
        assert rows == found[0][0]
        assert torch.equal(weights, found[0][1])


class Texts(torch.utils.data.Dataset[dict[str, Any]]):
    """Texts with their labels, as a mapping."""

    def __init__(self, numbers: range) -> None:
        self.ids = [str(number) for number in numbers]
        self.labels = [number % 2 for number in numbers]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"text": f"text {self.ids[index]}", "labels": self.labels[index]}


@pytest.mark.parametrize("collate", [None, "own"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("strategy", ["er", "der++"])
def test_texts_in_mappings_are_remembered(
    tmp_path: Path, collate: str | None, workers: int, strategy: str
) -> None:
    """Each row's text belongs to its label, whether it is new or remembered."""

    def own(samples: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "text": [sample["text"] for sample in samples],
            "labels": torch.tensor([int(sample["labels"]) for sample in samples]),
        }

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rows = nn.Embedding(64, 2)

        def forward(self, text: list[str]) -> torch.Tensor:
            return self.rows(torch.tensor([int(t.split()[1]) for t in text]))

    remembered = 0
    for numbers in (range(12), range(20, 32), range(40, 52)):
        torch.manual_seed(0)
        model = Model()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = Texts(numbers)
        run = onward.open(
            tmp_path, model=model, optimizer=optimizer, save_every_seconds=None,
            strategy=learning.strategy(strategy, memory=4),
        )  # fmt: skip
        loader = run.loader(
            data, batch_size=4, ids=data.ids, only_new=True, num_workers=workers,
            collate_fn=own if collate else None,
        )  # fmt: skip
        run.plan(1)
        for _epoch in run.epochs():
            for batch in loader:
                parities = [int(text.split()[1]) % 2 for text in batch["text"]]
                assert batch["labels"].tolist() == parities
                assert batch["labels"].dtype == torch.int64
                for row, text in zip(loader.rows, batch["text"], strict=True):
                    old = int(text.split()[1]) not in numbers
                    remembered += old
                    assert (row >= len(data)) == old
                outputs = model(batch["text"])
                loss = nn.functional.cross_entropy(outputs, batch["labels"])
                loss = loss + run.penalty(outputs)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
        run.finish()
    assert remembered


def test_what_is_remembered_is_what_raw_gives(tmp_path: Path) -> None:
    """Not the augmented sample: with `raw=`, the memory keeps that, in the loader's own form."""
    kept: list[int] = []

    def raw(index: int) -> tuple[torch.Tensor, int]:
        kept.append(index)
        return torch.full((4,), 9.0), 1

    only = {"only_new": True, "raw": raw}
    increment(tmp_path, FIRST, strategy=er(), loading=only)
    assert len(kept) == 6
    learner = Learner(tmp_path, strategy=er())
    loader = learner.loader(NEXT, **only)
    learner.run.plan(1)
    for batch in loader:
        for row, values in zip(loader.rows, batch[0], strict=True):
            assert (row >= 16) == bool((values == 9.0).all())
    learner.run.close()
