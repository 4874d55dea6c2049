"""An output with 10,000 checkpoints: opening it, choosing the newest, listing all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from benchmarks.measuring import Result
from onward.errors import AlreadyExists
from onward.repository import Facts, Writer, open_or_create, open_repository
from onward.repository.log import SUMMARY_EVERY
from onward.stores import Chunk, FaultPlan, Faulty, LocalStore, MemoryStore, Store
from onward.training.opening import decide

CHECKPOINTS, REPETITIONS = 10_000, 7


class Undurable(LocalStore):
    """Does not wait for the disk: only to make the benchmark's output quickly."""

    def create(self, key: str, data: bytes) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError as error:
            raise AlreadyExists(key) from error

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"".join(chunks))


def fill(store: Store, count: int, writer: Writer | None = None) -> None:
    """`count` real commits through the writer, as training makes them, without tensors."""
    writer = writer or open_or_create(store).claim("benchmark")
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
    """Requests that an object store would get, at every distance from the newest summary.

    Each call of the store's interface is one request; a listing is one per 1,000 objects.
    """
    store = MemoryStore()
    writer = open_or_create(store).claim("benchmark")
    fill(store, CHECKPOINTS, writer)
    counts = []
    for _ in range(SUMMARY_EVERY):
        fill(store, 1, writer)
        plan = FaultPlan()
        chosen = decide(open_repository(Faulty(store, plan)))
        assert chosen.commit is not None
        listings = sum(call.verb == "list" for call in plan.calls)
        counts.append(len(plan.calls) + listings * (CHECKPOINTS / 1000 - 1))
    name = f"requests to open and choose of {CHECKPOINTS:,}, worst of {SUMMARY_EVERY}"
    yield Result(name, "requests", 50, (max(counts),))
