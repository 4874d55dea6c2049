"""The gate: what passes, what does not, and how often chance decides."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from onward.data.items import Items
from onward.errors import DataChanged, DataError, UsageError
from onward.learning.evidence import Evidence, live_evidence
from onward.learning.gate import judge
from onward.learning.holdouts import Holdout, Holdouts


def held(outcomes: Any = None, before: Any = None, **given: Any) -> Holdout:
    count = len(next(x for x in (outcomes, before, given.pop("like", None)) if x is not None))
    usual: dict[str, Any] = {
        "increment": 1, "metric": "accuracy", "higher_is_better": True, "count": count,
        "outcomes": outcomes, "before": before,
    }  # fmt: skip
    return Holdout(**{**usual, **given})


def champion(**holdouts: Holdout) -> Evidence:
    return Evidence("c" * 16, "v1", None, holdouts)


def candidate(**holdouts: Holdout) -> Evidence:
    return Evidence("d" * 16, "v2", "c" * 16, holdouts)


def answers(items: int, *, right: float, seed: int = 0) -> Any:
    """Right or wrong for each item, with a share that is right by chance."""
    return np.random.Generator(np.random.PCG64(seed)).random(items) < right


def changed(first: Any, *, lost: int, won: int) -> Any:
    """The answers of another model: `lost` right ones are wrong, `won` wrong ones right."""
    second = first.copy()
    second[np.flatnonzero(first)[:lost]] = False
    second[np.flatnonzero(~first)[:won]] = True
    return second


OLD = answers(2000, right=0.9)


def word(first: Any, second: Any, **options: Any) -> str:
    return judge(champion(a=held(first)), candidate(a=held(second)), **options).verdict


def test_the_five_verdicts() -> None:
    assert word(OLD, changed(OLD, lost=10, won=60)) == "better"
    assert word(OLD, changed(OLD, lost=20, won=20)) == "no change"
    assert word(OLD, changed(OLD, lost=50, won=35)) == "worse within noise"
    assert word(OLD, changed(OLD, lost=80, won=20)) == "regression"
    assert word(OLD[:299], changed(OLD[:299], lost=0, won=20)) == "insufficient"


def test_a_shown_loss_within_the_margin_is_no_change() -> None:
    """Half a point of 100,000 items is beyond chance, and still within one point."""
    first = answers(100_000, right=0.9)
    verdict = judge(champion(a=held(first)), candidate(a=held(changed(first, lost=500, won=0))))
    assert verdict.verdict == "no change"
    assert verdict.passed
    assert word(first, changed(first, lost=500, won=0), margin=0.004) == "regression"


def test_too_few_items_never_pass_but_may_show_a_regression() -> None:
    first = answers(200, right=0.95)
    assert word(first, first) == "insufficient"
    assert word(first, changed(first, lost=100, won=0)) == "regression"
    numbers = np.linspace(0, 1, 200)
    assert word(numbers, numbers + 10) == "insufficient"
    assert word(numbers, numbers - 10) == "insufficient"


def test_one_lost_holdout_is_a_regression_whatever_is_won() -> None:
    better, worse = changed(OLD, lost=0, won=100), changed(OLD, lost=100, won=0)
    verdict = judge(champion(a=held(OLD), b=held(OLD)), candidate(a=held(better), b=held(worse)))
    assert verdict.verdict == "regression"
    assert [judged.verdict for judged in verdict.holdouts] == ["better", "regression"]
    assert verdict.text == "regression: b"
    assert not verdict.passed


def test_better_on_one_and_unchanged_on_the_others_is_better() -> None:
    better = changed(OLD, lost=0, won=100)
    verdict = judge(champion(a=held(OLD), b=held(OLD)), candidate(a=held(OLD), b=held(better)))
    assert verdict.verdict == "better"


def test_every_holdout_must_be_shown() -> None:
    """One that is too small, or was not scored, keeps the others from passing."""
    small = OLD[:50]
    known = champion(a=held(OLD), b=held(small))
    assert judge(known, candidate(a=held(OLD), b=held(small))).verdict == "insufficient"
    verdict = judge(champion(a=held(OLD), b=held(OLD)), candidate(a=held(OLD)))
    assert verdict.verdict == "insufficient"
    assert "not scored" in verdict.holdouts[1].why
    assert judge(champion(), candidate()).verdict == "insufficient"


def test_a_new_holdout_is_compared_with_the_model_before_the_increment() -> None:
    before = answers(1000, right=0.1, seed=1)
    after = answers(1000, right=0.9, seed=2)
    new = held(after, before, increment=2)
    verdict = judge(champion(a=held(OLD)), candidate(a=held(OLD), new=new))
    assert verdict.verdict == "better"
    assert verdict.holdouts[1].new
    assert verdict.holdouts[1].against == "v1"
    other = Evidence("d" * 16, "v2", "e" * 16, {"a": held(OLD), "new": new})
    assert "went on from" in judge(champion(a=held(OLD)), other).holdouts[1].against
    unknown = judge(champion(a=held(OLD)), candidate(a=held(OLD), new=held(after)))
    assert unknown.verdict == "insufficient"


def test_answers_are_paired_by_item_not_by_place() -> None:
    """The same answers with the items in another order are no change at all."""
    digests = Items.identified(range(2000)).digests
    assert digests is not None
    turned = held(OLD[::-1], digests=digests[::-1])
    verdict = judge(champion(a=held(OLD, digests=digests)), candidate(a=turned))
    assert verdict.verdict == "no change"
    assert verdict.holdouts[0].comparison is not None
    assert verdict.holdouts[0].comparison.standard_error == 0


def test_what_cannot_be_compared_is_refused() -> None:
    digests = Items.identified(range(2001)).digests
    assert digests is not None
    ours, theirs = held(OLD, digests=digests[:-1]), held(OLD, digests=digests[1:])
    with pytest.raises(DataChanged, match="1 items differ"):
        judge(champion(a=ours), candidate(a=theirs))
    with pytest.raises(DataChanged, match="different items"):
        judge(champion(a=held(OLD)), candidate(a=held(OLD[1:])))
    with pytest.raises(DataChanged, match="different items"):
        judge(champion(a=ours), candidate(a=held(OLD)))
    with pytest.raises(DataChanged, match="another one"):
        judge(champion(a=held(OLD)), candidate(a=held(OLD, metric="top-5")))
    with pytest.raises(DataError, match="two kinds"):
        judge(champion(a=held(OLD)), candidate(a=held(OLD.astype(float))))


@pytest.mark.parametrize(
    "options",
    [{"margin": 0}, {"margin": -1}, {"margin": float("nan")}, {"margin": float("inf")},
     {"relative_margin": 0.0}, {"level": 0}, {"level": 0.5}, {"level": float("nan")}],
)  # fmt: skip
def test_impossible_margins_and_levels_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        word(OLD, OLD, **options)


def test_losses_are_better_when_lower_and_may_have_a_relative_margin() -> None:
    losses = 20 + np.random.Generator(np.random.PCG64(1)).normal(0, 1, 1000)

    def loss_word(second: Any, **options: Any) -> str:
        loss = {"metric": "loss", "higher_is_better": False}
        first = champion(a=held(losses, **loss))
        return judge(first, candidate(a=held(second, **loss)), **options).verdict

    assert loss_word(losses - 0.5) == "better"
    assert loss_word(losses + 0.1) == "regression"
    assert loss_word(losses + 0.1, relative_margin=0.01) == "no change"
    assert loss_word(losses + 0.3, relative_margin=0.01) == "regression"
    assert loss_word(losses.astype(np.float32)) == "no change"


def test_huge_numbers_are_judged_like_any_others() -> None:
    """A mean or a margin that overflowed would let everything pass."""
    first = np.full(1000, 1.5e308)
    second = np.full(1000, -1.5e308)
    assert word(first, second, relative_margin=0.1) == "regression"
    assert word(second, first, relative_margin=0.1) == "better"


def test_a_model_that_is_no_checkpoint_yet_can_be_judged() -> None:
    holdouts = Holdouts()
    holdouts.freeze(
        "a", digests=None, count=2000, increment=1, metric="accuracy", higher_is_better=True
    )
    holdouts.record("a", OLD, when="after")
    live = live_evidence(holdouts, began_from="c" * 16)
    first = held(OLD, kind="counted")
    assert judge(champion(a=first), live).text == "no change"


def test_a_relative_margin_leaves_right_or_wrong_alone() -> None:
    verdict = judge(champion(a=held(OLD)), candidate(a=held(OLD)), relative_margin=0.5)
    assert verdict.holdouts[0].margin == 0.01


def test_clustered_answers_are_resampled_by_cluster() -> None:
    """Fifty answers lost by one user are one accident, not fifty; and 29 users are too few."""
    users = np.repeat(np.arange(40), 50)
    first = np.ones(2000, bool)
    second = first.copy()
    second[users == 7] = False
    alone = judge(champion(a=held(first)), candidate(a=held(second)))
    grouped = judge(
        champion(a=held(first, clusters=users)), candidate(a=held(second, clusters=users))
    )
    assert alone.verdict == "regression"
    assert grouped.verdict == "worse within noise"
    few = held(first, clusters=users % 29)
    verdict = judge(champion(a=few), candidate(a=few))
    assert verdict.verdict == "insufficient"
    assert "29 clusters" in verdict.holdouts[0].why


def test_a_verdict_is_text_and_json() -> None:
    verdict = judge(
        champion(a=held(OLD)), candidate(a=held(changed(OLD, lost=80, won=20)), b=held(OLD))
    )
    document = json.loads(json.dumps(verdict.document(), allow_nan=False))
    assert document["verdict"] == "regression"
    assert document["holdouts"][0]["items"] == 2000
    assert document["holdouts"][0]["difference"] == -0.03
    assert document["holdouts"][1]["champion_score"] is None
    lines = verdict.lines()
    assert lines[0] == "regression: v2 against v1"
    assert any("accuracy 0.9" in line and "gain -0.03, between -0.03" in line for line in lines)


def shares(draw: np.random.Generator, *, items: int, lost: float, won: float, times: int) -> Any:
    """How often each verdict falls when items are lost and won with these chances."""
    words: dict[str, int] = {}
    for _ in range(times):
        kind = draw.random(items)
        first = kind >= won
        first[kind > 0.9] = False
        second = first.copy()
        second[kind < won] = True
        second[(kind >= won) & (kind < won + lost)] = False
        found = word(first, second)
        words[found] = words.get(found, 0) + 1
    return {name: number / times for name, number in words.items()}


def test_equal_models_are_seldom_called_a_regression() -> None:
    """1,000 items of which 6 % are answered differently, by chance."""
    draw = np.random.Generator(np.random.PCG64(11))
    found = shares(draw, items=1000, lost=0.03, won=0.03, times=2000)
    assert found.get("regression", 0) <= 0.05
    many = shares(draw, items=10_000, lost=0.03, won=0.03, times=300)
    assert many.get("regression", 0) <= 0.02
    assert many["no change"] + many.get("better", 0) >= 0.95


def test_a_loss_of_three_points_on_a_thousand_items_is_caught() -> None:
    """Never passed; called a regression where a few answers differ otherwise."""
    draw = np.random.Generator(np.random.PCG64(12))
    found = shares(draw, items=1000, lost=0.04, won=0.01, times=1000)
    assert found["regression"] >= 0.98
    assert found.get("no change", 0) + found.get("better", 0) <= 0.001
    found = shares(draw, items=1000, lost=0.06, won=0.03, times=1000)
    assert found["regression"] >= 0.9
    assert found.get("no change", 0) + found.get("better", 0) <= 0.001


def test_a_loss_of_the_margin_passes_one_time_in_twenty_at_most() -> None:
    draw = np.random.Generator(np.random.PCG64(13))
    found = shares(draw, items=2000, lost=0.03, won=0.02, times=2000)
    assert found.get("no change", 0) + found.get("better", 0) <= 0.065
