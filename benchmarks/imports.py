"""`import onward` in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measuring import Result

REPETITIONS = 11


def measure() -> Iterator[Result]:
    """Seconds of `python -c "import onward"` more than `python -c pass`."""
    values = []
    for _ in range(REPETITIONS):
        empty, full = process_s("pass"), process_s("import onward")
        values.append(full - empty)
    yield Result("import onward", "s", 0.2, tuple(values))


def process_s(code: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - started
