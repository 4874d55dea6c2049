"""The plan of a run: budgets of every unit, learning rates exact over a resume, mistakes told."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from onward import errors

from .learners import Learner, Points, about, history, increment, newest

FIRST, MORE = Points(range(16)), Points(range(24))


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (2, 8), (0.5, 2), ("2 epochs", 8), ("3 steps", 3), ("1 step", 1), ("50% of a retrain", 8),
        ("2 x retrain", 16),
    ],
)  # fmt: skip
def test_a_budget_of_any_unit_trains_that_many_steps(
    tmp_path: Path, budget: Any, steps: int
) -> None:
    """In the first increment a share of a retrain is all of it, or more."""
    told = {"retrain_epochs": 2} if "retrain" in str(budget) else {}
    learner = increment(tmp_path, FIRST, budget=budget, plan=told)
    assert learner.run.increment_step == steps
    assert newest(tmp_path).finished
    assert about(tmp_path)["plan"]["steps"] == steps


def test_a_share_of_a_retrain_is_a_share_in_the_second_increment(tmp_path: Path) -> None:
    """What a retrain is was said once; 24 items in batches of 4 are 6 steps an epoch."""
    increment(tmp_path, FIRST, budget="1 x retrain", plan={"retrain_epochs": 2})
    assert increment(tmp_path, MORE, budget="0.5 x retrain").run.increment_step == 6


def test_a_budget_of_seconds_ends(tmp_path: Path) -> None:
    """However many steps it takes, at a rate that never is zero before the end."""
    learner = increment(tmp_path, FIRST, budget="1 s")
    assert learner.run.increment_step > 1  # a busy machine makes few
    assert newest(tmp_path).finished
    assert min(learner.rates) > 0
    assert max(learner.rates) <= 0.1


@pytest.mark.parametrize(
    ("budget", "wrong"),
    [
        (0, errors.EmptyBudget), (-1, errors.EmptyBudget), (math.nan, errors.EmptyBudget),
        (math.inf, errors.EmptyBudget), ("0 steps", errors.EmptyBudget),
        (0.01, errors.EmptyBudget), ("0 x retrain", errors.EmptyBudget),
        ("0.1 x retrain", errors.UsageError), ("a lot", errors.UsageError),
        (True, errors.UsageError), ("-3 steps", errors.UsageError),
    ],
)  # fmt: skip
def test_an_impossible_budget_is_refused_and_costs_nothing(
    tmp_path: Path, budget: Any, wrong: type[Exception]
) -> None:
    """Zero steps, or a share of nobody said what, trains nothing; the same command goes on."""
    increment(tmp_path, FIRST, budget="4 steps")
    before = newest(tmp_path).checkpoint
    with pytest.raises(wrong) as caught:
        increment(tmp_path, MORE, budget=budget)
    assert isinstance(caught.value, errors.OnwardError)
    assert caught.value.do
    assert newest(tmp_path).checkpoint == before
    assert increment(tmp_path, MORE, budget="2 steps").run.increment == 2


@pytest.mark.parametrize(
    "asked",
    [
        {"warmup": 1.0}, {"warmup": math.nan}, {"final": -1}, {"final": math.nan},
        {"accumulate": 0}, {"moments": "forgotten"}, {"retrain_epochs": 0},
        {"retrain_epochs": math.nan}, {"retrain_epochs": math.inf},
    ],
)  # fmt: skip
def test_impossible_wishes_of_a_plan_are_refused(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Each with what to do."""
    with pytest.raises(errors.UsageError) as caught:
        increment(tmp_path, FIRST, plan=asked)
    assert caught.value.do


def test_a_plan_before_its_loader_is_refused(tmp_path: Path) -> None:
    """It says which call is missing."""
    with pytest.raises(errors.UsageError, match=r"run\.loader"):
        Learner(tmp_path).run.plan(1)


@pytest.mark.parametrize("schedule", [True, False])
def test_a_second_plan_is_refused(tmp_path: Path, schedule: bool) -> None:
    """Also where it would change no learning rate: it would silently count for nothing."""
    learner = Learner(tmp_path)
    learner.loader(FIRST)
    learner.run.plan("3 steps", schedule=schedule)
    with pytest.raises(errors.UsageError, match="once"):
        learner.run.plan("8 steps", schedule=schedule)
    learner.run.close()


def test_a_plan_after_the_loop_began_is_refused(tmp_path: Path) -> None:
    """The steps made were not at its rates."""
    learner = Learner(tmp_path)
    for batch in learner.loader(FIRST):
        learner.step(batch)
        with pytest.raises(errors.UsageError, match="begun"):
            learner.run.plan(1)
        break
    learner.run.close()


def test_the_rate_warms_up_and_decays_in_every_increment(tmp_path: Path) -> None:
    """From near zero to the peak within the first 5 %, to about zero at the end, and again."""
    for number, data in enumerate((FIRST, MORE), 1):
        rates = increment(tmp_path, data, budget="60 steps").rates
        assert len(rates) == 60
        assert rates[0] == pytest.approx(0.1 / 3), number
        assert max(rates[:4]) == pytest.approx(0.1, rel=1e-2)
        assert rates[3:] == sorted(rates[3:], reverse=True)
        assert 0 < rates[-1] < 1e-3


@pytest.mark.parametrize("stop", [1, 3, 4, 6])
@pytest.mark.parametrize("budget", [2, "7 steps", 1.75])
def test_rates_are_exact_over_a_resume(tmp_path: Path, stop: int, budget: Any) -> None:
    """Killed after any step, each later step is made at the rate of the run never killed."""
    whole = increment(tmp_path / "whole", FIRST, budget=budget)
    begun = increment(tmp_path / "killed", FIRST, budget=budget, stop=stop)
    resumed = increment(tmp_path / "killed", FIRST, budget=budget)
    assert resumed.run.verb == "resume"
    assert begun.rates + resumed.rates == whole.rates
    assert begun.rows + resumed.rows == whole.rows
    assert torch.equal(resumed.model.weight, whole.model.weight)


def test_a_resume_with_another_budget_says_what_it_does(tmp_path: Path) -> None:
    """The rest is trained to the new budget's end, at its rates; what was made stays made."""
    increment(tmp_path, FIRST, budget="4 steps", stop=3)
    longer = increment(tmp_path, FIRST, budget="8 steps")
    assert longer.run.increment_step == 8
    assert about(tmp_path)["plan"]["steps"] == 8


def test_a_resume_with_a_smaller_budget_finishes_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it asks for is done already; that is said, and the increment is finished."""
    increment(tmp_path, FIRST, budget="8 steps", stop=5)
    assert increment(tmp_path, FIRST, budget="4 steps").rates == []
    assert "spent already" in capsys.readouterr().err
    assert newest(tmp_path).finished


@pytest.mark.parametrize("moments", ["kept", "reset"])
def test_moments_are_kept_or_reset_when_an_increment_begins(tmp_path: Path, moments: str) -> None:
    """Reset: the first step has no momentum; a resume leaves them alone either way."""
    increment(tmp_path, FIRST, budget="4 steps")
    learner = Learner(tmp_path)
    loader = learner.loader(MORE)
    learner.run.plan("4 steps", moments=moments)
    state = learner.optimizer.state_dict()["state"]
    assert bool(state) == (moments == "kept")
    learner.run.close()
    whole = increment(tmp_path, MORE, budget="4 steps", plan={"moments": moments}, stop=6)
    assert whole.run.increment == 2
    again = Learner(tmp_path)
    loader = again.loader(MORE)
    again.run.plan("4 steps", moments=moments)
    assert again.run.verb == "resume"
    assert again.optimizer.state_dict()["state"]
    again.loop(loader)
    again.run.finish()


def test_a_schedule_of_the_scripts_own_is_left_alone(tmp_path: Path) -> None:
    """A scheduler among the objects: the plan sets no learning rate."""
    rates = []
    for data in (FIRST, MORE):
        torch.manual_seed(0)
        model = torch.nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2, gamma=0.1)
        learner = Learner(tmp_path, model=model, optimizer=optimizer, scheduler=scheduler)
        learner.model, learner.optimizer = model, optimizer
        loader = learner.loader(data)
        assert learner.run.plan("4 steps").curve is None
        for _epoch in learner.run.epochs():
            for batch in loader:
                learner.step(batch)
                scheduler.step()
        learner.run.finish()
        rates.append(learner.rates)
    assert rates == [pytest.approx([0.5, 0.5, 0.05, 0.05])] * 2


@pytest.mark.parametrize(("budget", "steps"), [(1, 2), (2, 4), ("5 steps", 5), ("1 x retrain", 4)])
def test_gradients_may_be_accumulated(tmp_path: Path, budget: Any, steps: int) -> None:
    """An optimizer step is two batches; epochs are as many as were asked for."""
    learner = Learner(tmp_path)
    loader = learner.loader(Points(range(12)))  # three batches: the last step has one
    learner.run.plan(budget, accumulate=2, retrain_epochs=2)
    epochs = 0
    for _epoch in learner.run.epochs():
        epochs += 1
        for number, batch in enumerate(loader, 1):
            learner.model(batch[0]).sum().backward()
            if number % 2 == 0 or number == len(loader):
                learner.optimizer.step()
                learner.rates.append(learner.optimizer.param_groups[0]["lr"])
            learner.run.step()
    learner.run.finish()
    assert learner.run.increment_step == steps
    assert epochs == {2: 1, 4: 2, 5: 3}[steps]
    assert learner.rates[-1] < 0.06


def test_accumulated_batches_count_as_rows_of_the_budget(tmp_path: Path) -> None:
    """Two batches a step meet twice as many items: no share is raised for want of rows."""
    increment(tmp_path, Points(range(100)), budget=1)
    learner = Learner(tmp_path)
    learner.loader(Points(range(120)))
    plan = learner.run.plan("12 steps", accumulate=10)  # 480 rows hold each new item by chance
    assert plan.share == pytest.approx(20 / 120, abs=0.15)
    assert plan.counts is not None
    assert plan.counts.draws == 480
    learner.run.close()


def test_an_optimizer_at_zero_is_refused(tmp_path: Path) -> None:
    """A learning rate of zero learns nothing; the error says so before anything is trained."""
    with pytest.raises(errors.EmptyBudget, match="zero"):
        increment(tmp_path, FIRST, rate=0.0)
    assert history(tmp_path).latest() is None
    assert increment(tmp_path, FIRST).run.verb == "fresh"


def test_a_small_budget_leaves_unmet_items_new(tmp_path: Path) -> None:
    """The ledger is honest: the same command learns the rest, and then nothing is new."""
    assert increment(tmp_path, FIRST, budget="1 step").run.increment_step == 1
    second = Learner(tmp_path)
    assert len(second.loader(FIRST).new) == 12
    second.run.plan("12 steps")
    second.run.close()
    met: set[int] = set()
    increments = 0
    with pytest.raises(errors.NothingNew):  # noqa: PT012 - after some increments
        while increments < 12:
            learner = increment(tmp_path, FIRST, budget="3 steps")
            met |= {row for rows in learner.rows for row in rows}
            increments += 1
    assert met == set(range(16))
    assert 1 < increments < 6


def test_continue_on_a_finished_model_with_nothing_new(tmp_path: Path) -> None:
    """verb="continue" trains on what is known, again and again; a resume of that goes on."""
    increment(tmp_path, FIRST)
    for number in (2, 3):
        killed = increment(tmp_path, FIRST, verb="continue", stop=4 * (number - 1) + 2)
        assert killed.run.increment == number
        learner = increment(tmp_path, FIRST)
        assert (learner.run.increment, learner.run.increment_step) == (number, 4)
        assert len({row for rows in killed.rows + learner.rows for row in rows}) == 16
    with pytest.raises(errors.NothingNew):
        increment(tmp_path, FIRST)
