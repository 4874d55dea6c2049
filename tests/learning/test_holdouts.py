"""Frozen holdouts: what is set aside stays the same, is never learned, and is scored by item."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onward.data.items import Digests, Items
from onward.errors import DataChanged, DataError, Leak, NewerFormat, UsageError
from onward.learning.evidence import evidence_of
from onward.learning.holdouts import Holdouts
from onward.repository import read_state
from onward.stores import MemoryStore
from tests.repository.checkpoints import commit, output_with


def digests(*ids: str) -> Digests:
    found = Items.identified(ids).digests
    assert found is not None
    return found


def keyed(**contents: int) -> Digests:
    values = np.array(list(contents.values()), np.uint64).view(np.uint8).reshape(-1, 8)
    found = Items.keyed(list(contents), values).digests
    assert found is not None
    return found


def frozen(holdouts: Holdouts, name: str = "old", **given: Any) -> Holdouts:
    usual: dict[str, Any] = {
        "digests": digests("a", "b", "c"), "count": 3, "increment": 1, "metric": "accuracy",
        "higher_is_better": True,
    }  # fmt: skip
    holdouts.freeze(name, **{**usual, **given})
    return holdouts


def test_the_same_items_in_another_order_are_the_same_holdout() -> None:
    """Outcomes follow their items into the order in which they were frozen."""
    holdouts = frozen(Holdouts())
    frozen(holdouts, digests=digests("c", "a", "b"), increment=2)
    holdouts.record("old", np.array([True, False, False]), when="after")
    outcomes = holdouts["old"].outcomes
    assert outcomes is not None
    assert outcomes.tolist() == [False, False, True]
    assert holdouts["old"].increment == 1
    frozen(holdouts, increment=3)
    holdouts.record("old", np.array([True, False, False]), when="after")
    assert holdouts["old"].outcomes.tolist() == [True, False, False]  # type: ignore[union-attr]


def test_other_items_under_the_same_name_are_refused_with_how_many_differ() -> None:
    holdouts = frozen(Holdouts())
    with pytest.raises(DataChanged, match="2 of its 3 items"):
        frozen(holdouts, digests=digests("a", "x", "y"))
    with pytest.raises(DataChanged, match="1 of its 3 items"):
        frozen(holdouts, digests=digests("a", "b"), count=2)
    with pytest.raises(DataChanged, match="1 of its 3 items"):
        frozen(holdouts, digests=digests("a", "b", "c", "d"), count=4)
    with pytest.raises(DataChanged, match="counted"):
        frozen(holdouts, digests=None)
    assert holdouts["old"].count == 3


def test_another_metric_or_other_clusters_are_refused() -> None:
    holdouts = frozen(Holdouts(), clusters=np.array([1, 1, 2]))
    with pytest.raises(DataChanged, match="metric 'accuracy'"):
        frozen(holdouts, metric="loss", clusters=np.array([1, 1, 2]))
    with pytest.raises(DataChanged, match="lower is better"):
        frozen(holdouts, higher_is_better=False, clusters=np.array([1, 1, 2]))
    with pytest.raises(DataChanged, match="with clusters"):
        frozen(holdouts)
    with pytest.raises(DataChanged, match="2 of its 3 items have another cluster"):
        frozen(holdouts, clusters=np.array([1, 2, 1]))
    frozen(holdouts, digests=digests("c", "a", "b"), clusters=np.array([2, 1, 1]))


def test_counted_holdouts_are_the_same_while_their_number_is() -> None:
    holdouts = frozen(Holdouts(), digests=None, count=5)
    frozen(holdouts, digests=None, count=5)
    with pytest.raises(DataChanged, match="5 items"):
        frozen(holdouts, digests=None, count=6)
    assert not holdouts.contains(digests("a")).any()


def test_a_renamed_file_is_the_same_item_and_a_changed_one_is_not() -> None:
    first = keyed(a=1, b=2, c=3)
    holdouts = frozen(Holdouts(), digests=first, kind="keyed")
    frozen(holdouts, digests=keyed(z=3, b=2, a=1), kind="keyed")
    holdouts.record("old", np.array([1.0, 2.0, 3.0]), when="after")
    assert holdouts["old"].outcomes.tolist() == [3, 2, 1]  # type: ignore[union-attr]
    with pytest.raises(DataChanged, match="1 of its 3 items"):
        frozen(holdouts, digests=keyed(a=1, b=2, c=4), kind="keyed")


def test_two_renamed_copies_of_one_content_are_the_same_items() -> None:
    holdouts = frozen(Holdouts(), digests=keyed(a=7, b=7, c=3), kind="keyed")
    frozen(holdouts, digests=keyed(x=7, y=7, c=3), kind="keyed")
    holdouts.record("old", np.array([1.0, 2.0, 3.0]), when="after")
    assert sorted(holdouts["old"].outcomes.tolist()) == [1, 2, 3]  # type: ignore[union-attr]


def test_items_of_a_holdout_are_found_in_training_data() -> None:
    """With the first five ids and how many there are; nothing is said where there is none."""
    names = [f"item {n}" for n in range(20)]
    holdouts = frozen(Holdouts(), digests=digests(*names[3:11]), count=8)
    assert holdouts.contains(digests(*names)).tolist() == [3 <= n < 11 for n in range(20)]
    error = holdouts.leaking(digests(*names), names)
    assert isinstance(error, Leak)
    assert error.count == 8
    assert "8 of 20 items" in error.what
    assert "'item 3', 'item 4', 'item 5', 'item 6', 'item 7', …" in error.why
    assert "'old'" in error.what
    with pytest.raises(Leak, match=bytes(digests("item 3")[0]).hex()):
        holdouts.refuse_leaks(digests(*names))
    assert holdouts.leaking(digests("x", "y")) is None
    holdouts.refuse_leaks(digests())


def test_a_copy_or_a_new_version_of_a_held_out_file_leaks_too() -> None:
    holdouts = frozen(Holdouts(), digests=keyed(a=1, b=2, c=3), kind="keyed")
    assert holdouts.contains(keyed(copy=1, b=9, other=8)).tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("outcomes", "what"),
    [
        (np.array([1.0, np.nan, np.inf]), "2 outcomes of holdout 'old' are not finite"),
        (np.array([True, False]), r"bool \[2\]"),
        (np.array([1, 0, 1]), r"int64 \[3\]"),
        (np.array([[True], [False], [True]]), r"bool \[3, 1\]"),
        (np.array(["a", "b", "c"]), "outcomes"),
        ([], "outcomes"),
        (np.array([None, 1.0, 2.0]), "outcomes"),
    ],
)
def test_outcomes_that_say_nothing_are_refused(outcomes: Any, what: str) -> None:
    holdouts = frozen(Holdouts())
    with pytest.raises(DataError, match=what):
        holdouts.record("old", outcomes, when="after")
    assert holdouts.scores("after") == {}


def test_unknown_names_and_mixed_kinds_are_refused() -> None:
    holdouts = frozen(Holdouts())
    with pytest.raises(UsageError, match="frozen are: 'old'"):
        holdouts.record("new", np.array([True]), when="after")
    with pytest.raises(UsageError, match="'before' or 'after'"):
        holdouts.record("old", np.ones(3, bool), when="later")  # type: ignore[arg-type]
    holdouts.record("old", np.ones(3, bool), when="before")
    with pytest.raises(DataError, match="two kinds"):
        holdouts.record("old", np.ones(3), when="after")


@pytest.mark.parametrize("name", ["", "x" * 65, "ä" * 33, "a\nb", "\x1b[31m", "\ud800", 7])
def test_bad_names_are_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="name of a holdout"):
        frozen(Holdouts(), name)


@pytest.mark.parametrize(
    "given",
    [
        {"count": 0, "digests": None}, {"count": -1, "digests": None}, {"count": 2},
        {"digests": np.zeros((3, 16), np.int64)}, {"digests": np.zeros((3, 16), np.uint8)},
        {"clusters": np.array([1, 2])}, {"clusters": np.array([1.0, 2.0, 3.0])},
    ],
)  # fmt: skip
def test_what_cannot_be_held_out_is_refused(given: dict[str, Any]) -> None:
    """No items, arrays of another shape or dtype, equal items."""
    with pytest.raises(DataError):
        frozen(Holdouts(), **given)


def test_there_is_a_limit_to_holdouts() -> None:
    """Their scores are in every finished checkpoint's record, which is bounded."""
    holdouts = Holdouts()
    for number in range(1000):
        frozen(holdouts, f"h{number}", digests=None)
    with pytest.raises(UsageError, match="1000 holdouts"):
        frozen(holdouts, "one more", digests=None)
    frozen(holdouts, "h3", digests=None)


def test_a_new_increment_begins_without_outcomes() -> None:
    """Else the scores of another model would be recorded for this one."""
    holdouts = frozen(Holdouts())
    holdouts.record("old", np.ones(3, bool), when="after")
    holdouts.record("old", np.zeros(3, bool), when="before")
    assert (holdouts.scores("after"), holdouts.scores("before")) == ({"old": 1.0}, {"old": 0.0})
    holdouts.begin()
    assert holdouts.scores("after") == holdouts.scores("before") == {}


def test_a_caller_may_reuse_its_arrays() -> None:
    mine, outcomes = digests("a", "b", "c").copy(), np.ones(3)
    holdouts = frozen(Holdouts(), digests=mine)
    holdouts.record("old", outcomes, when="after")
    mine[:] = 0
    outcomes[:] = 0
    assert holdouts.contains(digests("a")).all()
    assert holdouts.scores("after") == {"old": 1.0}


@pytest.mark.parametrize("dtype", [np.bool_, np.float16, np.float32, np.float64])
def test_the_state_restores_everything(dtype: type) -> None:
    holdouts = frozen(Holdouts(), clusters=np.array([1, 1, 2]))
    frozen(holdouts, "counted", digests=None, metric="loss", higher_is_better=False)
    holdouts.record("old", np.array([1, 0, 1], dtype), when="after")
    holdouts.record("counted", np.array([0.5, 0.25, 3e5]), when="before")
    other = Holdouts()
    other.load_state_dict(holdouts.state_dict())
    assert other.names == ["old", "counted"]
    assert other.row() == holdouts.row()
    assert other["old"].outcomes.dtype == holdouts["old"].outcomes.dtype  # type: ignore[union-attr]
    frozen(other, clusters=np.array([1, 1, 2]))
    assert str(other.state_dict()) == str(holdouts.state_dict())


def test_a_newer_state_is_refused() -> None:
    with pytest.raises(NewerFormat):
        Holdouts().load_state_dict({**Holdouts().state_dict(), "version": 2})


def test_the_row_tells_scores_and_what_they_mean() -> None:
    holdouts = frozen(Holdouts())
    frozen(holdouts, "new", increment=2, metric="mse", higher_is_better=False, digests=None)
    holdouts.record("old", np.array([True, True, False]), when="after")
    holdouts.record("new", np.array([2.0, 4.0, 6.0]), when="before")
    row = holdouts.row("no change")
    assert row is not None
    assert row.after == {"old": 2 / 3}
    assert row.before == {"new": 4.0}
    assert list(row.frozen) == ["old", "new"]
    assert (row.frozen["new"].increment, row.frozen["new"].lower) == (2, True)
    assert row.verdict == "no change"
    assert Holdouts().row() is None


def test_the_mean_of_huge_numbers_is_finite() -> None:
    holdouts = frozen(Holdouts())
    holdouts.record("old", np.array([1e308, 1.5e308, 1.7e308]), when="after")
    assert holdouts.scores("after")["old"] == pytest.approx(1.4e308)


def test_a_retired_holdout_is_gone() -> None:
    holdouts = frozen(frozen(Holdouts()), "other", digests=None)
    holdouts.retire("old")
    assert holdouts.names == ["other"]
    assert not holdouts.contains(digests("a")).any()
    with pytest.raises(UsageError):
        holdouts.retire("old")


def test_the_state_survives_a_checkpoint_made_with_torch() -> None:
    """Its arrays are NumPy's before and after; the evidence in it is found without torch."""
    torch = pytest.importorskip("onward.frameworks.torch")
    holdouts = frozen(Holdouts(), clusters=np.array([1, 1, 2]))
    frozen(holdouts, "loss", digests=None, metric="mse", higher_is_better=False)
    holdouts.record("old", np.array([True, False, True]), when="after")
    holdouts.record("loss", np.array([1.5, 2.5, 0.1], np.float32), when="before")
    repository = output_with(MemoryStore("out"))
    tree = torch.capture({"holdouts": holdouts})
    saved = commit(repository.claim("t"), 1, state={"onward": {"learning": tree}})

    found = evidence_of(repository, saved).holdouts
    assert str(found["loss"].before) == str(holdouts["loss"].before)
    assert str(found["old"].outcomes) == str(holdouts["old"].outcomes)
    state = read_state(repository.store, repository.manifest(saved))["onward"]["learning"]
    other = frozen(Holdouts(), "wrong")
    torch.restore({"holdouts": other}, state)
    assert str(other.state_dict()) == str(holdouts.state_dict())
