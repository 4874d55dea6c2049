"""Writes as Markdown how far MindSpore's scores are from PyTorch's, seed by seed."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.learning.results import Line, by_method
from benchmarks.learning.sides import TITLES
from benchmarks.learning.statistics import Mean, mean
from benchmarks.learning.targets import Target

BEGIN = "<!-- begin: python -m benchmarks.learning --framework torch mindspore -->"
END = "<!-- end: python -m benchmarks.learning --framework torch mindspore -->"
WITHIN = {"fashion-growth": 0.5, "fashion-classes": 0.5, "split-mnist": 1.0}
"""By scenario: how many points of accuracy MindSpore's mean may be from PyTorch's, at most."""


def page(lines: list[Line], *, heading: str) -> str:
    """The part of a page between `BEGIN` and `END`; `heading` says machine and command."""
    return "\n".join([BEGIN, "", heading, "", *rows(lines), "", END])


def rows(lines: list[Line]) -> Iterator[str]:
    """Each method that was run in both, over the seeds for which it was."""
    yield (
        "| scenario | method, share of steps | PyTorch | MindSpore | difference, 95 % "
        "| each seed's | target | |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for scenario, method, share, pairs in paired(lines):
        within = WITHIN.get(scenario)
        apart = [theirs.metrics["score"] - ours.metrics["score"] for ours, theirs in pairs]
        scores = [mean([line.metrics["score"] for line in side]) for side in zip(*pairs)]  # noqa: B905
        difference = mean(apart)
        each = ", ".join(f"{value:+.2f}" for value in apart)
        yield (
            f"| {scenario} | {method}, {share:.0%} | {scores[0].text(2)} | {scores[1].text(2)} "
            f"| {_signed(difference)} | {each} "
            + (f"| ± {within:g} | {_verdict(difference, within)} |" if within else "| – | |")
        )
    yield ""
    yield "| CPU ms a step | " + " | ".join(TITLES.values()) + " |"
    yield "|---|---|---|"
    for scenario, method, share, pairs in paired(lines):
        costs = [
            mean([1000 * line.seconds / line.steps for line in side]).text(1)
            for side in zip(*pairs)  # noqa: B905
        ]
        yield f"| {scenario}, {method}, {share:.0%} | {costs[0]} | {costs[1]} |"


def paired(lines: list[Line]) -> Iterator[tuple[str, str, float, list[tuple[Line, Line]]]]:
    """Scenario, method, share, and the two lines of each seed that both have: PyTorch's first."""
    for scenario in dict.fromkeys(line.scenario for line in lines):
        sides = [
            by_method(x for x in lines if (x.scenario, x.framework) == (scenario, framework))
            for framework in TITLES
        ]
        for key, there in sides[1].items():
            here = sides[0].get(key, {})
            seeds = sorted(here.keys() & there.keys())
            if seeds:
                yield scenario, *key, [(here[seed], there[seed]) for seed in seeds]


def _signed(found: Mean) -> str:
    return f"{'+' if found.value >= 0 else ''}{found.text(2)}"


def _verdict(difference: Mean, within: float) -> str:
    return Target("", "", 1.0, "score", low=-within, high=within).verdict(difference)
