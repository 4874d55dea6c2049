"""The examples for three domains, on a little data of the same form as the real one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.learning.evidence import evidence_of
from onward.repository import Repository, open_repository
from onward.stores import open_store

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
NAMES = ["vision", "text", "recommendation"]
IN_MINDSPORE = ["mindspore_vision"]


def write_images(data: Path, classes: range) -> None:
    """40 images of each class to learn, and 10 to be examined on: a bright row says which."""
    data.mkdir(exist_ok=True)
    for label in classes:
        for part, count in (("train", 40), ("test", 10)):
            images = np.zeros((count, 28, 28), np.uint8)
            images[:, 4 * label : 4 * label + 4] = 255
            images[:, :, 0] = np.arange(count, dtype=np.uint8)[:, None]
            labels = np.full(count, label, np.uint8)
            np.savez(data / f"{part}-{label}.npz", images=images, labels=labels)


def write_posts(data: Path, topics: range) -> None:
    for topic in topics:
        for part, count in (("train", 30), ("test", 10)):
            (data / part).mkdir(parents=True, exist_ok=True)
            rows = [
                {
                    "id": f"{part}-{topic}-{number}",
                    "topic": f"topic.{topic}",
                    "text": f"word{topic} again{topic} number{number}",
                }
                for number in range(count)
            ]
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (data / part / f"topic.{topic}.jsonl").write_text(lines)


def write_ratings(data: Path, windows: range) -> None:
    """100 ratings in a file; from window to window the users and films are others in part."""
    data.mkdir(exist_ok=True)
    for window in windows:
        with (data / f"ratings-{window:02d}.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["user", "film", "rating", "time"])
            for number in range(100):
                user, film = 5 * window + number % 10, 100 * window + number // 10
                table.writerow([user, film, 1 + number % 5, 100 * window + number])


WRITE: dict[str, Callable[[Path, range], None]] = {
    "vision": write_images,
    "mindspore_vision": write_images,
    "text": write_posts,
    "recommendation": write_ratings,
}
OPTIONS = {
    "vision": [], "mindspore_vision": [], "text": [], "recommendation": ["--window", "100"],
}  # fmt: skip
GROWS = {
    "vision": "model/head",
    "mindspore_vision": "network/head",
    "text": "model/head",
    "recommendation": "model/users",
}
HOLDOUTS = {
    "mindspore_vision": ["test-0", "test-1", "test-2"],
    "vision": ["test-0", "test-1", "test-2"],
    "text": ["increment 1", "increment 2"],
    "recommendation": ["window 0", "window 1", "window 2"],
}


class Example:
    """One of the examples, with data that is written for it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.script = EXAMPLES / f"{name}.py"
        self.data, self.output = folder / "data", folder / "out"

    def by_agent(self, *options: str) -> str:
        """As `onward run` starts it."""
        places = ["--data", str(self.data), "--output", str(self.output)]
        command = ["-m", "onward.cli", "run", str(self.script), *places, "--"]
        return self._run(*command, *OPTIONS[self.name], *options)

    def alone(self, *options: str) -> str:
        """As an ordinary script."""
        places = ["--data_url", str(self.data), "--train_url", str(self.output)]
        return self._run(str(self.script), *places, *OPTIONS[self.name], *options)

    def _run(self, *command: str) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0, said
        return said

    @property
    def repository(self) -> Repository:
        return open_repository(open_store(self.output))

    def rows(self) -> int:
        """How many rows the table that grows has in the newest checkpoint."""
        latest = self.repository.history.latest()
        assert latest is not None
        path = f"{GROWS[self.name]}.weight"
        tensors = self.repository.manifest(latest).tensors
        return next(int(tensor.shape[0]) for tensor in tensors if tensor.path == path)

    def scores(self) -> dict[str, Any]:
        """By holdout, the outcomes of the newest checkpoint."""
        latest = self.repository.history.latest()
        assert latest is not None
        assert latest.finished
        found = evidence_of(self.repository, latest).holdouts
        return {name: holdout.outcomes for name, holdout in found.items()}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_command_goes_on_with_new_data_and_grows(name: str, tmp_path: Path) -> None:
    """The second run goes on, has more rows, and scores old and new holdouts; then nothing is new.

    By `onward run` and as an ordinary script, at one output.
    """
    check_that_it_goes_on_and_grows(Example(name, tmp_path))


def check_that_it_goes_on_and_grows(example: Example) -> None:
    name = example.name
    WRITE[name](example.data, range(2))
    assert "increment 1: " in example.by_agent()
    before = example.rows()

    WRITE[name](example.data, range(2, 3))
    gone_on = example.alone("--budget", "0.5 x retrain")
    assert "continue from checkpoint" in gone_on
    assert "increment 2: " in gone_on
    assert example.rows() > before
    scores = example.scores()
    assert sorted(scores) == HOLDOUTS[name]
    assert all(outcomes is not None for outcomes in scores.values())

    newest = example.repository.history.latest()
    assert "nothing new to learn" in example.by_agent()
    assert example.repository.history.latest() == newest


def test_images_that_are_deleted_are_remembered(tmp_path: Path) -> None:
    """With a memory the old files may go; of what is remembered, all classes are replayed."""
    check_that_deleted_images_are_remembered(Example("vision", tmp_path))


def check_that_deleted_images_are_remembered(example: Example) -> None:
    write_images(example.data, range(2))
    memory = ["--strategy", "der++", "--memory", "20"]
    example.alone(*memory, "--budget", "4 steps")
    for file in example.data.glob("train-*.npz"):
        file.unlink()
    write_images(example.data, range(2, 3))

    gone_on = example.alone(*memory, "--budget", "10 steps")

    assert "increment 2: 40 new items, 80 known" in gone_on
    assert sorted(example.scores()) == HOLDOUTS[example.name]


@pytest.mark.parametrize("name", [*NAMES, *IN_MINDSPORE])
def test_an_example_is_short_and_says_how_to_run_it(name: str) -> None:
    """At most 120 lines; its first words give the command, and where real data comes from."""
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 120
    assert f"onward run examples/{name}.py --data DATA --output OUT" in text
    assert "python -m examples.data." in text
