"""Which checkpoints stay: examples that a user would write down, and laws for any history."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onward.errors import UsageError
from onward.repository import Commit, History
from onward.repository.records import DocumentRef
from onward.repository.retention import BestOf, Decision, Retention, check_metrics, decide


def _commit(number: int, step: int, **more: Any) -> Commit:
    usual: dict[str, Any] = {"increment": 1, "finished": False, "metrics": {}, **more}
    return Commit(
        seq=number + 1, record="0" * 32, writer="0" * 32, generation=1, time="", prev="0" * 64,
        checkpoint=f"{number:016x}", step=step, epoch=0, parent=None, reason="test", stored=0,
        manifest=DocumentRef("0" * 64, 0), **usual,
    )  # fmt: skip


def _history(*commits: Commit, **more: Any) -> History:
    return History(commits={commit.checkpoint: commit for commit in commits}, **more)


def _at_steps(*steps: int) -> History:
    return _history(*(_commit(number, step) for number, step in enumerate(steps, 1)))


def _kept_steps(history: History, **rules: Any) -> list[int]:
    decision = decide(history, Retention(**rules))
    return [history.commits[id_].step for id_, reasons in decision.reasons.items() if reasons]


# --- examples


def test_without_a_rule_everything_stays() -> None:
    """Nobody loses a checkpoint for having said nothing."""
    assert _kept_steps(_at_steps(1, 2, 3)) == [1, 2, 3]
    assert _kept_steps(_at_steps()) == []


def test_keep_last() -> None:
    """The newest by their place in the log, whatever their steps."""
    assert _kept_steps(_at_steps(1, 2, 30, 4, 5), keep_last=3) == [30, 4, 5]
    assert _kept_steps(_at_steps(1, 2), keep_last=3) == [1, 2]


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([500, 999, 1000, 1500, 2000, 2001, 9000], [1000, 2000, 9000]),
        ([900, 1100, 1900, 2100, 2200], [1100, 2100, 2200]),
        ([2500, 2600, 3100, 3200], [2500, 3100, 3200]),  # the first at or after 1000 and 2000
        ([0, 1, 2], [2]),  # step 0 is no milestone; the newest stays
    ],
)
def test_keep_every(steps: list[int], kept: list[int]) -> None:
    """The first checkpoint at or after each multiple."""
    assert _kept_steps(_at_steps(*steps), keep_every=1000) == kept


def test_keep_every_after_going_back() -> None:
    """Where training went back and passed a multiple again, the later passage counts."""
    history = _at_steps(1000, 1500, 500, 1000, 1600)
    kept = [
        n
        for n, r in enumerate(decide(history, Retention(keep_every=1000)).reasons.values(), 1)
        if r
    ]
    assert kept == [4, 5]


def test_keep_best() -> None:
    """Highest or lowest; of equals the newer; never one without a finite value."""
    scores = [0.5, 0.9, None, 0.9, math.nan, 0.1]
    commits = [_commit(n, n, metrics={"accuracy": s}) for n, s in enumerate(scores, 1)]
    history = _history(*commits, _commit(7, 7))
    assert _kept_steps(history, keep_best=(BestOf("accuracy"),)) == [4, 7]
    assert _kept_steps(history, keep_best=(BestOf("accuracy", count=3),)) == [1, 2, 4, 7]
    assert _kept_steps(history, keep_best=(BestOf("accuracy", lowest=True),)) == [6, 7]
    assert _kept_steps(history, keep_best=(BestOf("loss"),)) == [7]


def test_finished_increments() -> None:
    """The newest finished checkpoint of each increment stays unless it is said otherwise."""
    history = _history(
        _commit(1, 10, finished=True),
        _commit(2, 20, increment=2),
        _commit(3, 30, increment=2, finished=True),
        _commit(4, 40, increment=2, finished=True),
        _commit(5, 50, increment=3),
        _commit(6, 60, increment=3),
    )
    assert _kept_steps(history, keep_last=1) == [10, 40, 60]
    assert _kept_steps(history, keep_last=1, keep_finished=False) == [60]


def test_reasons() -> None:
    """Each is told: the newest, rules, aliases, pins."""
    history = _at_steps(1, 2, 3, 4)
    ids = list(history.commits)
    history.aliases = {"champion": ids[0], "b": ids[0]}
    history.pins = {ids[1]}
    decision = decide(history, Retention(keep_last=1, keep_every=4))
    assert decision == Decision(
        {
            ids[0]: ("alias b", "alias champion"),
            ids[1]: ("pinned",),
            ids[2]: (),
            ids[3]: ("newest", "last 1", "every 4 steps"),
        }
    )
    assert decision.goes == [ids[2]]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Retention(keep_last=0),
        lambda: Retention(keep_last=-1),
        lambda: Retention(keep_last=True),
        lambda: Retention(keep_last=2.5),  # type: ignore[arg-type]
        lambda: Retention(keep_every=0),
        lambda: BestOf(""),
        lambda: BestOf("loss", count=0),
    ],
)
def test_impossible_rules(wrong: Any) -> None:
    """They are refused when they are made, before anything could go by them."""
    with pytest.raises(UsageError):
        wrong()


def test_metric_that_nobody_has() -> None:
    """A mistyped metric is an error, for it would keep nothing."""
    history = _history(_commit(1, 1, metrics={"loss": 1.0, "accuracy": None}))
    check_metrics(history, Retention(keep_best=(BestOf("loss"),)))
    for name in ("los", "accuracy"):
        with pytest.raises(UsageError, match=name):
            check_metrics(history, Retention(keep_best=(BestOf(name),)))


# --- laws

_METRICS = st.dictionaries(
    st.sampled_from(["loss", "accuracy"]),
    st.none() | st.floats(allow_nan=True, width=16) | st.sampled_from([0.5, 0.25]),
)


@st.composite
def _histories(draw: st.DrawFn) -> History:
    count = draw(st.integers(0, 14))
    commits = [
        _commit(
            number,
            draw(st.integers(0, 40)),
            metrics=draw(_METRICS),
            increment=draw(st.integers(1, 3)),
            finished=draw(st.booleans()),
        )
        for number in range(1, count + 1)
    ]
    ids = [commit.checkpoint for commit in commits]
    dropped = draw(st.sets(st.sampled_from(ids))) if ids else set()
    live = sorted(set(ids) - dropped)
    named = (
        draw(st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(live))) if live else {}
    )
    pins = draw(st.sets(st.sampled_from(live))) if live else set()
    return _history(*commits, dropped=dropped, aliases=named, pins=pins)


_POSITIVE = st.none() | st.integers(1, 12)
_RULES = st.builds(
    Retention,
    keep_last=_POSITIVE,
    keep_every=_POSITIVE,
    keep_best=st.lists(
        st.builds(
            BestOf,
            st.sampled_from(["loss", "accuracy"]),
            lowest=st.booleans(),
            count=st.integers(1, 3),
        ),
        max_size=2,
    ).map(tuple),
    keep_finished=st.booleans(),
)


def _after(history: History, decision: Decision) -> History:
    return replace(history, dropped=history.dropped | set(decision.goes))


@given(_histories(), _RULES)
def test_what_is_protected_stays(history: History, rules: Retention) -> None:
    """The newest, every alias, every pin; and decisions are about live checkpoints only."""
    decision = decide(history, rules)
    live = [commit.checkpoint for commit in history.live()]
    assert list(decision.reasons) == live
    protected = {*history.aliases.values(), *history.pins, *live[-1:]}
    assert protected.isdisjoint(decision.goes)
    if not rules.drops_anything:
        assert decision.goes == []


@given(_histories(), _RULES)
def test_deciding_again_drops_nothing_more(history: History, rules: Retention) -> None:
    """And the reasons of what stays are the same, in whatever portions it was dropped."""
    decision = decide(history, rules)
    again = decide(_after(history, decision), rules)
    assert again.goes == []
    assert again.reasons == {id_: found for id_, found in decision.reasons.items() if found}
    some = replace(history, dropped=history.dropped | set(decision.goes[::2]))
    assert decide(some, rules).goes == decision.goes[1::2]


def test_what_is_not_a_number_is_never_the_best() -> None:
    """Neither alone nor beside numbers, from either end."""
    history = _history(_commit(1, 1, metrics={"loss": math.nan}))
    assert history.best("loss", lowest=True) is None
    history = _history(
        *(_commit(n, n, metrics={"loss": s}) for n, s in enumerate((math.nan, 2.0, math.nan), 1))
    )
    best = history.best("loss", lowest=False)
    assert best is not None
    assert best.metrics == {"loss": 2.0}


@given(_histories(), _RULES)
def test_each_rule_keeps_what_it_says(history: History, rules: Retention) -> None:
    """The last k; something at each milestone that was passed; nothing better than the best."""
    kept = [c for c in history.live() if decide(history, rules).reasons[c.checkpoint]]
    live = history.live()
    if rules.keep_last is not None:
        assert kept[-rules.keep_last :] == live[-rules.keep_last :]
    if rules.keep_every is not None:
        for milestone in range(rules.keep_every, 41, rules.keep_every):
            passed = [c.step for c in live if c.step >= milestone]
            assert min(passed, default=0) in [0, *(c.step for c in kept)]
    for rule in rules.keep_best:
        best = history.best(rule.metric, lowest=rule.lowest)
        values = [c.metrics.get(rule.metric) for c in live]
        if best is not None and not any(
            value is not None and math.isnan(value) for value in values
        ):
            assert best in kept


@given(_histories(), _RULES, _RULES)
def test_more_rules_keep_more(history: History, rules: Retention, more: Retention) -> None:
    """Rules add up: with those of two sets, what either keeps stays."""
    if not (rules.drops_anything and more.drops_anything):
        return
    both = replace(
        rules,
        keep_best=rules.keep_best + more.keep_best,
        keep_finished=rules.keep_finished or more.keep_finished,
    )
    assert set(decide(history, both).goes) <= set(decide(history, rules).goes)
