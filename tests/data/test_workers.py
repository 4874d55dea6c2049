"""Worker processes: results in order, whoever dies is told of, nobody outlives the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from onward.data.workers import Workers
from onward.errors import DataError


def test_results_come_in_the_order_of_the_jobs() -> None:
    """However the processes share them out; twice with the same processes."""
    workers = Workers(lambda job: (job, os.getpid()), 2)
    jobs = [(seed, seed * 2) for seed in range(20)]
    pids: set[int] = set()
    for _ in range(2):
        found = list(workers.fetch(iter(jobs)))
        assert [job for job, _ in found] == jobs
        pids |= {pid for _, pid in found}
    assert os.getpid() not in pids
    assert len(pids) <= 2
    workers.close()


def test_only_so_much_is_loaded_ahead() -> None:
    """Two batches for each worker and the one that is handed out: memory stays bounded."""
    asked: list[int] = []

    def jobs() -> Any:
        for seed in range(100):
            asked.append(seed)
            yield seed, None

    workers = Workers(lambda job: job[0], 2)
    found = workers.fetch(jobs())
    assert next(found) == 0
    assert len(asked) == 5
    found.close()
    workers.close()


def test_an_error_in_a_worker_is_raised_as_it_is() -> None:
    """The dataset's own exception, with its words; the workers go on."""

    def fails(job: Any) -> Any:
        if job[0] == 3:
            raise KeyError("item 3 is torn")
        return job[0]

    workers = Workers(fails, 2)
    found = workers.fetch(iter([(seed, None) for seed in range(6)]))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(KeyError, match="item 3 is torn"):
        next(found)
    assert list(workers.fetch(iter([(7, None)]))) == [7]
    workers.close()


def test_a_worker_that_dies_is_an_error_of_the_data() -> None:
    """Killed in the middle of a batch: what to do is said, and a new round starts new workers."""

    def dies(job: Any) -> Any:
        if job[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return job[0]

    workers = Workers(dies, 2)
    with pytest.raises(DataError, match="a data worker died") as caught:
        list(workers.fetch(iter([(seed, None) for seed in range(6)])))
    assert "num_workers=0" in caught.value.do
    assert list(workers.fetch(iter([(1, None), (2, None)]))) == [1, 2]
    workers.close()


def test_signals_to_the_group_do_not_end_workers() -> None:
    """Ctrl-C and SIGTERM reach every process of a job; the trainer alone decides what they mean."""

    def signalled(job: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
        return job[0]

    workers = Workers(signalled, 1)
    assert list(workers.fetch(iter([(1, None), (2, None)]))) == [1, 2]
    workers.close()


PARENT = """
import os, sys, time
from onward.data.workers import Workers

workers = Workers(lambda job: os.getpid(), 2)
found = workers.fetch(iter([(seed, None) for seed in range(50)]))
print(*sorted({next(found) for _ in range(20)}), flush=True)
time.sleep(60)
"""


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no time to end them; they look for it themselves."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert pids
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() and alive(pid) for pid in pids):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)


def alive(pid: int) -> bool:
    """Whether the process runs: one that has ended may wait to be collected."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"
