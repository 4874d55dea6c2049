"""An output with 10,000 checkpoints: opening it, choosing the newest, listing all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.measuring import Result
from onward.repository import Facts, open_or_create, open_repository
from onward.stores import FaultPlan, Faulty, LocalStore, MemoryStore, Store

CHECKPOINTS, REPETITIONS = 10_000, 7


class Undurable(LocalStore):
    """Does not wait for the disk: only to make the benchmark's output quickly."""

    def create(self, key: str, data: bytes) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def put(self, key: str, chunks: object, size_bytes: int) -> None:
        self.create(key, b"".join(chunks))  # type: ignore[call-overload]


def fill(store: Store, count: int) -> None:
    """`count` real commits through the writer, as training makes them, without tensors."""
    writer = open_or_create(store).claim("benchmark")
    parent = None
    for step in range(count):
        facts = Facts(
            step=step, epoch=step // 100, increment=1, parent=parent, finished=False,
            reason="every 1 steps", verb="resume", framework="torch", framework_version="0",
            metrics={"loss": 1 / (step + 1), "accuracy": 0.5},
        )  # fmt: skip
        parent = writer.commit({"step": step}, facts).checkpoint


def measure_log() -> Iterator[Result]:
    """Seconds of the whole command, start of Python included; every checkpoint is listed."""
    with tempfile.TemporaryDirectory() as folder:
        fill(Undurable(Path(folder)), CHECKPOINTS)
        command = [sys.executable, "-m", "onward.cli", "log", folder, "--all"]
        values = []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            shown = subprocess.run(command, check=True, capture_output=True, text=True)
            values.append(time.perf_counter() - started)
            assert shown.stdout.count("step ") >= CHECKPOINTS
        yield Result(f"onward log --all, {CHECKPOINTS:,} checkpoints", "s", 2, tuple(values))
        values = []
        for _ in range(REPETITIONS):
            started = time.perf_counter()
            assert open_repository(LocalStore(Path(folder))).history.latest() is not None
            values.append(time.perf_counter() - started)
        yield Result(f"open and choose the newest of {CHECKPOINTS:,}, local", "s", 1, tuple(values))


def measure_open() -> Iterator[Result]:
    """Requests that an object store would get: every call of the store's interface is one."""
    store = MemoryStore()
    fill(store, CHECKPOINTS)
    counts = []
    for _ in range(3):
        plan = FaultPlan()
        repository = open_repository(Faulty(store, plan))
        latest = repository.history.latest()
        assert latest is not None
        repository.manifest(latest)
        counts.append(float(len(plan.calls)))
    yield Result(f"requests to open and choose of {CHECKPOINTS:,}", "requests", 50, tuple(counts))
