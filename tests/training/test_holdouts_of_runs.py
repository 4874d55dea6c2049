"""Holdouts in real runs: scored by hand alike, never learned, never silently dropped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onward import errors, learning

from .learners import Learner, Points, history, increment, newest, scores

FIRST, MORE = Points(range(24)), Points(range(48))
HELD = Points(range(1000, 1040))


def give(name: str, data: Points, **options: Any) -> Any:
    def before(learner: Learner) -> None:
        learner.run.holdout(name, data, **{"ids": data.ids, **options})

    return before


def by_hand(learner: Learner, data: Points) -> float:
    batch = torch.utils.data.default_collate([data[i] for i in range(len(data))])
    with torch.no_grad():
        return float(learner.right(batch).double().mean())


# Bad input.


@pytest.mark.parametrize("share", [1, 1.5, -0.1, math.nan, math.inf, True])
def test_a_share_that_is_none_is_refused(tmp_path: Path, share: float) -> None:
    """It says what to give, and nothing is lost."""
    with pytest.raises(errors.UsageError) as caught:
        increment(tmp_path, FIRST, scored=True, loading={"holdout": share})
    assert caught.value.do
    assert history(tmp_path).latest() is None
    increment(tmp_path, FIRST, scored=True, loading={"holdout": 0})
    assert not scores(tmp_path)[0]


def test_a_holdout_needs_a_way_to_score(tmp_path: Path) -> None:
    """Carved or given: it says to call run.scoring first."""
    with pytest.raises(errors.UsageError, match=r"score"):
        increment(tmp_path, FIRST, loading={"holdout": 0.3})
    with pytest.raises(errors.UsageError, match=r"score"):
        increment(tmp_path, FIRST, before=give("test", HELD))


@pytest.mark.parametrize("first", ["holdout", "loader"])
def test_a_leak_is_refused_whichever_comes_first(tmp_path: Path, first: str) -> None:
    """With how many and which; the output is as before, and a clean command goes on."""
    increment(tmp_path, FIRST)
    before = newest(tmp_path).checkpoint
    learner = Learner(tmp_path).score()
    leaking = Points([40, 41, *HELD.ids])
    with pytest.raises(errors.Leak) as caught:  # noqa: PT012 - whichever comes second
        if first == "loader":
            learner.loader(MORE)
            learner.run.holdout("test", leaking, ids=leaking.ids)
        else:
            learner.run.holdout("test", leaking, ids=leaking.ids)
            learner.loader(MORE)
    assert caught.value.count == 2
    learner.run.close()
    assert newest(tmp_path).checkpoint == before
    increment(tmp_path, MORE, scored=True, before=give("test", HELD))


@pytest.mark.parametrize("strategy", ["uniform", "er"])
@pytest.mark.parametrize("first", ["holdout", "loader"])
def test_what_an_earlier_increment_learned_leaks_too(
    tmp_path: Path, first: str, strategy: str
) -> None:
    """Also where the present data does not hold these items any more."""
    hooks: Any = "uniform" if strategy == "uniform" else learning.strategy("er", memory=8)
    increment(tmp_path, FIRST, strategy=hooks)
    hooks = "uniform" if strategy == "uniform" else learning.strategy("er", memory=8)
    learner = Learner(tmp_path, strategy=hooks).score()
    leaking, new = Points([3, 5, *HELD.ids]), Points(range(100, 116))
    with pytest.raises(errors.Leak) as caught:  # noqa: PT012 - whichever comes second
        if first == "loader":
            learner.loader(new, only_new=True)
            learner.run.holdout("test", leaking, ids=leaking.ids)
        else:
            learner.run.holdout("test", leaking, ids=leaking.ids)
            learner.loader(new, only_new=True)
    assert caught.value.count == 2
    learner.run.close()


@pytest.mark.parametrize("first", ["holdout", "loader"])
def test_a_leak_under_a_resume_is_refused(tmp_path: Path, first: str) -> None:
    """An unfinished increment may have met these items."""
    increment(tmp_path, FIRST, stop=2)
    learner = Learner(tmp_path).score()
    with pytest.raises(errors.Leak) as caught:  # noqa: PT012 - whichever comes second
        if first == "loader":
            learner.loader(FIRST)
        learner.run.holdout("test", Points(range(4)), ids=range(4))
        learner.loader(FIRST)
    assert caught.value.count == 4
    learner.run.close()


@pytest.mark.parametrize(
    "function",
    [
        lambda batch: torch.tensor(True), lambda batch: torch.ones(len(batch[1]), 2),
        lambda batch: torch.ones(3), lambda batch: None, lambda batch: ["a"] * len(batch[1]),
        lambda batch: torch.full((len(batch[1]),), torch.nan),
        lambda batch: torch.full((len(batch[1]),), torch.inf),
    ],
)  # fmt: skip
def test_a_scoring_that_gives_something_else_is_refused(tmp_path: Path, function: Any) -> None:
    """Before anything is trained, because what is newly frozen is scored first."""
    before = increment(tmp_path, FIRST, scored=True, before=give("test", HELD)).run.checkpoint
    learner = Learner(tmp_path)
    learner.run.scoring(function)
    learner.run.holdout("test", HELD, ids=HELD.ids)
    learner.run.holdout("more", Points(range(2000, 2008)), ids=range(2000, 2008))
    learner.loader(MORE)
    with pytest.raises(errors.OnwardError) as caught:
        learner.run.plan(1)
    assert caught.value.do
    learner.run.close()
    assert newest(tmp_path).checkpoint == before
    increment(tmp_path, MORE, scored=True, before=give("test", HELD))


@pytest.mark.parametrize("strategy", ["uniform", "er"])
def test_a_scoring_that_raises_at_the_end_may_be_mended(tmp_path: Path, strategy: str) -> None:
    """Its own error; `finish` again ends with the same bits as if it had never raised."""
    found = []
    for output in ("whole", "raised"):
        hooks: Any = "uniform" if strategy == "uniform" else learning.strategy("er", memory=8)
        learner = Learner(tmp_path / output, strategy=hooks).score()
        learner.run.holdout("test", HELD, ids=HELD.ids)
        loader = learner.loader(FIRST)
        learner.run.plan(1)
        learner.loop(loader)
        if output == "raised":
            learner.run.scoring(lambda batch: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                learner.run.finish()
            learner.score()
        learner.run.finish()
        memory = learner.run._learning.learner.memory
        found.append(None if memory is None else memory.digests.tolist())
        assert newest(tmp_path / output).finished
    assert found[0] == found[1]


def test_scores_in_half_precision_are_scores(tmp_path: Path) -> None:
    """What a model under autocast gives: bfloat16, which NumPy does not know."""
    learner = Learner(tmp_path)
    learner.run.scoring(
        lambda batch: torch.ones(len(batch[1]), dtype=torch.bfloat16, requires_grad=True) / 4,
        metric="loss", higher_is_better=False,
    )  # fmt: skip
    learner.run.holdout("test", HELD, ids=HELD.ids)
    loader = learner.loader(FIRST)
    learner.loop(loader, budget=1)
    learner.run.finish()
    assert scores(tmp_path)[0].after == {"test": 0.25}


# Scores.


def test_the_matrix_is_what_a_hand_computation_gives(tmp_path: Path) -> None:
    """R[j-1][j] is the parent on what j freezes, R[i][j] each model on all that is frozen."""
    held = [Points(range(1000 * k, 1000 * k + 30)) for k in (1, 2, 3)]
    weights: list[float] = []
    expected_before, expected_after = [], []
    for k, data in enumerate((FIRST, MORE, Points(range(60)))):
        learner = Learner(tmp_path, rate=0.02).score()
        for j in range(k + 1):
            learner.run.holdout(f"part {j}", held[j], ids=held[j].ids)
        loader = learner.loader(data)
        expected_before.append({f"part {k}": by_hand(learner, held[k])})
        learner.loop(loader, budget=1)
        expected_after.append({f"part {j}": by_hand(learner, held[j]) for j in range(k + 1)})
        learner.run.finish()
        weights.append(float(learner.model.weight.detach().sum()))
    rows = scores(tmp_path)
    assert [row.before for row in rows] == expected_before
    assert [row.after for row in rows] == expected_after
    assert [row.frozen[f"part {k}"].increment for k, row in enumerate(rows)] == [1, 2, 3]


def test_scores_are_in_finished_checkpoints_only(tmp_path: Path) -> None:
    """An unfinished one has none, and a resume scores nothing as "before" a second time."""
    whole = increment(tmp_path / "whole", FIRST, scored=True, before=give("test", HELD))
    increment(tmp_path / "killed", FIRST, scored=True, before=give("test", HELD), stop=2)
    assert not newest(tmp_path / "killed").scores
    increment(tmp_path / "killed", FIRST, scored=True, before=give("test", HELD))
    assert whole.run.increment == 1
    assert scores(tmp_path / "killed") == scores(tmp_path / "whole")


@pytest.mark.parametrize("how", ["in the loop", "after a resume"])
def test_what_is_frozen_late_is_not_scored_as_before(tmp_path: Path, how: str) -> None:
    """Once steps are made, the weights are no longer the parent's: R[j-1][j] is not known."""
    if how == "after a resume":
        increment(tmp_path, FIRST, scored=True, stop=3)
    learner = Learner(tmp_path).score()
    loader = learner.loader(FIRST)
    learner.run.plan(1)
    for batch in loader:
        learner.step(batch)
        if "test" not in learner.run._learning.judging.holdouts.names:
            learner.run.holdout("test", HELD, ids=HELD.ids)
    learner.run.finish()
    assert scores(tmp_path)[0].before == {}
    assert set(scores(tmp_path)[0].after) == {"test"}


def test_a_holdout_that_is_not_given_again_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By its name, when the increment ends, with what to do; given again, it is scored again."""
    increment(tmp_path, FIRST, scored=True, before=give("test", HELD))
    increment(tmp_path, MORE, scored=True)
    assert "'test' was not scored" in capsys.readouterr().err
    assert scores(tmp_path)[1].after == {}
    increment(tmp_path, Points(range(60)), scored=True, before=give("test", HELD))
    assert "not scored" not in capsys.readouterr().err
    assert set(scores(tmp_path)[2].after) == {"test"}


def test_a_run_without_scoring_tells_what_it_leaves_unscored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Holdouts are frozen, and nobody says how to score them."""
    increment(tmp_path, FIRST, scored=True, loading={"holdout": 0.4})
    capsys.readouterr()
    increment(tmp_path, MORE)
    said = capsys.readouterr().err
    assert "'increment 1' was not scored" in said
    assert "run.scoring" in said


def test_a_changed_holdout_is_refused(tmp_path: Path) -> None:
    """Other items, or another metric, under a frozen name."""
    increment(tmp_path, FIRST, scored=True, before=give("test", HELD))
    with pytest.raises(errors.DataChanged):
        increment(tmp_path, MORE, scored=True, before=give("test", Points(range(1001, 1041))))
    learner = Learner(tmp_path)
    learner.run.scoring(learner.right, metric="recall")
    with pytest.raises(errors.DataChanged, match="metric"):
        learner.run.holdout("test", HELD, ids=HELD.ids)
    learner.run.close()
    increment(tmp_path, MORE, scored=True, before=give("test", HELD))


def test_the_champion_is_challenged_and_the_verdict_stands_in_the_log(tmp_path: Path) -> None:
    """A model that lost what the champion knew is a regression, in the log and from `finish`."""
    held = Points(range(1000, 1400))
    increment(tmp_path, FIRST, budget=20, scored=True, before=give("test", held))
    learner = Learner(tmp_path, rate=1.0, strategy="none").score()
    learner.run.holdout("test", held, ids=held.ids)
    spoilt = Points(range(100, 124))
    spoilt.labels = 1 - spoilt.labels
    spoilt_loader = learner.loader(spoilt, only_new=True)

    def wrong_way(batch: Any) -> None:
        outputs = learner.model(batch[0])
        loss = torch.nn.functional.cross_entropy(outputs, 1 - batch[0][:, 1].gt(1).long())
        learner.optimizer.zero_grad()
        loss.backward()
        learner.optimizer.step()
        learner.run.step(loss=loss)

    learner.run.plan(3)
    for _epoch in learner.run.epochs():
        for batch in spoilt_loader:
            wrong_way(batch)
    verdict = learner.run.finish()
    assert verdict is not None
    assert verdict.text
    assert "regression" in verdict.text.lower()
    assert scores(tmp_path)[1].verdict == verdict.text
    assert learner.run.finish() is verdict


# Held out items are never learned.


@pytest.mark.parametrize("stops", [(), (3, 9, 30, 50)])
@pytest.mark.parametrize("strategy", ["uniform", "er"])
def test_held_out_items_never_enter_a_batch_or_the_memory(
    tmp_path: Path, strategy: str, stops: tuple[int, ...]
) -> None:
    """Carved and given, in three increments, killed and resumed."""
    met: set[int] = set()
    held: set[int] = set()
    step, kept = 0, set()
    for k in (1, 2, 3):
        data = Points(range(30 * k))
        finished = False
        while not finished:
            hooks: Any = "uniform" if strategy == "uniform" else learning.strategy("er", memory=20)
            learner = Learner(tmp_path, strategy=hooks).score()
            learner.run.holdout("test", HELD, ids=HELD.ids)
            loader = learner.loader(data, holdout=0.3)
            learner.run.plan(3)
            stop = next((s for s in stops if s > step), -1)
            finished = learner.loop(loader, stop=stop)
            step = learner.run.global_step
            met |= {data.ids[row] for rows in learner.rows for row in rows if row < len(data)}
            if finished:
                learner.run.finish()
            learner.run.close()
            memory = learner.run._learning.learner.memory
            kept = set() if memory is None else {bytes(memory.digests[s]) for s in memory.slots}
    holdouts = learner.run._learning.judging.holdouts
    assert holdouts.names == ["test", "increment 1", "increment 2", "increment 3"]
    all_held = {bytes(row) for name in holdouts.names for row in np.asarray(holdouts[name].digests)}
    assert not kept & all_held
    from onward.data.items import Items

    known_by = Items.identified(data.ids).digests
    assert known_by is not None
    held = {i for i in data.ids if bytes(known_by[i]) in all_held}
    assert 10 < len(held) < 50
    assert met == set(data.ids) - held
    assert all(len(row.after) == k + 1 for k, row in enumerate(scores(tmp_path), 1))
