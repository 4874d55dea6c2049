"""`onward run --track`: files of TensorBoard that go where the output is, from any machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onward.stores import open_store
from tests.jobs.bench import Bench
from tests.servers import S3Server
from tests.trackers.story import in_tensorboard

SCRIPT = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.trackers.story import train
kill_at, items = int(sys.argv[-2]), int(sys.argv[-1])
train(sys.argv[sys.argv.index("--train_url") + 1], (), kill_at=kill_at, told=True, items=items)
"""


@pytest.mark.servers
def test_the_curves_of_all_machines_are_at_the_output(
    tmp_path: Path, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed, gone on with elsewhere, and again for the next increment: one axis, nothing twice."""
    url = seaweedfs.url("trackers/one-axis")
    bench = Bench(tmp_path, {**os.environ, **seaweedfs.environment})
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
    script = bench.script(SCRIPT)
    for machine, kill_at, items, code in ((1, 12, 40, 1), (2, -1, 40, 0), (1, -1, 60, 0)):
        bench.environment["ONWARD_HOME"] = str(tmp_path / f"home{machine}")
        bench.command(
            script, "--output", url, "--track", "tensorboard", "--", str(kill_at), str(items),
            status=code,
        )  # fmt: skip
    store = open_store(url)
    for entry in store.list("tensorboard/"):
        file = tmp_path / entry.key
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(store.read(entry.key))
    found = in_tensorboard(tmp_path / "tensorboard")
    assert list(found) == ["increment-1", "increment-2", "model"]
    assert [step for step, _ in found["increment-1"]["loss"]] == [1, *range(3, 31, 3)]
    assert [step for step, _ in found["increment-2"]["loss"]] == [31, *range(33, 61, 3)]
    assert [step for step, _ in found["model"]["holdout/fixed"]] == [30, 60]
