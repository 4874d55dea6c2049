"""A place to run jobs: scripts, data, outputs, and what was said."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onward.jobs.agent import Timing, run_job
from onward.jobs.display import Lines
from onward.jobs.outcome import Outcome
from onward.jobs.spec import JobSpec

FAST = Timing(first_pause_s=0.01, longest_pause_s=0.02, push_every_s=0.1, last_push_s=0.5)

# Commits checkpoints as an Onward run does, without a framework.
TRAIN = """
import argparse, os, signal, sys, time
import numpy as np
from onward.frameworks.base import TensorLeaf
from onward.repository import Facts, open_repository, read_state
from onward.stores import LocalStore

parser = argparse.ArgumentParser()
parser.add_argument("--data_url")
parser.add_argument("--train_url", default=os.environ.get("TRAIN_URL"))
parser.add_argument("--steps", type=int, default=2)
parser.add_argument("--pause", type=float, default=0.0)
parser.add_argument("--crash-after", type=int, default=-1)
parser.add_argument("--crashes", type=int, default=1)
parser.add_argument("--never-finish", action="store_true")
parser.add_argument("--deaf", action="store_true")
args = parser.parse_args()

stopped = []
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, (lambda *_: None) if args.deaf else lambda n, _: stopped.append(n))
store = LocalStore(args.train_url)
repository = open_repository(store)
writer, _, generation = os.environ["ONWARD_CLAIM"].partition(":")
writer = repository.claim("script", generation=int(generation), writer=writer)
named = os.environ.get("ONWARD_CHECKPOINT")
start = repository.history.resolve(named) if named else repository.history.latest()
step, increment, value = 0, 1, 0.0
if start is not None:
    manifest = repository.manifest(start)
    value = float(read_state(store, manifest)["w"].data.view("<f4")[0])
    writer.base_on(manifest)
    step, increment = start.step, start.increment + start.finished
    assert value == step, (value, step)
print(f"begin {os.environ['ONWARD_VERB']} at step {step}", flush=True)
parent = start.checkpoint if start else None

def save(finished):
    global parent
    array = np.full(500, step, "<f4")
    leaf = TensorLeaf("F32", (500,), "numpy", array.view(np.uint8))
    about = {"data_snapshot": os.environ.get("ONWARD_DATA_SNAPSHOT")}
    about["data"] = {"loader0": {"batches": 7}}
    parent = writer.commit({"w": leaf}, Facts(
        step=step, epoch=0, increment=increment, parent=parent, finished=finished, reason="test",
        verb="fresh", framework="numpy", framework_version="1", about=about)).checkpoint
    print("saved", step, flush=True)

def crash():
    marks = os.path.join(os.path.dirname(os.path.abspath(__file__)), "crashes")
    count = os.path.getsize(marks) if os.path.exists(marks) else 0
    if count < args.crashes:
        open(marks, "a").write("x")
        os.kill(os.getpid(), signal.SIGKILL)

if args.crash_after == 0:
    crash()
for number in range(1, args.steps + 1):
    step += 1
    save(finished=number == args.steps and not args.never_finish)
    if number == args.crash_after:
        crash()
    end = time.monotonic() + args.pause
    while time.monotonic() < end and not stopped:
        time.sleep(0.01)
    if stopped:
        step += 1
        save(finished=False)
        sys.exit(130 if stopped[0] == signal.SIGINT else 75)
"""

# Knows nothing of Onward: goes on from its newest own file.
PLAIN = """
import argparse, os, re, sys, time, zipfile
parser = argparse.ArgumentParser()
parser.add_argument("--train_url", default=os.environ.get("TRAIN_URL"))
parser.add_argument("--data_url", default=os.environ.get("DATA_URL"))
parser.add_argument("--epochs", type=int, default=2)
parser.add_argument("--torn-at", type=int, default=0)
parser.add_argument("--wait-at-end", type=float, default=0)
args = parser.parse_args()
found = [re.fullmatch(r"ckpt_(\\d+)\\.pth", name) for name in os.listdir(args.train_url)]
numbers = [int(match[1]) for match in found if match]
first = max(numbers, default=0) + 1
if numbers:
    with zipfile.ZipFile(f"{args.train_url}/ckpt_{first - 1}.pth") as archive:
        assert archive.read("epoch") == str(first - 1).encode()
print("begin at epoch", first, flush=True)
for epoch in range(first, first + args.epochs):
    path = f"{args.train_url}/ckpt_{epoch}.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("epoch", str(epoch))
        archive.writestr("weights", os.urandom(2000))
    mark = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torn")
    if epoch == args.torn_at and not os.path.exists(mark):
        open(mark, "w").close()
        os.truncate(path, 1000)
        os.kill(os.getpid(), 9)
time.sleep(args.wait_at_end)
"""


@dataclass(slots=True)
class Ended:
    """A job that was run within this process."""

    outcome: Outcome
    said: str


class Bench:
    """Runs jobs in `folder`, within this process or as commands."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.data = folder / "data"
        self.data.mkdir()
        (self.data / "a.txt").write_text("day 1")
        self.output = folder / "out"

    def script(self, text: str, name: str = "train.py") -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def run(self, text: str = TRAIN, *arguments: str, timing: Timing = FAST, **spec: Any) -> Ended:
        """A job with this script, from beginning to end; its output goes to a file."""
        spec.setdefault("output", str(self.output))
        said = io.StringIO()
        with (self.folder / "script.out").open("ab") as file:
            outcome = run_job(
                JobSpec(script=self.script(text), arguments=arguments, **spec),
                Lines(said),
                stdout=file,
                timing=timing,
            )
        return Ended(outcome, said.getvalue())

    def printed(self) -> str:
        """What scripts have printed so far."""
        return (self.folder / "script.out").read_text()

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """`onward run` as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "onward.cli", "run", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(
        self, *arguments: str, status: int | None = 0, timeout_s: float = 60.0
    ) -> tuple[str, str]:
        """`onward run` to its end; its standard output and standard error."""
        process = self.start(*arguments)
        out, err = process.communicate(timeout=timeout_s)
        assert status is None or process.returncode == status, (process.returncode, out, err)
        return out, err


def wait_for(condition: Callable[[], bool], *, seconds: float = 30.0) -> None:
    """Fails if it does not become true in time."""
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.02)


def wait_for_line(process: subprocess.Popen[str], text: str) -> None:
    """Until the process has printed a line with this text on standard output."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    raise AssertionError(f"it ended without saying {text!r}")


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file below a folder with its time and content, and every folder."""
    found: dict[str, tuple[int, bytes]] = {}
    for path, folders, names in os.walk(folder):
        for name in folders:
            found[os.path.join(path, name)] = (0, b"")
        for name in names:
            file = Path(path, name)
            found[str(file)] = (file.stat().st_mtime_ns, file.read_bytes())
    return found
