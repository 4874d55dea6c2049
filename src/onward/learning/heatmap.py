"""The evaluation matrix as a picture: a self-contained SVG, no scripts, no fonts, no links.

Colours go from white to dark blue, readable without telling red from green and in print; every cell
also bears its number. Darker is better.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from xml.sax.saxutils import escape

from onward.learning.matrix import Matrix, metric_text

_CELL_WIDTH, _CELL_HEIGHT, _GAP = 64, 34, 2
_CHARACTER = 7.2  # the widest that a character of 12 px is in common fonts, on average
_LABEL_SHOWN = 28
_LEGEND_STEPS = 24
_MARGIN = 20
_PALE, _DARK = (247, 251, 255), (8, 48, 107)


def heat_map(matrix: Matrix, title: str = "") -> str:
    """The picture. Rows are increments, columns holdouts; an outlined cell froze its holdout.

    Shades are over the range of each metric; of scores between 0 and 1, over 0 to 1. A matrix
    without scores gives a picture that says so.
    """
    names = list(matrix.holdouts)
    labels = [_short(name) for name in names]
    rows = sorted(matrix.rows)
    left = _MARGIN + 110
    slant = max((len(label) for label in labels), default=0) * _CHARACTER * 0.71
    top = _MARGIN + 34 + slant + 14
    across = len(names) * (_CELL_WIDTH + _GAP)
    width = max(left + across + slant + _MARGIN, left + 330)
    height = top + len(rows) * (_CELL_HEIGHT + _GAP) + 74 + _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{_text(title or 'Evaluation matrix')}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _label(_MARGIN, _MARGIN + 14, _short(title or "Evaluation matrix", 60), "start", bold=True),
    ]
    if not names or not rows:
        parts.append(_label(_MARGIN, top, "no increment was scored on a holdout", "start"))
        return "\n".join([*parts, "</svg>\n"])
    for column, name in enumerate(names):
        x = left + column * (_CELL_WIDTH + _GAP) + _CELL_WIDTH / 2
        label = _label(x, top - 8, labels[column], "start")
        parts.append(
            f'<g transform="rotate(-45 {x:.1f} {top - 8:.1f})">'
            f"<title>{_text(name)}: {_text(metric_text(matrix.holdouts[name]))}</title>{label}</g>"
        )
    ranges = _ranges(matrix)
    for line, increment in enumerate(rows):
        y = top + line * (_CELL_HEIGHT + _GAP)
        parts.append(_label(left - 10, y + _CELL_HEIGHT / 2 + 4, f"increment {increment:,}", "end"))
        for column, name in enumerate(names):
            x = left + column * (_CELL_WIDTH + _GAP)
            parts.append(_cell(matrix, (increment, name), (x, y), ranges))
    parts += _legend(left, top + len(rows) * (_CELL_HEIGHT + _GAP) + 18, ranges)
    return "\n".join([*parts, "</svg>\n"])


def _cell(
    matrix: Matrix,
    place: tuple[int, str],
    at: tuple[float, float],
    ranges: Mapping[str, tuple[float, float]],
) -> str:
    increment, name = place
    score = matrix[place]
    frozen = matrix.holdouts[name]
    shade = quality(score, ranges[metric_text(frozen)])
    colour = _colour(shade) if shade is not None else (255, 255, 255)
    outline = 'stroke="#d0d7de"'
    if frozen.increment == increment:
        outline = 'stroke="#d95f02" stroke-width="2.5"'
    elif score is None:
        outline += ' stroke-dasharray="3 3"'
    x, y = at
    text = _label(
        x + _CELL_WIDTH / 2, y + _CELL_HEIGHT / 2 + 4, "–" if score is None else cell_text(score),
        "middle", colour="#ffffff" if _dark(colour) else "#1f2328",
    )  # fmt: skip
    return (
        f'<rect x="{x + 1:.1f}" y="{y + 1:.1f}" width="{_CELL_WIDTH - 2}" '
        f'height="{_CELL_HEIGHT - 2}" rx="3" fill="rgb{colour}" {outline}/>{text}'
    )


def _legend(x: float, y: float, ranges: Mapping[str, tuple[float, float]]) -> list[str]:
    step = 240 / _LEGEND_STEPS
    parts = [
        f'<rect x="{x + number * step:.1f}" y="{y:.1f}" width="{step + 0.5:.1f}" height="12" '
        f'fill="rgb{_colour(number / (_LEGEND_STEPS - 1))}"/>'
        for number in range(_LEGEND_STEPS)
    ]
    parts.append(
        f'<rect x="{x:.1f}" y="{y:.1f}" width="240" height="12" fill="none" stroke="#d0d7de"/>'
    )
    if len(ranges) == 1:
        (metric, (worst, best)) = next(iter(ranges.items()))
        ends, what = (cell_text(worst), cell_text(best)), _short(metric, 50)
    else:
        ends, what = ("worst", "best"), "of each metric"
    parts += [
        _label(x, y + 28, ends[0], "start"),
        _label(x + 240, y + 28, ends[1], "end"),
        _label(x + 120, y + 28, what, "middle"),
        f'<rect x="{x + 1:.1f}" y="{y + 38:.1f}" width="14" height="12" rx="2" fill="none" '
        'stroke="#d95f02" stroke-width="2.5"/>',
        _label(x + 22, y + 49, "the increment that froze the holdout", "start"),
    ]
    return parts


def _ranges(matrix: Matrix) -> dict[str, tuple[float, float]]:
    """For each metric the score that is shaded as worst, and the one shaded as best."""
    found: dict[str, tuple[float, float]] = {}
    for metric in matrix.metrics:
        part = matrix.of_metric(metric)
        found[metric] = shading(part)
    return found


def shading(matrix: Matrix) -> tuple[float, float]:
    """The worst and the best score of a matrix of one metric, as shades show it."""
    known = [
        score for row in matrix.rows.values() for name, score in row.items()
        if score is not None and name in matrix.holdouts
    ]  # fmt: skip
    low, high = min(known, default=0.0), max(known, default=1.0)
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    lower = any(frozen.lower for frozen in matrix.holdouts.values())
    return (high, low) if lower else (low, high)


def quality(score: float | None, ends: tuple[float, float]) -> float | None:
    """Where a score is between the worst (0) and the best (1); None where it is not known."""
    if score is None:
        return None
    worst, best = ends
    if worst == best:
        return 1.0
    # Halves: the range between two finite numbers may not be finite.
    share = (score / 2 - worst / 2) / (best / 2 - worst / 2)
    return min(max(share, 0.0), 1.0)


def cell_text(score: float) -> str:
    """Four digits that matter, in few characters."""
    if score == 0 or 1e-2 <= abs(score) < 1e5:
        whole = max(0, math.floor(math.log10(abs(score)))) if score else 0
        return f"{score:.{max(0, 3 - whole)}f}"
    return f"{score:.3g}"


def _colour(share: float) -> tuple[int, int, int]:
    red, green, blue = (
        round(pale + (dark - pale) * share) for pale, dark in zip(_PALE, _DARK, strict=True)
    )
    return red, green, blue


def _dark(colour: tuple[int, int, int]) -> bool:
    """Whether white text is read more easily on it than black (WCAG 2 relative luminance)."""
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return luminance < 0.179


def _label(
    x: float, y: float, text: str, anchor: str, *, bold: bool = False, colour: str = "#1f2328"
) -> str:
    weight = ' font-weight="600" font-size="14"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{weight}>'
        f"{_text(text)}</text>"
    )


def _short(text: str, limit: int = _LABEL_SHOWN) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _text(text: str) -> str:
    """What others wrote, as XML text: escaped, without what XML forbids or what moves letters."""
    kept = "".join(
        char if unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Cn", "Zl", "Zp") else "\ufffd"
        for char in text
    )
    return escape(kept, {'"': "&quot;", "'": "&#39;"})
