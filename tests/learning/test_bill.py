"""The bill: every step counted once, nothing claimed to be known that is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytest

from onward.learning.bill import Bill, Told, gaps, make_bill
from onward.learning.rounds import rounds, telling
from onward.repository import (
    Audit,
    Commit,
    Facts,
    FrozenHoldout,
    Repository,
    Scores,
    Writer,
    record_audit,
)
from onward.repository.auditing import Retrain
from onward.stores import MemoryStore
from tests.repository.checkpoints import leaf, output_with

PLANNED = {"steps": 1000, "samples": 64_000, "epochs": 8}


class Life:
    """An output whose checkpoints are made by hand."""

    def __init__(self) -> None:
        self.repository: Repository = output_with(MemoryStore("out"))
        self.writer: Writer = self.repository.claim("test")

    def save(
        self, step: int, parent: Commit | None = None, *, increment: int = 1, finished: bool = True,
        verb: str = "fresh", scores: Scores | None = None, **learning: Any,
    ) -> Commit:  # fmt: skip
        about = {"learning": learning} if learning else {}
        return self.writer.commit(
            {"w": leaf(step)},
            Facts(
                step=step, epoch=0, increment=increment, finished=finished, reason="test",
                parent=parent.checkpoint if parent else None, verb=verb, framework="numpy",
                framework_version="1", about=about, scores=scores,
            ),
        )  # fmt: skip

    def audit(self, commit: Commit, share: float = 1.0, **given: Any) -> Audit:
        usual: dict[str, Any] = {
            "retrain": f"{len(self.repository.history.audits):016x}", "steps": 900,
            "samples": 9000, "seconds": 90.0, "stored": 99,
        }  # fmt: skip
        found = Retrain(checkpoint=commit.checkpoint, share=share, **{**usual, **given})
        return record_audit(self.repository, found)

    def told(self) -> Mapping[str, Told]:
        history = self.repository.refresh()
        found = {}
        for commit in telling(rounds(history), history):
            manifest = self.repository.manifest(commit)
            found[commit.checkpoint] = Told(manifest.about, manifest.verb)
        return found

    def bill(self) -> Bill:
        return make_bill(self.repository.refresh(), self.told())


def test_the_first_increment_is_a_full_training_itself() -> None:
    life = Life()
    life.save(100, seconds=10.0, samples=6400)
    (one,) = life.bill().increments
    assert one.basis == "itself"
    assert (one.used.steps, one.used.seconds, one.used.samples) == (100, 10.0, 6400)
    assert one.ratio("steps") == one.ratio("seconds") == 1.0


def test_a_branch_is_no_full_training() -> None:
    """Its weights come from elsewhere: nobody knows what these cost."""
    life = Life()
    life.save(100, verb="branch", seconds=10.0)
    (one,) = life.bill().increments
    assert one.basis == "unknown"
    assert one.retrain.steps is None
    assert one.ratio("steps") is None


def test_estimated_at_the_best_pace_of_any_increment() -> None:
    """An increment of few steps is mostly its beginning: its own pace would flatter it."""
    life = Life()
    first = life.save(100, seconds=10.0)
    life.save(200, first, increment=2, seconds=20.0, samples=6400, retrain=PLANNED)
    bill = life.bill()
    two = bill.increments[1]
    assert two.basis == "estimated"
    assert (two.retrain.steps, two.retrain.samples, two.retrain.seconds) == (1000, 64_000, 100.0)
    assert two.ratio("steps") == two.ratio("samples") == 0.1
    assert two.ratio("seconds") == 0.2
    total = bill.totals["steps"]
    assert (total.used, total.compared, total.retrain, total.estimated) == (200, 200, 1100, True)
    assert total.saved == 900


def test_measured_where_an_audit_says_so() -> None:
    """A full one beats a newer one on a sample, and both beat the estimate."""
    life = Life()
    first = life.save(100, seconds=10.0)
    second = life.save(200, first, increment=2, seconds=20.0, retrain=PLANNED)
    life.audit(second, 0.25, steps=250, seconds=25.0, retrain="a" * 16)
    (_, two) = life.bill().increments
    assert two.basis == "scaled"
    assert (two.retrain.steps, two.retrain.samples, two.retrain.seconds) == (1000, 36_000, 100.0)
    assert two.retrain.stored == 99
    life.audit(second, steps=900, retrain="b" * 16)
    life.audit(second, 0.5, retrain="c" * 16)
    bill = life.bill()
    assert bill.increments[1].basis == "measured"
    assert bill.increments[1].retrain.steps == 900
    assert not bill.totals["steps"].estimated
    assert bill.totals["steps"].ratio == 200 / 1000


def test_steps_of_lines_that_were_given_up_are_counted_once() -> None:
    """A killed run that went on from an older checkpoint: what was trained twice was trained."""
    life = Life()
    at_10 = life.save(10, finished=False, seconds=1.0)
    at_20 = life.save(20, at_10, finished=False, seconds=2.0)
    life.save(30, at_20, finished=False, seconds=3.0)
    life.save(50, at_20, seconds=5.0)
    (one,) = life.bill().increments
    assert one.used.steps == 60
    assert one.used.seconds == pytest.approx(6.0)
    assert not one.used.at_least
    assert one.finished


def test_where_lines_parted_is_gone_the_shared_part_is_shared_by_steps() -> None:
    life = Life()
    at_20 = life.save(20, finished=False, seconds=2.0)
    life.save(40, at_20, finished=False, seconds=4.0)
    life.save(40, at_20, seconds=4.0)
    life.repository.refresh()
    life.repository.drop([at_20.checkpoint])
    (one,) = life.bill().increments
    assert (one.used.steps, one.used.seconds) == (60, 6.0)
    assert (one.checkpoints, one.dropped) == (3, 1)


def test_what_nobody_tells_any_more_is_at_least() -> None:
    """The log still knows steps and bytes of checkpoints that are gone; not their seconds."""
    life = Life()
    first = life.save(10, finished=False, seconds=1.0)
    gone = life.save(30, first, finished=False, seconds=3.0)
    life.save(50, first, seconds=5.0)
    life.repository.refresh()
    life.repository.drop([gone.checkpoint])
    bill = life.bill()
    assert bill.increments[0].used.steps == 70
    assert bill.increments[0].used.seconds == 5.0
    assert bill.increments[0].used.at_least == {"seconds"}
    assert bill.totals["seconds"].at_least
    assert not bill.totals["steps"].at_least


def test_increment_whose_checkpoints_are_all_gone() -> None:
    life = Life()
    first = life.save(100, seconds=10.0)
    life.save(200, first, increment=2, seconds=20.0, retrain=PLANNED)
    life.repository.refresh()
    life.repository.drop([first.checkpoint])
    one, two = life.bill().increments
    assert (one.checkpoints, one.dropped, one.used.steps, one.used.seconds) == (1, 1, 100, None)
    assert one.basis == "itself"
    assert (two.used.steps, two.used.seconds) == (100, 20.0)
    assert life.bill().totals["seconds"].used == 20.0
    assert life.bill().totals["seconds"].at_least


def test_older_checkpoints_tell_no_samples_and_no_retrain() -> None:
    """They bear `about["seconds"]`; the rest is unknown, not zero."""
    life = Life()
    first = life.save(100)
    second = life.save(150, first, increment=2)
    told = {first.checkpoint: Told({"seconds": 7.0}), second.checkpoint: Told({"seconds": 3.0})}
    bill = make_bill(life.repository.refresh(), told)
    two = bill.increments[1]
    assert (two.used.steps, two.used.seconds, two.used.samples) == (50, 3.0, None)
    assert two.basis == "unknown"
    assert bill.totals["samples"].used is None
    assert bill.totals["steps"].used == 150
    assert bill.totals["steps"].increments == 1


def test_an_unfinished_increment_is_on_the_bill_but_not_compared() -> None:
    life = Life()
    first = life.save(100, seconds=10.0)
    life.save(120, first, increment=2, finished=False, seconds=2.0, retrain=PLANNED)
    bill = life.bill()
    assert not bill.increments[1].finished
    assert bill.totals["steps"].used == 120
    assert bill.totals["steps"].compared == 100


def test_an_increment_begun_twice_is_two() -> None:
    """Both have one number and one parent; the steps of both were trained."""
    life = Life()
    first = life.save(100)
    life.save(150, first, increment=2, finished=False)
    life.save(130, first, increment=2)
    bill = life.bill()
    assert [one.increment for one in bill.increments] == [1, 2, 2]
    assert [one.used.steps for one in bill.increments] == [100, 50, 30]


@pytest.mark.parametrize(
    "value", ["x", -1, math.nan, math.inf, True, None, [], {}, 1e300, 10**400, {"steps": "x"}]
)
def test_hostile_manifests_are_unknown(value: Any) -> None:
    """Whatever stands in `about`, no figure is made from it."""
    life = Life()
    first = life.save(100)
    life.save(200, first, increment=2)
    learning = dict.fromkeys(
        ("steps", "samples", "seconds", "retrain", "strategy", "curve", "plan"), value
    )
    for about in ({"learning": learning, "seconds": value}, {"learning": value}):
        told = {commit: Told(about) for commit in life.repository.refresh().commits}
        bill = make_bill(life.repository.history, told)
        assert bill.increments[1].used.steps == 100
        assert bill.increments[1].used.seconds is None
        assert bill.increments[1].basis == "unknown"


def test_excess_forgetting_is_positive_where_the_retrain_is_better() -> None:
    """Whichever direction is better; without both scores it is unknown."""
    frozen = {
        "acc": FrozenHoldout(1, "accuracy"), "mse": FrozenHoldout(1, "mse", lower=True),
        "odd": FrozenHoldout(2, "accuracy"), "new": FrozenHoldout(2, "accuracy"),
    }  # fmt: skip
    life = Life()
    ours = life.save(10, scores=Scores(after={"acc": 0.75, "mse": 2.0, "odd": None}, frozen=frozen))
    audit = life.audit(
        ours, scores=Scores(after={"acc": 0.875, "mse": 1.5, "odd": 0.5, "extra": 1.0})
    )
    found = {gap.holdout: gap for gap in gaps(ours, audit)}
    assert {name: gap.excess for name, gap in found.items()} == {
        "acc": 0.125, "mse": 0.5, "odd": None, "extra": None,
    }  # fmt: skip
    assert found["mse"].metric == "mse"
    assert life.bill().increments[0].gaps == tuple(found.values())


def test_figures_of_hostile_records_stay_finite() -> None:
    """A share may be as small as a float can be, and scores as far apart."""
    life = Life()
    frozen = {"odd": FrozenHoldout(1, "loss")}
    ours = life.save(10, seconds=1.0, scores=Scores(after={"odd": 1.7e308}, frozen=frozen))
    life.audit(ours, 5e-324, seconds=1e300, scores=Scores(after={"odd": -1.7e308}))
    (one,) = life.bill().increments
    assert (one.retrain.steps, one.retrain.samples, one.retrain.seconds) == (None, None, None)
    assert [gap.excess for gap in one.gaps] == [None]


def test_an_empty_output_has_an_empty_bill() -> None:
    bill = Life().bill()
    assert bill.increments == ()
    assert bill.totals["steps"].ratio is None


def test_a_thousand_checkpoints_need_few_manifests() -> None:
    """Of a line only its end is read, as what it tells includes what came before."""
    life = Life()
    last = None
    for step in range(1, 61):
        last = life.save(step, last, finished=step == 60)
    history = life.repository.refresh()
    assert len(telling(rounds(history), history)) == 2
