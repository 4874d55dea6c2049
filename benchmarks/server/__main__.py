"""Runs the load benchmarks and prints a table: what, target, measured."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path

import benchmarks.server as about
from benchmarks.measuring import machine
from benchmarks.server import large_log, lists, many_followers, model, startup

BENCHMARKS = {
    "list": lists.measure_list,
    "status": lists.measure_status,
    "follow": many_followers.measure,
    "log": large_log.measure,
    "model": model.measure,
    "startup": startup.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(about.__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="all by default")
    parser.add_argument("--seconds", type=float, default=60.0, help="of status and follow")
    parser.add_argument("--database", default="", help="an empty PostgreSQL; by default SQLite")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    print(machine())
    rows: list[tuple[str, str, str]] = []
    for name in given.names or BENCHMARKS:
        for row in asyncio.run(BENCHMARKS[name](given.seconds, given.database)):
            print("| " + " | ".join(row) + " |", flush=True)
            rows.append(row)
    if given.json:
        given.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
