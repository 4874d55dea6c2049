"""What the job asks of an increment wins over what the script says, and is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward import errors
from onward.learning.strategies import hooks_of
from onward.training.planning import AskedPlan
from onward.training.wishes import Budget, Wishes, read_budget
from tests.training.learners import Learner, Points, about, history, increment, newest
from tests.training.test_champion import train

DATA = Points(range(16))


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An output that an agent speaks about."""
    found = tmp_path / "out"
    monkeypatch.setenv("ONWARD_OUTPUT", str(found))
    return found


def test_the_budget_of_the_job_is_trained(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever the script plans; in one line that names both."""
    monkeypatch.setenv("ONWARD_BUDGET", "3 steps")
    assert increment(output, DATA, budget=2).run.increment_step == 3
    assert newest(output).finished
    assert about(output)["plan"]["budget"] == "3 steps"
    said = capfd.readouterr().err
    assert said.count("budget 3 steps, as the job asks; the script says 2 epochs") == 1


def test_a_loop_over_epochs_is_held_to_it_too(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Also where the script says nothing of a budget at all."""
    monkeypatch.setenv("ONWARD_BUDGET", "2")
    for budget in (5, None):
        monkeypatch.setenv("ONWARD_OUTPUT", str(output / str(budget)))
        run = Learner(output / str(budget)).run
        assert list(run.epochs(budget)) == [0, 1]
        run.close()
        assert "budget 2 epochs, as the job asks" in capfd.readouterr().err


def test_a_budget_that_a_script_cannot_be_held_to_is_refused(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loop of the script's own would train what it likes: an error before the first step."""
    monkeypatch.setenv("ONWARD_BUDGET", "2")
    run = Learner(output).run
    with pytest.raises(errors.UsageError, match="cannot be held to"):
        next(iter(run.loader(DATA, batch_size=4, ids=DATA.ids)))
    run.close()


def test_another_output_is_none_of_the_jobs_business(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that opens a second output decides about it by itself."""
    monkeypatch.setenv("ONWARD_BUDGET", "3 steps")
    assert increment(tmp_path / "other", DATA, budget=2).run.increment_step == 8


def test_the_strategy_of_the_job_is_used(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """With a memory of the size that was asked for."""
    monkeypatch.setenv("ONWARD_STRATEGY", "er:7")
    learner = increment(output, DATA, budget=1, strategy="lwf")
    memory = learner.run._learning.learner.memory
    assert memory is not None
    assert len(memory) == 7
    assert "strategy er:7, as the job asks; the script says" in capfd.readouterr().err


def test_nothing_becomes_champion_where_the_job_asks_so(
    output: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not even the first; verdicts stand in the log all the same, at the margin of the job."""
    assert train(output, 1) is None
    before = history(output).aliases["champion"]
    monkeypatch.setenv("ONWARD_PROMOTE", "no")
    monkeypatch.setenv("ONWARD_MARGIN", "0.3")
    verdict = train(output, 2)
    assert verdict is not None
    assert verdict.passed
    assert verdict.margin == 0.3
    assert history(output).aliases["champion"] == before
    said = capfd.readouterr().err
    assert "the job asks that nothing does by itself" in said
    assert "margin 0.3, as the job asks; the script says 0.01" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [("STRATEGY", "forget"), ("STRATEGY", "er"), ("BUDGET", "much"), ("BUDGET", "0"),
     ("MARGIN", "wide"), ("MARGIN", "2")],
)  # fmt: skip
def test_wrong_wishes_end_before_training(
    output: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Typed, and no output is made."""
    monkeypatch.setenv(f"ONWARD_{name}", value)
    with pytest.raises(errors.UsageError):
        Learner(output)
    assert not output.exists()


def test_what_is_not_asked_stays_as_the_script_says() -> None:
    """Nothing is said then."""

    def say(text: str) -> None:
        raise AssertionError(text)

    asked = AskedPlan(Budget.of(3))
    assert Wishes().plan(asked, say=say) == asked
    assert Wishes().plan(None, say=say) is None
    assert Wishes().margin_of(0.01, say=say) == 0.01
    assert [type(h) for h in Wishes().hooks("lwf", say=say)] == [type(h) for h in hooks_of("lwf")]
    assert Wishes(budget="3 epochs").plan(asked, say=say) == asked


@pytest.mark.parametrize(
    ("text", "budget"),
    [("3", Budget("epochs", 3)), ("0.5", Budget("epochs", 0.5)), ("20 steps", Budget("steps", 20)),
     ("2 min", Budget("seconds", 120)), ("0.2 x retrain", Budget("retrain", 0.2))],
)  # fmt: skip
def test_budgets_are_read_as_a_script_writes_them(text: str, budget: Budget) -> None:
    """A number alone is epochs."""
    assert read_budget(text) == budget
