"""The evaluation matrix as a document."""

from __future__ import annotations

from typing import Any

from onward.learning.matrix import Matrix, matrix_of
from onward.repository import History


def matrix_document(history: History, *, chance: float | None = None) -> dict[str, Any]:
    """The matrix as plain JSON values."""
    matrix = matrix_of(history)
    return {
        "holdouts": [
            {"name": n, "increment": f.increment, "metric": f.metric, "lower_is_better": f.lower}
            for n, f in matrix.holdouts.items()
        ],
        "start": dict(matrix.start),
        "rows": [
            {"increment": i, "checkpoint": matrix.checkpoints[i], "scores": dict(row),
             "verdict": matrix.verdicts.get(i, "")}
            for i, row in matrix.rows.items()
        ],
        "summaries": [
            {"metric": metric, **summaries(matrix.of_metric(metric), chance)}
            for metric in matrix.metrics
        ],
    }  # fmt: skip


def summaries(matrix: Matrix, chance: float | None) -> dict[str, float | None]:
    """The four numbers of a matrix of one metric."""
    return {
        "accuracy": matrix.accuracy(),
        "backward_transfer": matrix.backward_transfer(),
        "forward_transfer": matrix.forward_transfer(chance),
        "forgetting": matrix.forgetting(),
    }
