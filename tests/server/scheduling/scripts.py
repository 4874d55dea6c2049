"""Scripts for jobs: cheap ones that know nothing of Onward, and one that commits checkpoints.

Each writes into a ledger when it starts, and holds a lock on its output as long as it lives: two
at once on one output are seen by the kernel, not guessed from times.
"""

from __future__ import annotations

_BEGIN = """
import argparse, fcntl, os, pathlib, signal, sys, time
parser = argparse.ArgumentParser()
parser.add_argument("--train_url")
parser.add_argument("--ledger")
parser.add_argument("--steps", type=int, default=3)
parser.add_argument("--pause", type=float, default=0.02)
parser.add_argument("--crash-at", type=int, default=-1)
parser.add_argument("--crashes", type=int, default=1)
parser.add_argument("--status", type=int, default=3)
parser.add_argument("--deaf", action="store_true")
parser.add_argument("--never-finish", action="store_true")
args = parser.parse_args()
folder = pathlib.Path(args.train_url)
ledger = pathlib.Path(args.ledger)

def note(text):
    with ledger.open("a") as file:
        file.write(f"{os.environ['ONWARD_ATTEMPT']} {text}\\n")

name = str(folder).strip("/").replace("/", "_")
held = open(ledger.parent / f"{name}.lock", "w")
try:
    fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note("DOUBLED")
    raise SystemExit(9)
note("began")
stopped = []
signal.signal(signal.SIGTERM, (lambda *_: None) if args.deaf else lambda *_: stopped.append(1))
marks = ledger.parent / f"{name}.crashes"

def crash():
    count = marks.stat().st_size if marks.exists() else 0
    if count < args.crashes:
        with marks.open("a") as file:
            file.write("x")
        print("crashing", flush=True)
        os._exit(args.status)

def wait():
    end = time.monotonic() + args.pause
    while time.monotonic() < end and not stopped:
        time.sleep(0.005)
"""

COUNTING = (
    _BEGIN
    + """
state = folder / "count.txt"
step = int(state.read_text()) if state.exists() else 0
print("begin at", step, flush=True)
while step < args.steps:
    if step == args.crash_at:
        crash()
    step += 1
    part = folder / "count.part"
    part.write_text(str(step))
    os.replace(part, state)
    wait()
    if stopped:
        print("stopping at", step, flush=True)
        note("stopped")
        sys.exit(75)
note("done")
"""
)
"""Counts to `--steps` in a file of its output."""

COMMITTING = (
    _BEGIN
    + """
import json
import numpy as np
from onward.frameworks.base import TensorLeaf
from onward.repository import Facts, open_repository, read_state
from onward.stores import LocalStore

store = LocalStore(args.train_url)
repository = open_repository(store)
writer, _, generation = os.environ["ONWARD_CLAIM"].partition(":")
writer = repository.claim("script", generation=int(generation), writer=writer)
start = repository.history.latest()
step, increment = 0, 1
if start is not None:
    manifest = repository.manifest(start)
    value = float(read_state(store, manifest)["w"].data.view("<f4")[0])
    writer.base_on(manifest)
    step, increment = start.step, start.increment + start.finished
    assert value == step, (value, step)
parent = start.checkpoint if start else None
print(f"begin {os.environ['ONWARD_VERB']} at", step, flush=True)

def tell(**facts):
    os.write(int(os.environ["ONWARD_EVENTS_FD"]), json.dumps(facts).encode() + b"\\n")

def save(finished):
    global parent
    leaf = TensorLeaf("F32", (50,), "numpy", np.full(50, step, "<f4").view(np.uint8))
    parent = writer.commit({"w": leaf}, Facts(
        step=step, epoch=0, increment=increment, parent=parent, finished=finished, reason="test",
        verb="fresh", framework="numpy", framework_version="1", about={})).checkpoint
    tell(step=step, saved=parent, reason="test")

if step == args.crash_at:
    crash()
for number in range(step + 1, args.steps + 1):
    step += 1
    tell(step=step, epoch=0, metrics={"loss": 1 / step})
    save(finished=step == args.steps and not args.never_finish)
    if step == args.crash_at:
        crash()
    wait()
    if stopped:
        if step < args.steps:
            step += 1
            save(finished=False)
        note("stopped")
        sys.exit(75)
note("done")
"""
)
"""Commits a checkpoint at every step, as a run of Onward does, without a framework."""
