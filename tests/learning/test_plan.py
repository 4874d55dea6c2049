"""Budgets and learning rates, decided before an increment begins."""

from __future__ import annotations

import itertools

import pytest

from onward.errors import EmptyBudget, UsageError
from onward.learning.plan import Budget, Curve, Retrain, planned_steps


@pytest.mark.parametrize(
    ("given", "budget"),
    [
        (3, Budget("epochs", 3)),
        (0.5, Budget("epochs", 0.5)),
        ("2 epochs", Budget("epochs", 2)),
        ("1 epoch", Budget("epochs", 1)),
        ("500 steps", Budget("steps", 500)),
        ("90 s", Budget("seconds", 90)),
        ("10 min", Budget("seconds", 600)),
        ("1.5h", Budget("seconds", 5400)),
        ("0.2 x retrain", Budget("retrain", 0.2)),
        ("0.2 × retrain", Budget("retrain", 0.2)),
        ("20 % of retrain", Budget("retrain", 0.2)),
    ],
)
def test_a_budget_is_read_as_people_write_it(given: int | float | str, budget: Budget) -> None:
    """Each form of the guide means what it says."""
    assert Budget.of(given) == budget
    assert Budget.of(str(budget)) == budget


@pytest.mark.parametrize("given", ["", "many", "3", "0.2 retrain", "-1 steps", True, "1e3 steps"])
def test_what_is_no_budget_is_refused_with_the_forms(given: object) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageError, match="no budget"):
        Budget.of(given)  # type: ignore[arg-type]


@pytest.mark.parametrize("given", [0, -1, "0 steps", "0 x retrain", float("nan"), float("inf")])
def test_an_empty_budget_is_refused(given: int | str | float) -> None:
    """A plan that would train zero steps is none."""
    with pytest.raises(EmptyBudget):
        Budget.of(given)


def test_a_budget_that_rounds_to_nothing_is_refused() -> None:
    """0.1 epochs of a single batch are zero steps."""
    with pytest.raises(EmptyBudget, match="zero steps"):
        planned_steps(Budget.of(0.1), batches=1, retrain=None, increment=2)


def test_a_share_of_a_retrain_counts_its_steps_except_the_first_time() -> None:
    """60,000 items, 8 epochs, batches of 128: 3,752 steps; the first increment is the retrain."""
    retrain = Retrain.of(60_000, epochs=8, batch_size=128)
    assert (retrain.steps, retrain.samples) == (3_752, 480_000)
    tenth = Budget.of("0.1 x retrain")
    assert planned_steps(tenth, batches=94, retrain=retrain, increment=2) == 375
    assert planned_steps(tenth, batches=469, retrain=retrain, increment=1) == 3_752
    with pytest.raises(UsageError, match="retrain_epochs"):
        planned_steps(tenth, batches=94, retrain=None, increment=2)


def test_the_learning_rate_warms_up_decays_and_is_never_zero() -> None:
    """Up over 5 % of the steps, down to about zero at the last, which still learns."""
    curve, steps = Curve(), 200
    factors = [curve.factor(k / steps, step=1 / steps) for k in range(steps)]
    assert factors[:10] == pytest.approx([0.1 * (k + 1) for k in range(10)])
    assert factors[10] == 1.0
    assert all(a > b for a, b in itertools.pairwise(factors[10:]))
    assert 0 < factors[-1] < 1e-3
    assert min(factors) > 0


def test_a_single_step_trains_at_the_peak() -> None:
    """A budget of one step is no warm-up to nothing."""
    assert Curve().factor(0.0, step=1.0) == 1.0
