"""Runs the speed benchmarks and prints a table: what, target, measured, spread.

    python -m benchmarks [step] [loader] [import] [log] [open] [transfer] [snapshot]
                         [learning] [--json FILE]

Timings depend on the machine: each is a median over repetitions, ratios are interleaved in one run.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks import history, imports, learning_cost, loader, snapshot, step, transfer
from benchmarks.measuring import Result, machine

BENCHMARKS = {
    "step": step.measure,
    "loader": loader.measure,
    "import": imports.measure,
    "log": history.measure_log,
    "open": history.measure_open,
    "transfer": transfer.measure,
    "snapshot": snapshot.measure,
    "learning": learning_cost.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all by default")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    print(machine())
    results: list[Result] = []
    for name in arguments.names or BENCHMARKS:
        for result in BENCHMARKS[name]():
            print(result.line(), flush=True)
            results.append(result)
    if arguments.json:
        document = {"machine": machine(), "results": [r.__dict__ for r in results]}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
