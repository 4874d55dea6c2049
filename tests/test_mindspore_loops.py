"""The two loops of MindSpore's examples, started as users start them, on a little data."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onward.repository import Repository, open_repository
from onward.stores import open_store

ROOT = Path(__file__).parent.parent
BATCH, ITEMS = 64, 320


def write(folder: Path, name: str, count: int) -> None:
    folder.mkdir(exist_ok=True)
    labels = np.arange(count) % 10
    images = np.zeros((count, 28, 28), np.uint8)
    for row, label in enumerate(labels):  # a bright bar says which class it is
        images[row, 2 * label + 4 : 2 * label + 6] = 255
    np.savez(folder / f"{name}.npz", images=images, labels=labels.astype(np.uint8))


def run(script: str, data: Path, output: Path, *, epochs: int = 2) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "onward.cli", "run", str(ROOT / "examples" / script)]
    command += ["--data", str(data), "--output", str(output), "--", "--epochs", str(epochs)]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, env={**os.environ})


def opened(output: Path) -> Repository:
    return open_repository(open_store(str(output)))


@pytest.mark.parametrize("script", ["raw_mindspore.py", "model_train_mindspore.py"])
def test_the_same_command_trains_and_goes_on_with_more_data(script: str, tmp_path: Path) -> None:
    """Two epochs; nothing new; then more data: an increment of its own, and it ends with 0."""
    data, output = tmp_path / "data", tmp_path / "out"
    write(data, "part-0", ITEMS)
    write(data, "test", 100)
    first = run(script, data, output)
    assert first.returncode == 0, first.stderr
    steps = 2 * ITEMS // BATCH
    assert (opened(output).history.latest().step, opened(output).history.latest().finished) == (
        steps,
        True,
    )
    again = run(script, data, output)
    assert again.returncode == 0
    assert "nothing new" in again.stdout + again.stderr
    write(data, "part-1", ITEMS)
    more = run(script, data, output)
    assert more.returncode == 0, more.stderr
    latest = opened(output).history.latest()
    assert (latest.increment, latest.finished) == (2, True)
    assert latest.step > steps


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    """SIGTERM in the middle saves and ends with 75; the same command finishes."""
    data, output = tmp_path / "data", tmp_path / "out"
    write(data, "part-0", ITEMS)
    write(data, "test", 100)
    command = [sys.executable, "-m", "onward.cli", "run", "--output", str(output)]
    command += ["--data", str(data), str(ROOT / "examples" / "model_train_mindspore.py")]
    command += ["--save-every-steps", "1", "--", "--epochs", "400"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if b"saved" in line or b"step 2" in line:
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
    assert process.returncode == 75
    stopped = opened(output).history.latest()
    assert not stopped.finished
    epochs = stopped.epoch + 1
    assert run("model_train_mindspore.py", data, output, epochs=epochs).returncode == 0
    latest = opened(output).history.latest()
    assert (latest.increment, latest.finished) == (1, True)
    assert latest.step == epochs * ITEMS // BATCH
