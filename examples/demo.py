"""The main job on real data: train, be killed, resume to the bit, and go on when data has grown.

make demo
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from data.fashion_mnist import PART_ITEMS, write_parts
from onward.errors import NotAnOutput
from onward.repository import Commit, Repository, open_repository
from onward.stores import open_store

HERE = Path(__file__).parent
OUT = Path("demo-out")
DATA = OUT / "data"
console = Console()


def main() -> None:
    started = time.monotonic()
    shutil.rmtree(OUT, ignore_errors=True)
    console.rule("Fashion-MNIST, day 1: 5 parts of 6,000 images")
    write_parts(DATA, parts=5)

    console.rule("A run that nobody disturbs, to compare with")
    onward_run(OUT / "undisturbed")

    console.rule("The same run, killed with SIGKILL in the middle of its second epoch")
    kill_in_second_epoch(OUT / "model")
    console.rule("The same command again: it resumes")
    onward_run(OUT / "model")
    proof = compare(OUT / "undisturbed", OUT / "model")

    console.rule("Day 2: one more part has arrived; the same command goes on")
    write_parts(DATA, parts=6)
    onward_run(OUT / "model")
    console.rule("The same command once more: there is nothing new")
    onward_run(OUT / "model")

    console.rule("What happened")
    console.print(table(open_repository(open_store(OUT / "model"))))
    console.print(proof)
    console.print(f"All of it took {time.monotonic() - started:.0f} seconds.")
    console.print(f"Look around: {Path(sys.executable).parent / 'onward'} log {OUT / 'model'}")


def command(output: Path) -> list[str]:
    onward = Path(sys.executable).parent / "onward"
    script = HERE / "raw_pytorch.py"
    return [
        str(onward), "run", str(script), "--data", str(DATA), "--output", str(output),
        "--", "--epochs", "2",
    ]  # fmt: skip


def onward_run(output: Path) -> None:
    console.print("$ onward " + " ".join(command(output)[1:]), style="bold", highlight=False)
    subprocess.run(command(output), check=True)


def kill_in_second_epoch(output: Path) -> None:
    """Starts the command, and kills it and the script when some steps of epoch 2 are saved."""
    agent = subprocess.Popen(command(output), start_new_session=True)
    while agent.poll() is None:
        latest = newest(output)
        if latest is not None and latest.epoch == 1 and not latest.reason.startswith("end"):
            time.sleep(0.5)  # somewhere between two saves
            for pid in [agent.pid, *scripts_of(output)]:
                os.kill(pid, signal.SIGKILL)
            agent.wait()
            console.print(f"killed; the newest checkpoint is of step {latest.step}")
            return
        time.sleep(0.05)
    sys.exit("the run ended before it could be killed")


def newest(output: Path) -> Commit | None:
    try:
        return open_repository(open_store(output)).history.latest()
    except NotAnOutput:
        return None


def scripts_of(output: Path) -> list[int]:
    """The training processes that work on `output`."""
    wanted = f"ONWARD_OUTPUT={output.resolve()}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def compare(first: Path, second: Path) -> str:
    """The proof, or the end: every tensor and every number of two finished checkpoints."""
    one, two = (final_state(path) for path in (first, second))
    different = [path for path in one.keys() | two.keys() if one.get(path) != two.get(path)]
    if different:
        sys.exit(f"NOT equal to the undisturbed run: {', '.join(sorted(different)[:10])}")
    return (
        f"The killed run equals the undisturbed one bit for bit: {len(one) - 1} tensors (weights, "
        "moments, random generators) and all other state compared, 0 differ."
    )


def final_state(output: Path) -> dict[str, object]:
    repository = open_repository(open_store(output))
    latest = repository.history.latest()
    assert latest is not None
    manifest = repository.manifest(latest)
    tensors: dict[str, object] = {t.path: (t.dtype, t.shape, t.digest) for t in manifest.tensors}
    return {**tensors, "(all other state)": manifest.state}


def table(repository: Repository) -> Table:
    columns = ("increment", "parent", "new items", "steps", "accuracy", "seconds", "stored")
    shown = Table(*columns)
    before = 0
    for finished in (commit for commit in repository.history.live() if commit.finished):
        commits = [c for c in repository.history.live() if c.increment == finished.increment]
        about = repository.manifest(finished).about
        first_parent = commits[0].parent
        shown.add_row(
            str(finished.increment),
            (first_parent or "–")[:8],
            f"{about['data']['loader0']['new']:,}",
            f"{finished.step - before:,}",
            f"{finished.metrics['accuracy']:.2%}",
            f"{about['seconds']:.0f}",
            f"{sum(c.stored for c in commits) / 1e6:.1f} MB",
        )
        before = finished.step
    shown.caption = f"{PART_ITEMS:,} images a part; accuracy on the 10,000 test images"
    return shown


if __name__ == "__main__":
    main()
