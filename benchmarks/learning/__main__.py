"""Measures what Onward's increments keep and cost, beside simpler methods and the full retrain.

    python -m benchmarks.learning [--scenario NAME …] [--method NAME …] [--share 0.1 …] [--seeds 5]
        [--jobs 2] [--framework torch mindspore] [--json FILE] [--into docs/benchmarks.md]

Each result is a line of the JSON file as soon as it is there; stopped and started again, a run goes
on where it was. Data are fetched when they are needed. One thread a process, so that seeds run side
by side and results do not depend on the machine's number of cores.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shlex
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from benchmarks.learning import beside, results, table
from benchmarks.learning.results import Line
from benchmarks.learning.running import REFERENCES_IN, ordered, run_all, wanted
from benchmarks.learning.scenarios import SCENARIOS, load
from benchmarks.learning.sides import FRAMEWORKS
from benchmarks.measuring import machine

RESULTS = Path(".cache/learning.jsonl")


def main() -> None:
    arguments = _arguments()
    results.mend(arguments.json)
    began = time.monotonic()
    # Before the processes load torch. They are not forked: this one has torch and its threads.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(arguments.jobs, mp_context=context) as pool:
        runs = {
            pool.submit(
                run_all,
                scenario,
                seed,
                arguments.json,
                arguments.framework,
                arguments.method,
                arguments.share,
            ): f"{scenario}, seed {seed}"
            for scenario in arguments.scenario
            for seed in range(arguments.seeds)
        }
        for done in as_completed(runs):
            spent = time.monotonic() - began
            print(f"{spent:7.0f} s  {runs[done]}: {done.result()} new results", flush=True)
    lines = ordered(_asked_for(results.read(arguments.json), arguments))
    command = shlex.join(["python", "-m", "benchmarks.learning", *_without_places(sys.argv[1:])])
    heading = f"```console\n$ {command}\n```\n\n{machine()}."
    if arguments.framework == [REFERENCES_IN]:
        titles = {name: load(name).title for name in arguments.scenario}
        part = table.page(lines, titles=titles, heading=heading)
    else:
        part = beside.page(lines, heading=heading)
    if arguments.into:
        table.write(arguments.into, part)
    else:
        print(part)


def _asked_for(lines: list[Line], arguments: argparse.Namespace) -> list[Line]:
    keys = {
        (scenario, *key)
        for scenario in arguments.scenario
        for key in wanted(load(scenario), arguments.method, arguments.share)
    }
    return [
        line
        for line in lines
        if (line.scenario, line.method, line.share) in keys
        and line.framework in arguments.framework
        and line.seed < arguments.seeds
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.learning")
    parser.add_argument("--scenario", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--method", nargs="+", default=[], help="such as retrain, uniform, der++")
    parser.add_argument("--share", nargs="+", type=float, default=[], help="of a retrain's steps")
    parser.add_argument("--framework", nargs="+", choices=FRAMEWORKS, default=[REFERENCES_IN])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, default=RESULTS, help="lines of results")
    parser.add_argument("--into", type=Path, help="the page; otherwise the tables are printed")
    arguments = parser.parse_args()
    if arguments.seeds < 1 or arguments.jobs < 1:
        parser.error("--seeds and --jobs must be 1 or more")
    return arguments


def _without_places(words: list[str]) -> list[str]:
    """What was asked for, without where this machine keeps things."""
    places = {"--json", "--into"}
    pairs = zip(["", *words], words, strict=False)
    return [word for before, word in pairs if not places & {before, word}]


if __name__ == "__main__":
    main()
