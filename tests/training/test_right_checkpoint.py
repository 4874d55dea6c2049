"""Which checkpoint a run goes on from, and what it says about those it does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import onward
from onward.repository import open_repository, record_key
from onward.stores import open_store
from tests.training.test_run import DATA, Training


def save_at(output: Path, steps: list[int]) -> onward.Run:
    training = Training()
    run = training.open(output)
    while run.global_step < steps[-1]:
        run.step(loss=training.step(*DATA[:4]))
        if run.global_step in steps:
            run.save()
    run.close()
    return run


def test_of_2_9_10_100_and_a_torn_101_it_is_100(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The log decides: no name, no file time, no clock; and the run says why it is not 101."""
    times = iter(f"{year}-01-01T00:00:00.000000Z" for year in range(2100, 1970, -1))
    monkeypatch.setattr("onward.repository.writer.now", lambda: next(times))
    save_at(tmp_path, [2, 9, 10, 100, 101])
    repository = open_repository(open_store(tmp_path))
    torn = repository.history.latest()
    assert torn is not None
    os.unlink(tmp_path / record_key(torn.seq))  # its save died before its record
    for path in tmp_path.rglob("*"):
        os.utime(path, (1, 1))
    capsys.readouterr()
    training = Training()
    run = training.open(tmp_path)
    run.close()
    assert run.global_step == 100
    said = capsys.readouterr().err
    assert f"not step 101 ({torn.checkpoint}): not in the log" in said
    assert "(step 100, " in said


def test_a_named_checkpoint_is_gone_on_from_and_later_ones_stay(tmp_path: Path) -> None:
    """Going back is a decision: the next checkpoint's parent is the one that was named."""
    save_at(tmp_path, [1, 2, 3])
    training = Training()
    run = training.open(tmp_path, checkpoint="v2")
    assert run.global_step == 2
    run.step(loss=training.step(*DATA[4:8]))
    saved = run.save()
    run.close()
    history = open_repository(open_store(tmp_path)).history
    assert history.commits[saved or ""].parent == list(history.commits)[1]
    assert len(history.live()) == 4
    assert history.latest() == history.commits[saved or ""]
