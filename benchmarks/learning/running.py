"""Runs what one scenario has to show with one seed, in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.learning import ours, reference, results
from benchmarks.learning.reference import Done
from benchmarks.learning.results import Line
from benchmarks.learning.scenarios import SCENARIOS, Scenario, load

ONWARD = "onward: "
"""What the names of our methods begin with."""

REFERENCES_IN = "torch"
"""The methods that Onward is compared with are in this framework."""


def run_all(
    scenario_name: str,
    seed: int,
    file: Path,
    frameworks: Sequence[str] = (REFERENCES_IN,),
    methods: Sequence[str] = (),
    shares: Sequence[float] = (),
) -> int:
    """Everything of one scenario with one seed that `file` does not have yet; how many it was.

    Each method in one framework after the other, so that a busy hour is shared by both. `methods`
    and `shares` choose some, as in `wanted`.
    """
    torch.set_num_threads(1)
    scenario = load(scenario_name)
    finished = {line.key for line in results.read(file)}
    references = reference.References(scenario, seed)
    new = 0
    for method, share in wanted(scenario, methods, shares):
        is_ours = method.startswith(ONWARD)
        for framework in frameworks if is_ours else (REFERENCES_IN,):
            if (scenario_name, method, share, seed, framework) in finished:
                continue
            if is_ours:
                done = _ours(scenario, method, share=share, seed=seed, framework=framework)
            else:
                done = references.run(method, share)
            results.append(
                file,
                Line(
                    scenario=scenario_name,
                    method=method,
                    share=share,
                    seed=seed,
                    metrics=done.metrics,
                    steps=done.steps,
                    seconds=round(done.seconds, 3),
                    framework=framework,
                ),
            )
            new += 1
    return new


def _ours(scenario: Scenario, method: str, *, share: float, seed: int, framework: str) -> Done:
    with tempfile.TemporaryDirectory(prefix="learning-") as folder:
        return ours.ours(
            scenario,
            method.removeprefix(ONWARD),
            share=share,
            seed=seed,
            folder=Path(folder),
            framework=framework,
        )


def wanted(
    scenario: Scenario, methods: Sequence[str] = (), shares: Sequence[float] = ()
) -> list[tuple[str, float]]:
    """What is planned for a scenario, methods of ours last, each with its share of steps.

    Of these only `methods`, where any are named: as in the tables, or without what stands before
    the name (`onward:`) and behind it (the size of a memory). The same with `shares`.
    """
    planned = reference.planned(scenario)
    planned += [(ONWARD + method, share) for method, share in ours.planned(scenario)]
    return [
        (method, share)
        for method, share in planned
        if (not methods or {method, method.removeprefix(ONWARD), _bare(method)} & set(methods))
        and (not shares or share in shares)
    ]


def _bare(method: str) -> str:
    return method.removeprefix(ONWARD).partition(" ")[0] if method.startswith(ONWARD) else method


def ordered(lines: list[Line]) -> list[Line]:
    """As planned: by scenario, then method; lines come in the order in which they were ready."""
    places: dict[tuple[str, str, float], int] = {}
    for name in SCENARIOS:
        if any(line.scenario == name for line in lines):
            planned = wanted(load(name))
            places |= {(name, *key): place for place, key in enumerate(planned)}
    scenarios = list(SCENARIOS)
    return sorted(
        lines,
        key=lambda line: (
            scenarios.index(line.scenario),
            places.get((line.scenario, line.method, line.share), len(places)),
            line.seed,
        ),
    )
