"""The evaluation matrix and its summaries, against numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from onward.learning.matrix import Matrix, matrix_of
from onward.repository import Facts, FrozenHoldout, Repository, Scores
from onward.stores import MemoryStore
from tests.repository.checkpoints import leaf, output_with

THREE = {name: FrozenHoldout(i, "accuracy") for i, name in enumerate("abc", start=1)}

# Three increments, three holdouts. Above the diagonal: scored before it was learned.
WORKED = Matrix(
    THREE,
    {1: {"a": 0.9, "b": 0.3, "c": 0.1}, 2: {"a": 0.8, "b": 0.7, "c": 0.4},
     3: {"a": 0.6, "b": 0.75, "c": 0.9}},
    {"a": 0.1, "b": 0.1, "c": 0.2},
)  # fmt: skip


def lower(matrix: Matrix) -> Matrix:
    """The same with 1 - score, where lower is better."""

    def turned(row: Mapping[str, float | None]) -> dict[str, float | None]:
        return {name: 1 - score for name, score in row.items() if score is not None}

    return replace(
        matrix,
        holdouts={n: FrozenHoldout(f.increment, "error", lower=True) for n, f in THREE.items()},
        rows={i: turned(row) for i, row in matrix.rows.items()},
        start=turned(matrix.start),
    )


def test_a_worked_example() -> None:
    """ACC (0.6 + 0.75 + 0.9) / 3; BWT ((0.6 - 0.9) + (0.75 - 0.7)) / 2;

    FWT ((0.3 - 0.1) + (0.4 - 0.2)) / 2; forgetting ((0.9 - 0.6) + (0.7 - 0.75)) / 2.
    """
    assert WORKED.accuracy() == pytest.approx(0.75)
    assert WORKED.backward_transfer() == pytest.approx(-0.125)
    assert WORKED.forward_transfer() == pytest.approx(0.2)
    assert WORKED.forward_transfer(0.1) == pytest.approx(0.25)
    assert WORKED.forward_transfer({"b": 0.2}) == pytest.approx(0.1)
    assert WORKED.forgetting() == pytest.approx(0.125)
    assert WORKED.excess_forgetting({"a": 0.7, "b": 0.8, "c": 0.2}) == pytest.approx(0.075)
    assert WORKED.excess_forgetting({"a": 0.5}) == pytest.approx(-0.1)
    assert WORKED.excess_forgetting({}) is None


def test_where_lower_is_better_gains_stay_positive() -> None:
    turned = lower(WORKED)
    assert turned.accuracy() == pytest.approx(0.25)
    for name in ("backward_transfer", "forward_transfer", "forgetting"):
        assert getattr(turned, name)() == pytest.approx(getattr(WORKED, name)())
    assert turned.excess_forgetting({"a": 0.3, "b": 0.2}) == pytest.approx(0.075)


def test_forgetting_counts_from_the_best_of_the_past() -> None:
    """Not from the score right after learning: a score that rose and fell is a larger loss."""
    rows = {1: {"a": 0.5}, 2: {"a": 0.9}, 3: {"a": 0.6}}
    matrix = Matrix({"a": FrozenHoldout(1, "accuracy")}, rows)
    assert matrix.backward_transfer() == pytest.approx(0.1)
    assert matrix.forgetting() == pytest.approx(0.3)
    assert matrix.forgotten("a") == pytest.approx(0.3)


def test_one_increment_has_nothing_to_forget() -> None:
    matrix = Matrix({"a": FrozenHoldout(1, "accuracy")}, {1: {"a": 0.5}})
    assert matrix.accuracy() == 0.5
    assert matrix.backward_transfer() is None
    assert matrix.forward_transfer() is None
    assert matrix.forgetting() is None
    assert Matrix().accuracy() is None


def test_different_metrics_have_no_common_mean() -> None:
    holdouts = {"a": FrozenHoldout(1, "accuracy"), "b": FrozenHoldout(1, "mse", lower=True)}
    matrix = Matrix(holdouts, {1: {"a": 0.5, "b": 30.0}, 2: {"a": 0.6, "b": 20.0}})
    assert matrix.accuracy() is None
    assert matrix.metrics == ["accuracy", "mse (lower is better)"]
    assert matrix.of_metric("mse (lower is better)").backward_transfer() == pytest.approx(10)
    assert matrix.of_metric("accuracy").backward_transfer() == pytest.approx(0.1)


def test_what_was_not_scored_or_not_finite_is_left_out() -> None:
    matrix = replace(WORKED, rows={**WORKED.rows, 3: {"a": 0.6, "b": None}})
    assert matrix.accuracy() == pytest.approx(0.6)
    assert matrix.backward_transfer() == pytest.approx(-0.3)
    assert matrix[3, "c"] is None
    assert matrix[9, "a"] is None


def scored(
    repository: Repository, increment: int, parent: str | None, scores: Scores | None
) -> str:
    facts = Facts(
        step=increment, epoch=1, increment=increment, parent=parent, finished=True, reason="test",
        verb="continue", framework="numpy", framework_version="1", scores=scores,
    )  # fmt: skip
    writer = repository.claim("t")
    return writer.commit({"w": leaf(increment)}, facts).checkpoint


def test_the_log_tells_the_matrix_of_one_lineage() -> None:
    """Also through unfinished, unscored and dropped checkpoints; other branches are left out."""
    repository = output_with(MemoryStore("out"), 1)
    history = repository.history
    assert matrix_of(history) == Matrix()
    frozen = dict(list(THREE.items())[:1])
    first = scored(repository, 1, None, Scores(after={"a": 0.9}, before={"a": 0.1}, frozen=frozen))
    second = scored(repository, 2, first, None)
    other = scored(repository, 2, first, Scores(after={"a": 0.0}, frozen=frozen))
    third = scored(
        repository, 3, second,
        Scores(
            after={"a": 0.8, "c": 0.7, "unknown": 1.0}, before={"a": 0.85, "c": None},
            frozen={"a": THREE["a"], "c": THREE["c"]}, verdict="no change",
        ),
    )  # fmt: skip
    repository.drop([second])
    matrix = matrix_of(repository.history)
    assert matrix.rows == {1: {"a": 0.9}, 2: {"a": 0.85, "c": None}, 3: {"a": 0.8, "c": 0.7}}
    assert matrix.start == {"a": 0.1}
    assert matrix.checkpoints == {1: first, 2: second, 3: third}
    assert matrix.verdicts == {3: "no change"}
    assert list(matrix.holdouts) == ["a", "c"]
    assert matrix.backward_transfer() == pytest.approx(-0.1)
    branch = matrix_of(repository.history, repository.history.commits[other])
    assert branch.rows == {1: {"a": 0.9}, 2: {"a": 0.0}}


def test_of_an_increment_finished_twice_the_last_counts() -> None:
    repository = output_with(MemoryStore("out"))
    frozen = {"a": THREE["a"]}
    first = scored(repository, 1, None, Scores(after={"a": 0.5}, frozen=frozen))
    scored(repository, 1, first, Scores(after={"a": 0.6}, frozen=frozen))
    assert matrix_of(repository.history).rows == {1: {"a": 0.6}}
