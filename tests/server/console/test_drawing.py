"""Geometry of pictures: nothing leaves its picture, nothing crosses what it should not."""

from __future__ import annotations

from typing import Any

import pytest

from onward.server.console.drawing import (
    NARROW_PX,
    Line,
    draw_chart,
    draw_lineage,
    fitting,
    heat,
    text_px,
)


def node(name: str, row: int, lane: int, parent: str | None, between: int = 0) -> dict[str, Any]:
    return {"checkpoint": name, "row": row, "lane": lane, "parent": parent, "between": between}


def test_lines_lead_from_each_checkpoint_to_its_parent() -> None:
    """Straight in a lane, bent in the last row into another; dashed where some are not shown."""
    nodes = [
        node("d", 0, 0, "b", between=2), node("c", 1, 1, "b"), node("b", 2, 0, "a"),
        node("a", 3, 0, "older"),
    ]  # fmt: skip
    found = draw_lineage(nodes, 2, {"d": ["latest"]})
    assert [edge.far for edge in found.edges] == [True, False, False, True]
    straight, bent, _, down = (edge.path for edge in found.edges)
    assert "C" not in straight
    (b,) = [row for row in found.rows if row.node["checkpoint"] == "b"]
    assert bent.endswith(f"{b.x} {b.y}")
    assert down.endswith(f"V{found.height}")  # its parent is older than the drawing
    assert all(0 < row.x < found.name_x and 0 < row.y < found.height for row in found.rows)


def test_very_many_lanes_and_names_stay_in_their_places() -> None:
    """A hundred branches, and a checkpoint with fifty names."""
    nodes = [node(str(n), n, n, None) for n in range(100)]
    found = draw_lineage(nodes, 100, {"0": [f"name-{n}" for n in range(50)]})
    assert all(row.x < found.name_x for row in found.rows)
    tags = found.rows[0].tags
    assert tags[-1].text == "…"
    assert all(tag.x + tag.width <= found.data_x for tag in tags)


@pytest.mark.parametrize("width", [720, NARROW_PX])
@pytest.mark.parametrize(
    "values",
    [
        [0.5], [0.9, 0.9], [0.0, 0.0], [1e-9, 2e-9], [-5.0, 1e12], [1e299, -1e299],
        [0.1 * n for n in range(200)],
    ],
)  # fmt: skip
def test_a_chart_holds_every_value(width: int, values: list[float]) -> None:
    """One value, equal ones, tiny, huge, very many: all within the axes, few labels."""
    chart = draw_chart([Line("x", "one", list(enumerate(values, 1)))], width)
    assert chart is not None
    dots = [dot for line in chart.lines for dot in line.dots]
    assert len(dots) == len(values)
    assert all(chart.left <= dot.x <= chart.right for dot in dots)
    assert all(0 <= dot.y <= chart.bottom for dot in dots)
    assert 2 <= len(chart.y_ticks) <= 8
    assert 1 <= len(chart.x_ticks) <= 14
    labels = [label for _, label in chart.y_ticks]
    assert len(set(labels)) == len(labels)


def test_what_is_not_known_is_a_gap() -> None:
    """None, nan and infinity break the line; with nothing else there is no chart."""
    unknown = [None, float("nan"), float("inf")]
    values = [0.1, 0.2, *unknown, 0.3]
    chart = draw_chart([Line("x", "one", list(enumerate(values)))])
    assert chart is not None
    assert len(chart.lines[0].paths) == 2
    assert draw_chart([Line("x", "one", list(enumerate(unknown)))]) is None
    assert draw_chart([]) is None


def test_heat_is_best_at_six() -> None:
    """Where lower is better, the lowest is; alone it is neither."""
    assert [heat(v, 0, 1, lower_is_better=False) for v in (0.0, 0.5, 1.0)] == [0, 3, 6]
    assert [heat(v, 0, 1, lower_is_better=True) for v in (0.0, 1.0)] == [6, 0]
    assert heat(0.5, 0.5, 0.5, lower_is_better=False) == heat(None, 0, 1, lower_is_better=True) == 3


def test_a_text_is_cut_where_the_room_ends() -> None:
    """Chinese is twice as wide."""
    assert fitting("short", 12, 100) == "short"
    for text in ("a" * 100, "检" * 100):
        cut = fitting(text, 12, 120)
        assert cut.endswith("…")
        assert 80 < text_px(cut, 12) <= 120
    assert len(fitting("检" * 100, 12, 120)) < len(fitting("a" * 100, 12, 120))
