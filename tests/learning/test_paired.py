"""Paired statistics against enumeration, other formulas and simulation."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from onward.learning.paired import (
    binomial_tail,
    compare_answers,
    compare_numbers,
    holm,
    normal_tail,
    score,
    score_bound,
)

Z_95 = 1.6448536269514722


@pytest.mark.parametrize("trials", [0, 1, 2, 7, 12])
def test_the_binomial_tail_is_the_share_of_all_tosses(trials: int) -> None:
    """By counting every sequence of tosses."""
    heads = [sum(toss) for toss in itertools.product((0, 1), repeat=trials)]
    for successes in range(trials + 1):
        share = sum(h >= successes for h in heads) / len(heads)
        assert binomial_tail(successes, trials) == pytest.approx(share, rel=1e-12)


def test_the_binomial_tail_of_many_tosses() -> None:
    """Against exact fractions; also where no float could hold the coefficients."""
    exact = Fraction(sum(math.comb(2000, k) for k in range(1100, 2001)), 2**2000)
    assert binomial_tail(1100, 2000) == pytest.approx(float(exact), rel=1e-9)
    assert binomial_tail(50_000, 100_000) == pytest.approx(0.5, abs=2e-3)
    assert binomial_tail(100_000, 100_000) == 0.0


def test_the_normal_tail_is_that_of_the_tables() -> None:
    assert normal_tail(Z_95) == pytest.approx(0.05)
    assert normal_tail(0) == 0.5
    assert normal_tail(math.inf) == 0.0


def test_without_a_margin_the_score_is_mcnemars() -> None:
    """(won - lost - continuity) / sqrt(won + lost)."""
    assert score(30, 14, 500, margin=0.0) == pytest.approx((30 - 14 - 0.5) / math.sqrt(44))


@pytest.mark.parametrize(("won", "lost", "items", "margin"), [(4, 9, 300, 0.02), (0, 3, 400, 0.01)])
def test_the_share_in_the_score_is_the_maximum_likelihood(
    won: int, lost: int, items: int, margin: float
) -> None:
    """The statistic with the maximum found by trying shares instead of by the quadratic."""
    shares = np.linspace(1e-9, 0.1, 1_000_001)
    rest = items - won - lost
    likelihood = (
        won * np.log(shares) + lost * np.log(shares + margin)
        + rest * np.log(1 - 2 * shares - margin)
    )  # fmt: skip
    share = float(shares[np.argmax(likelihood)])
    variance = items * (2 * share + margin - margin**2)
    expected = (won - lost + items * margin - 0.5) / math.sqrt(variance)
    assert score(won, lost, items, margin=margin) == pytest.approx(expected, rel=1e-4)


def test_the_bound_is_where_the_score_turns() -> None:
    for won, lost, items in [(0, 0, 300), (40, 10, 500), (10, 40, 500), (0, 300, 300)]:
        bound = score_bound(won, lost, items, level=0.05)
        assert -1 <= bound <= (won - lost) / items
        if bound > -0.999:
            assert score(won, lost, items, margin=-bound + 1e-6) > Z_95
            assert score(won, lost, items, margin=-bound - 1e-6) < Z_95


def false_passes(items: int, margin: float, only_candidate: float, level_z: float = Z_95) -> float:
    """The chance to pass a candidate that is worse by exactly the margin, by enumeration."""
    only_champion = only_candidate + margin

    def most(share: float) -> int:
        return min(items, int(items * share + 9 * math.sqrt(items * share + 1) + 9))

    log_factorial = np.cumsum(np.log(np.maximum(np.arange(items + 1), 1)))
    total = 0.0
    for won in range(most(only_candidate) + 1):
        lost = 0
        while lost <= items - won and score(won, lost, items, margin=margin) >= level_z:
            rest = items - won - lost
            if only_candidate == 0 and won:
                break
            log_chance = (
                log_factorial[items] - log_factorial[won] - log_factorial[lost]
                - log_factorial[rest] + (won * math.log(only_candidate) if won else 0.0)
                + lost * math.log(only_champion)
                + rest * math.log(1 - only_candidate - only_champion)
            )  # fmt: skip
            total += math.exp(log_chance)
            lost += 1
    return total


@pytest.mark.parametrize("items", [300, 389, 1000])
@pytest.mark.parametrize("margin", [0.005, 0.01, 0.02, 0.05])
def test_a_candidate_worse_by_the_margin_passes_one_time_in_twenty_at_most(
    items: int, margin: float
) -> None:
    """However few answers differ: the level holds by enumeration, not only in the limit."""
    for only_candidate in (0.0, 0.0005, 0.002, 0.005, 0.01, 0.03, 0.1):
        assert false_passes(items, margin, only_candidate) <= 0.05


def test_a_clear_loss_and_a_clear_gain() -> None:
    champion = np.zeros(1000, bool)
    champion[:900] = True
    worse, better = champion.copy(), champion.copy()
    worse[:40] = False
    better[960:] = True
    lost = compare_answers(champion, worse, margin=0.01, level=0.05)
    assert lost.difference == -0.04
    assert lost.p_worse == pytest.approx(2.0**-40)
    assert lost.p_inferior > 0.99
    won = compare_answers(champion, better, margin=0.01, level=0.05)
    assert (won.p_better, won.p_worse) == (lost.p_worse, 1.0)
    assert won.lower == pytest.approx(-lost.upper)
    assert 0 < won.lower < 0.04 < won.upper


def test_holms_adjustment_is_that_of_the_worked_example() -> None:
    """0.01 * 4, 0.02 * 3, then no smaller than the one before, at most 1."""
    adjusted = holm({"a": 0.02, "b": 0.01, "c": 0.021, "d": 0.7})
    assert adjusted == pytest.approx({"a": 0.06, "b": 0.04, "c": 0.06, "d": 0.7})
    assert list(adjusted) == ["a", "b", "c", "d"]
    assert holm({"a": 0.6, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


def test_the_bootstrap_agrees_with_students_t_for_normal_gains() -> None:
    """t quantile for 399 degrees of freedom: 1.6487."""
    gains = np.random.Generator(np.random.PCG64(3)).normal(0.02, 1, 400)
    found = compare_numbers(gains, None, margin=0.1, level=0.05, seed=1)
    error = float(np.std(gains, ddof=1)) / 20
    assert found.difference == pytest.approx(float(np.mean(gains)))
    assert found.standard_error == pytest.approx(error)
    assert found.lower == pytest.approx(float(np.mean(gains)) - 1.6487 * error, abs=0.1 * error)
    assert found.upper == pytest.approx(float(np.mean(gains)) + 1.6487 * error, abs=0.1 * error)


def test_the_bootstrap_keeps_its_level_for_skewed_losses() -> None:
    """At the margin's null, 100 data sets of 300 log-normal losses: 5 % and simulation error."""
    draw = np.random.Generator(np.random.PCG64(7))
    passed = 0
    for seed in range(100):
        gains = -(draw.lognormal(0, 1, 300) - math.exp(0.5)) - 0.1
        passed += compare_numbers(gains, None, margin=0.1, level=0.05, seed=seed).p_inferior <= 0.05
    assert passed <= 11  # 5 expected, 3 standard deviations more are 11.5


def test_clusters_that_move_together_count_once() -> None:
    """The error of 50 clusters of 20 equal items is that of 50 items."""
    draw = np.random.Generator(np.random.PCG64(1)).normal(0, 1, 50)
    clusters = np.repeat(np.arange(50), 20)
    found = compare_numbers(np.repeat(draw, 20), clusters, margin=0.1, level=0.05, seed=1)
    single = compare_numbers(draw, None, margin=0.1, level=0.05, seed=1)
    assert (found.units, found.items) == (50, 1000)
    assert found.standard_error == pytest.approx(single.standard_error)
    assert found.lower == pytest.approx(single.lower)
    naive = compare_numbers(np.repeat(draw, 20), None, margin=0.1, level=0.05, seed=1)
    assert naive.standard_error < found.standard_error / 4


def test_very_many_items_are_put_together_first() -> None:
    """Their mean and its error stay what they are."""
    gains = np.random.Generator(np.random.PCG64(1)).normal(0.003, 1, 200_000)
    found = compare_numbers(gains, None, margin=0.01, level=0.05, seed=1)
    assert found.units == 200_000
    assert found.difference == pytest.approx(float(np.mean(gains)))
    assert found.standard_error == pytest.approx(1 / math.sqrt(200_000), rel=0.05)


def test_gains_without_spread_need_no_chance() -> None:
    same = compare_numbers(np.zeros(300), None, margin=0.01, level=0.05, seed=1)
    assert (same.p_inferior, same.p_worse, same.p_better) == (0.0, 1.0, 1.0)
    assert (same.lower, same.upper) == (0.0, 0.0)
    lost = compare_numbers(np.full(300, -0.1), None, margin=0.01, level=0.05, seed=1)
    assert (lost.p_inferior, lost.p_worse) == (1.0, 0.0)


def test_huge_numbers_do_not_overflow() -> None:
    gains = np.full(400, 1e307)
    gains[::2] = -1e307
    found = compare_numbers(gains, None, margin=0.01, level=0.05, seed=1)
    assert found.difference == 0.0
    assert 0 < found.standard_error < 1e306
    assert found.p_inferior > 0.3


def test_the_same_evidence_always_has_the_same_verdict() -> None:
    """Figures that no version may change: the resamples come from the seed alone."""
    gains = np.sin(np.arange(320.0))
    one, two = (compare_numbers(gains, None, margin=0.1, level=0.05, seed=5) for _ in range(2))
    assert one == two
    assert one.p_inferior == pytest.approx(0.005, abs=0.003)
