"""Training curves as SVG: one small chart a metric, increments as bands. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from onward.cli.report_words import ENGLISH, Words
from onward.cli.text import clean
from onward.facts.report import Curve
from onward.learning.rounds import Round

WIDTH, HEIGHT = 360, 196
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 8, 18, 22
_LABEL_ROOM = 16
_LOG_FROM = 100.0

STYLE = """
.chart text{font:11px system-ui,sans-serif;fill:var(--muted)}
.chart .band{fill:var(--band)}
.chart .axis{stroke:var(--line);stroke-width:1;fill:none}
.chart .curve{stroke:var(--accent);stroke-width:1.5;fill:none;stroke-linejoin:round}
.chart .dot{fill:var(--accent)}
"""


def chart(curve: Curve, found: Sequence[Round], words: Words = ENGLISH) -> str:
    """The `<svg>` of one metric; every name in it is escaped. Empty without a finite value."""
    values = [v for _, points in curve.lines for _, v in points if v is not None]
    if not values:
        return ""
    scale = _Scale.over(values)
    last_step = max(max((its.tip.step for its in found), default=0), 1)

    def x(step: float) -> float:
        return _LEFT + (WIDTH - _LEFT - _RIGHT) * min(max(step / last_step, 0.0), 1.0)

    def y(value: float) -> float:
        return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * scale.place(value)

    label = escape(words.curve_label.format(metric=clean(curve.metric)))
    parts = [
        f'<svg class="chart" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{label}">',
        *_bands(found, x),
    ]
    for share in (0.0, 0.5, 1.0):
        at = y(scale.value(share))
        parts.append(f'<path class="axis" d="M{_LEFT} {at:.1f}H{WIDTH - _RIGHT}"/>')
        text = escape(_short(scale.value(share)))
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{text}</text>')
    parts.append(f'<text x="{_LEFT}" y="{HEIGHT - 6}">0</text>')
    parts.append(
        f'<text x="{WIDTH - _RIGHT}" y="{HEIGHT - 6}" text-anchor="end">{last_step:,}</text>'
    )
    for _, points in curve.lines:
        parts += _drawn([(x(step), None if v is None else y(v)) for step, v in points])
    return "".join([*parts, "</svg>"])


def last_value(curve: Curve) -> float | None:
    """The newest value of a metric."""
    return curve.lines[-1][1][-1][1] if curve.lines and curve.lines[-1][1] else None


def is_logarithmic(curve: Curve) -> bool:
    """Whether the chart's scale is one of powers: its caption has to say so."""
    values = [v for _, points in curve.lines for _, v in points if v is not None]
    return bool(values) and _Scale.over(values).log


@dataclass(frozen=True, slots=True)
class _Scale:
    """From values to 0 … 1, by powers of ten where most values span more than two of them."""

    low: float
    high: float
    log: bool

    @classmethod
    def over(cls, values: Sequence[float]) -> _Scale:
        low, high = min(values), max(values)
        tenth = len(values) // 10
        most = sorted(values)[tenth : len(values) - tenth]
        # A few values far from the others, as at a beginning, do not ask for powers.
        if low > 0 and most[-1] / most[0] > _LOG_FROM:
            return cls(math.log10(low), math.log10(high), log=True)
        if low == high:
            room = abs(low) / 2 or 1.0
            low, high = low - room, high + room
        return cls(low, high, log=False)

    def place(self, value: float) -> float:
        at = math.log10(value) if self.log else value
        # Halves first: the whole span of two huge numbers need not be a number.
        return (at / 2 - self.low / 2) / (self.high / 2 - self.low / 2)

    def value(self, share: float) -> float:
        at = self.low * (1 - share) + self.high * share
        return float(10**at) if self.log else at


def _bands(found: Sequence[Round], x: object) -> list[str]:
    assert callable(x)
    parts = []
    free_from = 0.0
    for position, its in enumerate(found):
        left, right = x(its.start_step), x(its.tip.step)
        if position % 2 == 0 and right > left:
            parts.append(
                f'<rect class="band" x="{left:.1f}" y="{_TOP}" width="{right - left:.1f}" '
                f'height="{HEIGHT - _TOP - _BOTTOM}"/>'
            )
        middle = (left + right) / 2
        if middle >= free_from:
            free_from = middle + _LABEL_ROOM + 6 * len(str(its.increment))
            parts.append(
                f'<text x="{middle:.1f}" y="{_TOP - 6}" text-anchor="middle">{its.increment}</text>'
            )
    return parts


def _drawn(points: Sequence[tuple[float, float | None]]) -> list[str]:
    """Lines through neighbours, broken where a value was not finite; a lone point is a dot."""
    parts: list[str] = []
    run: list[str] = []
    for at, height in [*points, (0.0, None)]:
        if height is not None:
            run.append(f"{at:.1f} {height:.1f}")
            continue
        if len(run) == 1:
            across, up = run[0].split()
            parts.append(f'<circle class="dot" cx="{across}" cy="{up}" r="2"/>')
        elif run:
            parts.append(f'<path class="curve" d="M{"L".join(run)}"/>')
        run = []
    return parts


def _short(value: float) -> str:
    """Few enough characters to stand beside an axis."""
    return f"{value:.3g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
