"""Geometry of the pictures on pages: a lineage of checkpoints, and curves. Pure; draws no markup.

The strict policy of the pages allows no inline style, so that every place is an attribute of SVG,
and every colour a class.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

_ROW, _LANE, _LEFT, _MOST_LANES = 46, 18, 16, 8
_NAME_PX, _DATA_PX, _VERDICT_PX = 340, 260, 200
_GAP_PX = 14

_WIDE_PX, _CHART_PX, NARROW_PX = 720, 230, 330
_MARGIN = {"left": 52, "right": 18, "top": 12, "bottom": 30}
_PX_A_TICK = 52


@dataclass(frozen=True, slots=True)
class Edge:
    """From a checkpoint down to the one that it continues; `far`: others lie between."""

    path: str
    far: bool


@dataclass(frozen=True, slots=True)
class Tag:
    """A name of a checkpoint in a small box."""

    text: str
    x: float
    width: float


@dataclass(frozen=True, slots=True)
class Row:
    """One checkpoint: where its dot is, and what its facts are."""

    node: Mapping[str, Any]
    x: int
    y: int
    tags: Sequence[Tag]


@dataclass(frozen=True, slots=True)
class Lineage:
    """A drawing of checkpoints, the newest above."""

    width: int
    height: int
    row_height: int
    name_x: int
    data_x: int
    verdict_x: int
    name_px: int
    data_px: int
    verdict_px: int
    edges: Sequence[Edge]
    rows: Sequence[Row]


def draw_lineage(
    nodes: Sequence[Mapping[str, Any]], lanes: int, tags: Mapping[str, Sequence[str]]
) -> Lineage:
    """`nodes` as `model_document` has them; `tags`: what is written beside each checkpoint."""
    name_x = _LEFT + max(1, min(lanes, _MOST_LANES)) * _LANE + 2
    places = {node["checkpoint"]: _place(node) for node in nodes}
    height = len(nodes) * _ROW
    edges = []
    for node in nodes:
        if node["parent"] is None:
            continue
        x, y = places[node["checkpoint"]]
        below = places.get(node["parent"])
        if below is None:  # it is older than what is drawn
            edges.append(Edge(f"M{x} {y}V{height}", True))
        else:
            edges.append(Edge(_way(x, y, *below), node["between"] > 0))
    rows = [
        Row(node, x, y, _tags(tags.get(node["checkpoint"], ()), name_x + 46, name_x + _NAME_PX))
        for node in nodes
        for x, y in [places[node["checkpoint"]]]
    ]
    data_x = name_x + _NAME_PX
    return Lineage(
        data_x + _DATA_PX + _VERDICT_PX, height, _ROW, name_x, data_x, data_x + _DATA_PX,
        _NAME_PX - _GAP_PX, _DATA_PX - _GAP_PX, _VERDICT_PX - _GAP_PX, edges, rows,
    )  # fmt: skip


def _place(node: Mapping[str, Any]) -> tuple[int, int]:
    return _LEFT + min(node["lane"], _MOST_LANES - 1) * _LANE, node["row"] * _ROW + _ROW // 2


def _way(x: int, y: int, to_x: int, to_y: int) -> str:
    if x == to_x:
        return f"M{x} {y}V{to_y}"
    turn, middle = to_y - _ROW, to_y - _ROW // 2  # along its own lane, where no dot is in the way
    return f"M{x} {y}V{turn}C{x} {middle} {to_x} {middle} {to_x} {to_y}"


def _tags(texts: Sequence[str], x: float, end: float) -> list[Tag]:
    found = []
    for text in texts:
        shown = text if len(text) <= 22 else f"{text[:21]}…"
        width = 1.25 * text_px(shown, 11.5) + 12  # it is bold
        if x + width > end:
            found.append(Tag("…", x, 0))
            break
        found.append(Tag(shown, x, width))
        x += width + 5
    return found


def fitting(text: str, size: float, width_px: float) -> str:
    """As much of a text as there is room for; SVG wraps nothing."""
    if text_px(text, size) <= width_px:
        return text
    while text and text_px(text + "…", size) > width_px:
        text = text[:-1]
    return text.rstrip(" ·") + "…"


def text_px(text: str, size: float) -> float:
    """About how wide a text is: a server knows no font."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return round(size * (wide * 1.02 + (len(text) - wide) * 0.55), 1)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart. `role`: mean, worst (the holdout that lost most), or one."""

    name: str
    role: str
    points: Sequence[tuple[float, float | None]]


@dataclass(frozen=True, slots=True)
class Dot:
    """A value where it is drawn."""

    x: float
    y: float
    at: float
    value: float


@dataclass(frozen=True, slots=True)
class DrawnLine:
    """A line as paths, one for each stretch without a gap, and its values."""

    name: str
    role: str
    paths: Sequence[str]
    dots: Sequence[Dot]


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines between two axes."""

    width: int
    height: int
    left: float
    right: float
    bottom: float
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    lines: Sequence[DrawnLine] = field(default_factory=list)


def draw_chart(lines: Sequence[Line], width: int = _WIDE_PX) -> Chart | None:
    """The lines over whole numbers such as increments; None where there is no finite value."""
    known = [(x, y) for line in lines for x, y in line.points if y is not None and _finite(y)]
    if not known:
        return None
    height = _CHART_PX
    left, right = _MARGIN["left"], width - _MARGIN["right"]
    top, bottom = _MARGIN["top"], height - _MARGIN["bottom"]
    steps = _ticks(min(y for _, y in known), max(y for _, y in known))
    low, high = steps[0], steps[-1]
    first, last = min(x for x, _ in known), max(x for x, _ in known)

    def at_x(x: float) -> float:
        return round((left + right) / 2 if last == first else
                     left + (x - first) / (last - first) * (right - left), 1)  # fmt: skip

    def at_y(y: float) -> float:
        return round(bottom - (y - low) / (high - low) * (bottom - top), 1)

    every = max(1, math.ceil((last - first + 1) / ((right - left) // _PX_A_TICK)))
    return Chart(
        width, height, left, right, bottom,
        [(at_x(x), str(x)) for x in range(int(first), int(last) + 1, every)],
        [(at_y(y), f"{y:.6g}") for y in steps],
        [_drawn(line, at_x, at_y) for line in lines],
    )  # fmt: skip


def _drawn(line: Line, at_x: Any, at_y: Any) -> DrawnLine:
    paths: list[str] = []
    dots: list[Dot] = []
    stretch = ""
    for x, y in sorted(line.points, key=lambda point: point[0]):
        if y is None or not _finite(y):
            paths += [stretch] if stretch else []
            stretch = ""
            continue
        dots.append(Dot(at_x(x), at_y(y), x, y))
        stretch += f"{'L' if stretch else 'M'}{dots[-1].x} {dots[-1].y}"
    return DrawnLine(line.name, line.role, [*paths, *([stretch] if stretch else [])], dots)


def _finite(value: float) -> bool:
    return abs(value) <= 1e300  # not for nan either


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers around what is shown."""
    span = high - low or abs(high) * 0.1 or 1.0
    step = 10 ** math.floor(math.log10(span / 4))
    step *= next(m for m in (1, 2, 2.5, 5, 10, 20) if span / (step * m) <= 5)
    begin, end = math.floor(low / step), math.ceil(high / step)
    end = max(end, begin + 1)
    return [round(n * step, 12) if step < 1e6 else n * step for n in range(begin, end + 1)]


def heat(value: float | None, low: float, high: float, *, lower_is_better: bool) -> int:
    """0 (worst of what is shown) to 6 (best), for a class of the heat map."""
    if value is None or not _finite(value) or high <= low:
        return 3
    share = (value - low) / (high - low)
    return round(6 * min(1.0, max(0.0, 1 - share if lower_is_better else share)))
