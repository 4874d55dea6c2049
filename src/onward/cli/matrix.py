"""The evaluation matrix for people and programs: a table with shades, JSON, a picture."""

from __future__ import annotations

from onward.cli.target import Target
from onward.cli.text import clean, number, on_terminal, painted, table, width
from onward.errors import UsageError
from onward.facts.matrix import summaries
from onward.learning.heatmap import cell_text, heat_map, quality, shading
from onward.learning.matrix import Matrix, matrix_of, metric_text
from onward.repository import History

_SHADES = " ░▒▓█"
_NAME_SHOWN = 24


def matrix_lines(
    history: History, where: str, *, shades: bool, chance: float | None = None
) -> list[str]:
    """The table: a row for each increment, a column for each holdout, then the summaries."""
    matrix = matrix_of(history)
    if not matrix.holdouts:
        return [f"{clean(where)}: no increment was scored on a holdout yet"]
    versions = history.versions()
    ranges = {metric: shading(matrix.of_metric(metric)) for metric in matrix.metrics}
    columns = [_column(matrix, name, ranges, shades=shades) for name in matrix.holdouts]
    heads = ["increment", *(str(i) for i in matrix.rows)]
    labels = ["checkpoint", *(f"v{versions[matrix.checkpoints[i]]}" for i in matrix.rows)]
    lines: list[str] = []
    while columns:
        fitting = _fitting(columns, len("increment  checkpoint"))
        block = [heads, labels, *columns[:fitting]]
        lines += table(zip(*block, strict=True), right=(0, *range(2, len(block))))
        columns = columns[fitting:]
        lines += [""]
    lines += _summary_lines(matrix, chance)
    verdicts = [f"increment {i}: {clean(text)}" for i, text in matrix.verdicts.items()]
    return [*lines, *(["", "verdicts of the gate", *verdicts] if verdicts else [])]


def draw(history: History, file: str, title: str) -> None:
    """Writes the heat map to a file, whole or not at all; one that is there is replaced."""
    if not file.lower().endswith(".svg"):
        raise UsageError(f"{file!r} is no name for a picture", do="end it with .svg")
    data = heat_map(matrix_of(history), title).encode()
    Target(file, force=True).write([data], len(data), hidden=True)


def _column(
    matrix: Matrix, name: str, ranges: dict[str, tuple[float, float]], *, shades: bool
) -> list[str]:
    frozen = matrix.holdouts[name]
    ends = ranges[metric_text(frozen)]
    shown = name if len(name) <= _NAME_SHOWN else name[: _NAME_SHOWN - 1] + "…"
    cells = [clean(shown)]
    for increment in matrix.rows:
        score = matrix[increment, name]
        text = "-" if score is None else cell_text(score)
        if shades:
            share = quality(score, ends)
            shade = " " if share is None else _SHADES[min(int(share * 5), 4)]
            colour = "green" if frozen.increment == increment else "blue"
            text += " " + painted(shade * 2, colour)
        cells.append(text)
    return cells


def _fitting(columns: list[list[str]], taken: int) -> int:
    """How many of the columns fit beside each other; at least one."""
    free = width() - taken
    for fitting, column in enumerate(columns):
        free -= 2 + max(len(cell) for cell in column)
        if free < 0 and on_terminal():
            return max(fitting, 1)
    return len(columns)


def _summary_lines(matrix: Matrix, chance: float | None) -> list[str]:
    rows = [["metric", "ACC", "BWT", "FWT", "forgetting"]]
    for metric in matrix.metrics:
        values = summaries(matrix.of_metric(metric), chance).values()
        rows.append([clean(metric), *("-" if v is None else number(v) for v in values)])
    last = matrix.last
    missing = sum(last is not None and matrix[last, name] is None for name in matrix.holdouts)
    note = f"{missing} of {len(matrix.holdouts)} holdouts have no score after increment {last}"
    return [*table(rows, right=(1, 2, 3, 4)), *([note] if missing else [])]
