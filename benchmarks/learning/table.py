"""Writes measured lines as Markdown: the targets, then every method of every scenario."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.learning.figures import FIGURES, RATED_BY_ERROR, values
from benchmarks.learning.reference import RETRAIN
from benchmarks.learning.results import Line, by_method
from benchmarks.learning.statistics import mean
from benchmarks.learning.targets import judged

BEGIN = "<!-- begin: python -m benchmarks.learning -->"
END = "<!-- end: python -m benchmarks.learning -->"
HEADS = {
    "score": "score",
    "of retrain": "% of retrain",
    "old": "old holdout",
    "excess forgetting": "excess forgetting",
    "seconds": "CPU s",
}


def page(lines: list[Line], *, titles: dict[str, str], heading: str) -> str:
    """The part of a page between `BEGIN` and `END`; `heading` says machine and command."""
    scenarios = list(dict.fromkeys(line.scenario for line in lines))
    parts = [BEGIN, "", heading, "", *targets(lines), ""]
    for name in scenarios:
        of_it = [line for line in lines if line.scenario == name]
        parts += [f"### {titles.get(name, name)}", "", *methods(of_it), ""]
    return "\n".join([*parts, END])


def replaced(text: str, part: str) -> str:
    """`text` with `part` instead of what begins and ends with the same lines, or at its end."""
    begin, end = part.partition("\n")[0], part.rpartition("\n")[2]
    if begin not in text:
        return f"{text.rstrip()}\n\n{part}\n"
    before, _, rest = text.partition(begin)
    return before + part + rest.partition(end)[2]


def write(file: Path, part: str) -> None:
    """Puts `part` into the page `file`."""
    file.write_text(replaced(file.read_text() if file.exists() else "", part))


def targets(lines: list[Line]) -> Iterator[str]:
    """Rows: what, target, the mean with its 95 % interval, seeds, verdict."""
    yield "| scenario | method, share of steps | figure | target | mean, 95 % | seeds | |"
    yield "|---|---|---|---|---|---|---|"
    for target, found, seeds in judged(lines):
        digits = _digits(target.scenario, target.figure)
        measured = found.text(digits) if found else "–"
        verdict = target.verdict(found) if found else "not run"
        yield (
            f"| {target.scenario} | {target.method}, {target.share:.0%} | {target.figure} "
            f"| {target.text} | {measured} | {seeds} | {verdict} |"
        )


def methods(lines: list[Line]) -> Iterator[str]:
    """Rows: each method at each share of steps with all figures, for one scenario."""
    found = by_method(lines)
    paired = (RETRAIN, 1.0) in found
    figures = [name for name in HEADS if paired or name in ("score", "seconds")]
    yield "| method | share | steps | " + " | ".join(HEADS[name] for name in figures) + " |"
    yield "|---" * (3 + len(figures)) + "|"
    for (method, share), by_seed in found.items():
        cells = []
        for name in figures:
            got = values(lines, method, share=share, figure=name)
            cells.append(mean(got).text(_digits(lines[0].scenario, name)) if got else "–")
        steps = next(iter(by_seed.values())).steps
        yield f"| {method} | {share:.0%} | {steps:,} | " + " | ".join(cells) + " |"


def _digits(scenario: str, figure: str) -> int:
    if figure == "seconds":
        return 1
    return 4 if scenario in RATED_BY_ERROR and figure in ("score", "old") else 2


assert set(HEADS) == set(FIGURES)
