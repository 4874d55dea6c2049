"""Bars by library, drawn as SVG text: the median, and a line from the lowest to the highest."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from xml.sax.saxutils import escape

from benchmarks.checkpointing.results import Results
from benchmarks.checkpointing.subjects import OURS

PANELS = (
    ("Stall, (a) dense, s", "a", "stall_s"),
    ("Seconds to durable, (a) dense", "a", "durable_s"),
    ("Cold restore, (a) dense, s", "a", "cold_s"),
    ("Stall, (c) sparse rows, s", "c", "stall_s"),
    ("Stored / state, (b) frozen", "b", "bytes"),
    ("Stored / state, (c) sparse rows", "c", "bytes"),
)
_WIDTH, _ROW, _HEAD, _NAMES, _GAP = 342, 20, 34, 140, 22
_OURS, _PEERS, _INK, _SOFT = "#c2410c", "#94a3b8", "#0f172a", "#475569"
_ACROSS = 2


def drawing(results: Results) -> str:
    """The whole drawing; a panel without values is left out."""
    panels = [panel for panel in PANELS if _rows(results, *panel[1:])]
    body: list[str] = []
    top = _GAP
    for start in range(0, len(panels), _ACROSS):
        row = panels[start : start + _ACROSS]
        for column, panel in enumerate(row):
            body += _panel(results, panel, _GAP + column * (_WIDTH + _GAP), top)
        top += _HEAD + _GAP + _ROW * max(len(_rows(results, *panel[1:])) for panel in row)
    width = _GAP + _ACROSS * (_WIDTH + _GAP)
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" '
            f'width="{width}" height="{top}" font-family="system-ui, sans-serif" font-size="12">',
            f'<rect width="{width}" height="{top}" fill="white"/>',
            *body,
            "</svg>",
            "",
        )
    )


def _rows(results: Results, scenario: str, figure: str) -> list[tuple[float, str, list[float]]]:
    """Best first."""
    found = ((name, results.values(scenario, name, figure)) for name in results.subjects(scenario))
    return sorted((statistics.median(values), name, values) for name, values in found if values)


def _panel(results: Results, panel: tuple[str, str, str], left: int, top: int) -> Iterator[str]:
    title, scenario, figure = panel
    rows = _rows(results, scenario, figure)
    yield _text(left, top + 12, title, _INK, 'font-weight="600"')
    room = _WIDTH - _NAMES - 44
    per_unit = room / max((max(values) for _, _, values in rows), default=1.0)
    for number, (median, name, values) in enumerate(rows):
        y = top + _HEAD + number * _ROW
        color = _OURS if name == OURS else _PEERS
        start = left + _NAMES
        end = start + max(0.0, median) * per_unit
        low, high = (start + max(0.0, edge(values)) * per_unit for edge in (min, max))
        yield _text(start - 8, y + 4, name, _INK if name == OURS else _SOFT, 'text-anchor="end"')
        yield (
            f'<rect x="{start}" y="{y - 6}" width="{end - start:.1f}" height="12" rx="2" '
            f'fill="{color}"/>'
        )
        if len(values) > 1:
            yield f'<path d="M{low:.1f} {y}H{high:.1f}" stroke="{_INK}" stroke-width="1"/>'
        yield _text(round(max(end, high)) + 6, y + 4, f"{median:.2f}", _SOFT)


def _text(x: float, y: float, words: str, color: str, more: str = "") -> str:
    return f'<text x="{x}" y="{y}" fill="{color}" {more}>{escape(words)}</text>'
