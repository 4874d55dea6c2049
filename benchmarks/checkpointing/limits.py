"""What this memory and this disk can do at best, with the bytes of a scenario.

    python -m benchmarks.checkpointing.limits --folder DIR [--scenario a] [--scale 1.0]

Disks drift by factors within hours, so this runs in every repetition. Prints one line of JSON, all
in seconds for the same bytes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from benchmarks.checkpointing.files import drop_from_cache
from benchmarks.checkpointing.scenarios import SCENARIOS

_BLOCK = 8 << 20
_REPEATS = 5
_WRITE_NOW = 2  # SYNC_FILE_RANGE_WRITE


def measure(folder: Path, scenario: str, scale: float) -> dict[str, float]:
    training = SCENARIOS[scenario].build(scale, 1)
    training.step()
    live = [array.reshape(-1) for _, array in training.arrays()]
    size = sum(array.nbytes for array in live)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "limits"
    source = _pages(size)
    found = {"bytes": float(size), "copy_s": _copy_s(live)}
    found["write_s"] = _written_s(file, lambda: _buffered(file, source, early=False))
    found["write_early_s"] = _written_s(file, lambda: _buffered(file, source, early=True))
    found["write_direct_s"] = _written_s(file, lambda: _direct(file, source))
    found["read_s"] = _read_s(file, 0)
    found["read_direct_s"] = _read_s(file, os.O_DIRECT)
    file.unlink()
    return found


def _copy_s(live: list[np.ndarray]) -> float:
    """Into memory that has been used before, by the number of threads that is quickest here."""
    staged = [array.copy() for array in live]
    pairs = [
        (to[start : start + _BLOCK // 4], array[start : start + _BLOCK // 4])
        for to, array in zip(staged, live, strict=True)
        for start in range(0, array.size, _BLOCK // 4)
    ]
    best = float("inf")
    for threads in range(1, (os.cpu_count() or 1) + 1):
        with ThreadPoolExecutor(threads) as pool:
            seconds = []
            for _ in range(_REPEATS):
                started = time.perf_counter()
                list(pool.map(lambda pair: np.copyto(*pair), pairs))
                seconds.append(time.perf_counter() - started)
        best = min(best, statistics.median(seconds))
    return best


def _pages(size: int) -> np.ndarray:
    """Bytes that begin at a page and fill whole blocks, as direct writes want them."""
    whole = -(-size // _BLOCK) * _BLOCK
    pages = np.frombuffer(mmap.mmap(-1, whole), np.uint8)
    pages[:] = np.resize(np.random.default_rng(0).integers(0, 256, _BLOCK, np.uint8), whole)
    return pages


def _written_s(file: Path, write: Callable[[], None]) -> float:
    seconds = []
    for _ in range(2):
        file.unlink(missing_ok=True)
        started = time.perf_counter()
        write()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def _buffered(file: Path, source: np.ndarray, *, early: bool) -> None:
    sync_file_range = ctypes.CDLL(None).sync_file_range
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    for start in range(0, source.size, _BLOCK):
        os.write(descriptor, source[start : start + _BLOCK].data)
        if early:
            sync_file_range(descriptor, ctypes.c_int64(start), ctypes.c_int64(_BLOCK), _WRITE_NOW)
    os.fsync(descriptor)
    os.close(descriptor)


def _direct(file: Path, source: np.ndarray) -> None:
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:  # some file systems have no direct writes
        return _buffered(file, source, early=True)
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda start: os.pwrite(descriptor, source[start : start + _BLOCK].data, start),
                range(0, source.size, _BLOCK),
            )
        )
    os.fsync(descriptor)
    os.close(descriptor)


def _read_s(file: Path, flags: int) -> float:
    """Four threads read blocks from a cold cache."""
    drop_from_cache(file.parent)
    try:
        descriptor = os.open(file, os.O_RDONLY | flags)
    except OSError:
        descriptor = os.open(file, os.O_RDONLY)
    into = _pages(4 * _BLOCK)

    def read(number: int) -> None:
        slot = number % 4 * _BLOCK
        os.preadv(descriptor, [into[slot : slot + _BLOCK].data], number * _BLOCK)

    blocks = file.stat().st_size // _BLOCK
    started = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(blocks)))
    spent_s = time.perf_counter() - started
    os.close(descriptor)
    return spent_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--scenario", default="a")
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    print(json.dumps(measure(arguments.folder, arguments.scenario, arguments.scale)))


if __name__ == "__main__":
    main()
