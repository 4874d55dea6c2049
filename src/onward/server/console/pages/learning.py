"""How well a model knows what it learned: scores over increments, forgetting, verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from onward.errors import NotAnOutput
from onward.server import models as service
from onward.server.api.models import ModelId
from onward.server.console.drawing import NARROW_PX, Chart, Line, draw_chart, heat
from onward.server.console.forms import call_of
from onward.server.console.pages.models import head, labels, told
from onward.server.console.rendering import render

_MOST_HOLDOUTS, _MOST_ROWS, _MOST_LINES = 40, 60, 24

router = APIRouter(include_in_schema=False)


@router.get("/models/{model_id}/learning")
def learning(request: Request, model_id: ModelId) -> HTMLResponse:
    """The evaluation matrix as curves and as a heat map; of very many, the newest."""
    call = call_of(request)
    model = head(call, model_id)
    found, error = told(lambda: service.learning_document(call.settings, call.database, model_id))
    document = found or {
        "holdouts": [], "rows": [], "summaries": [], "verdicts": [], "accuracy": [],
        "worst_forgetting": None,
    }  # fmt: skip
    rows, holdouts = document["rows"], document["holdouts"]
    shown_holdouts = holdouts[-_MOST_HOLDOUTS:]
    worst = document["worst_forgetting"]
    return render(
        request, "learning.html", model=model, document=document, tab="learning",
        error=None if isinstance(error, NotAnOutput) else error,
        charts=_charts(document), worst=worst,
        matrix=_matrix(rows, shown_holdouts, worst),
        holdouts=shown_holdouts, fewer=len(rows) > _MOST_ROWS,
        left_out=len(holdouts) - len(shown_holdouts),
        v=labels(call, model_id, [row["checkpoint"] for row in rows]),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Curves:
    """A chart for wide and for narrow windows, and the same numbers: of very many, the newest."""

    metric: str
    has_worst: bool
    both: list[tuple[str, Chart]]
    names: list[str]
    """Of the columns; the empty one is the mean."""
    rows: list[tuple[int, list[float | None]]]


def _charts(document: dict[str, Any]) -> list[Curves]:
    """One for each metric: every holdout's line, and their mean."""
    rows, worst = document["rows"], document["worst_forgetting"] or {}
    found: list[Curves] = []
    for summary in document["summaries"]:
        metric = summary["metric"]
        names = [h["name"] for h in document["holdouts"] if _metric(h) == metric]
        lines = [
            Line(
                name, "worst" if name == worst.get("holdout") else "one",
                [(row["increment"], row["scores"].get(name)) for row in rows],
            )
            for name in names[-_MOST_LINES:]
        ]  # fmt: skip
        means = [(each["increment"], each["means"].get(metric)) for each in document["accuracy"]]
        lines.sort(key=lambda line: line.role == "worst")
        lines.append(Line("", "mean", means))
        wide, narrow = draw_chart(lines), draw_chart(lines, NARROW_PX)
        if wide is not None and narrow is not None:  # a style sheet shows the one that fits
            has_worst = any(line.role == "worst" for line in lines)
            both = [("wide-only", wide), ("narrow-only", narrow)]
            found.append(Curves(metric, has_worst, both, *_numbers(lines)))
    return found


def _numbers(lines: list[Line]) -> tuple[list[str], list[tuple[int, list[float | None]]]]:
    """The lines as columns of a table, the mean first."""
    columns = [(line.name, dict(line.points)) for line in lines[-1:] + lines[:-1]]
    increments = sorted({int(at) for _, values in columns for at in values})[-_MOST_ROWS:]
    return [name for name, _ in columns], [
        (at, [values.get(at) for _, values in columns]) for at in increments
    ]


def _matrix(
    rows: list[dict[str, Any]], holdouts: list[dict[str, Any]], worst: dict[str, Any] | None
) -> list[tuple[dict[str, Any], list[tuple[float | None, str]]]]:
    """The newest rows with their cells: a score, and what a style sheet colours it by."""
    ranges = _ranges(rows, holdouts)

    def cell(row: dict[str, Any], holdout: dict[str, Any]) -> tuple[float | None, str]:
        name = holdout["name"]
        value = row["scores"].get(name)
        level = heat(value, *ranges[_metric(holdout)], lower_is_better=holdout["lower_is_better"])
        kinds = ["none" if value is None else f"h{level}"]
        if holdout["increment"] == row["increment"]:
            kinds.append("own")
        if worst and worst["holdout"] == name and row is rows[-1]:
            kinds.append("worst")
        return value, " ".join(kinds)

    return [(row, [cell(row, holdout) for holdout in holdouts]) for row in rows[-_MOST_ROWS:]]


def _ranges(
    rows: list[dict[str, Any]], holdouts: list[dict[str, Any]]
) -> dict[str, tuple[float, float]]:
    """Of each metric the lowest and the highest score that there ever was."""
    scores: dict[str, list[float]] = {}
    for holdout in holdouts:
        told = scores.setdefault(_metric(holdout), [])
        told += [s for row in rows if (s := row["scores"].get(holdout["name"])) is not None]
    return {
        metric: (min(told, default=0.0), max(told, default=0.0)) for metric, told in scores.items()
    }


def _metric(holdout: dict[str, Any]) -> str:
    return str(holdout["metric"]) + (
        " (lower is better)" if holdout["lower_is_better"] else ""
    )  # as the summaries name it
