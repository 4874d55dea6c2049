"""Runs what one scenario has to show with one seed, in a process of its own."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

from benchmarks.learning import ours, reference, results
from benchmarks.learning.results import Line
from benchmarks.learning.scenarios import SCENARIOS, load

ONWARD = "onward: "
"""What the names of our methods begin with."""


def run_all(scenario_name: str, seed: int, file: Path) -> int:
    """Everything of one scenario with one seed that `file` does not have yet; how many it was."""
    torch.set_num_threads(1)
    scenario = load(scenario_name)
    finished = {line.key for line in results.read(file)}
    references = reference.References(scenario, seed)
    new = 0
    for side, planned in (("", reference.planned(scenario)), (ONWARD, ours.planned(scenario))):
        for method, share in planned:
            if (scenario_name, side + method, share, seed) in finished:
                continue
            if side:
                with tempfile.TemporaryDirectory(prefix="learning-") as folder:
                    place = Path(folder)
                    done = ours.ours(scenario, method, share=share, seed=seed, folder=place)
            else:
                done = references.run(method, share)
            results.append(
                file,
                Line(
                    scenario=scenario_name,
                    method=side + method,
                    share=share,
                    seed=seed,
                    metrics=done.metrics,
                    steps=done.steps,
                    seconds=round(done.seconds, 3),
                ),
            )
            new += 1
    return new


def ordered(lines: list[Line]) -> list[Line]:
    """As planned: by scenario, then method; lines come in the order in which they were ready."""
    places: dict[tuple[str, str, float], int] = {}
    for name in SCENARIOS:
        if any(line.scenario == name for line in lines):
            scenario = load(name)
            planned = reference.planned(scenario)
            planned += [(ONWARD + method, share) for method, share in ours.planned(scenario)]
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
