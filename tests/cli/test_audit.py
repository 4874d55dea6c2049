"""`onward audit` from end to end: an ordinary script, its audit, and the report that follows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from onward.repository import open_repository
from onward.stores import LocalStore

pytest.importorskip("torch")

SCRIPT = """
import argparse
import numpy as np, torch
import onward
parser = argparse.ArgumentParser()
parser.add_argument("--data_url"); parser.add_argument("--train_url")
parser.add_argument("--epochs", type=int, default=2)
args = parser.parse_args()
torch.manual_seed(0)
x = torch.from_numpy(np.loadtxt(f"{args.data_url}/x.txt", dtype=np.float32))[:, None]
data = torch.utils.data.TensorDataset(x)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), 1e-4)
with onward.open(args.train_url, model=model, optimizer=optimizer) as run:
    loader = run.loader(data, batch_size=4)
    for _ in run.epochs(args.epochs):
        for (batch,) in loader:
            loss = ((model(batch) - 2 * batch) ** 2).mean()
            optimizer.zero_grad(); loss.backward(); optimizer.step()
            run.step(loss=loss.item())
"""


def command(folder: Path, *arguments: str) -> tuple[str, str]:
    """A Python command as a process of its own."""
    environment = {**os.environ, "ONWARD_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_train_grow_audit_report(tmp_path: Path) -> None:
    """The retrain starts fresh, sees all that was learned, and is what the report compares with."""
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "data").mkdir()
    numbers = tmp_path / "data" / "x.txt"
    numbers.write_text("\n".join(map(str, range(40))))
    command(tmp_path, "train.py", "--data_url", "data", "--train_url", "out")
    numbers.write_text("\n".join(map(str, range(48))))
    command(tmp_path, "train.py", "--data_url", "data", "--train_url", "out")
    before = open_repository(LocalStore(tmp_path / "out")).history
    audited, finished = before.latest(), [c for c in before.live() if c.finished]
    assert audited is not None
    assert [commit.increment for commit in finished] == [1, 2]

    arguments = ("-m", "onward.cli", "audit", "out", "train.py", "--data", "data", "--json")
    out, err = command(tmp_path, *arguments, "--", "--epochs", "3")
    assert "fresh start" in err
    document = json.loads(out)
    audit = document["audit"]
    assert audit["checkpoint"] == audited.checkpoint
    assert (audit["sample"], audit["increment"]) == (1.0, 2)
    assert audit["steps"] == 3 * 12  # three epochs over all 48 items
    assert audit["seconds"] > 0
    assert "loss" in audit["metrics"]
    assert document["folder"] is None

    history = open_repository(LocalStore(tmp_path / "out")).history
    assert history.commits == before.commits
    beside = {path.name for path in tmp_path.iterdir()} - {"home"}  # what snapshots remember
    assert beside == {"data", "out", "train.py"}
    text, _ = command(tmp_path, "-m", "onward.cli", "report", "out")
    steps = audited.step - finished[0].step
    assert re.search(rf"^2 +{steps} +[0-9.]+ % of 36 ", text, re.MULTILINE)
    assert "full retrain measured" in text
    text, _ = command(tmp_path, "-m", "onward.cli", "log", "out", "--records")
    assert "audited v" in text
