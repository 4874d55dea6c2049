"""Withdrawn items: they leave the replay memory, and who learned from them is listed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onward import learning
from onward.cli.commands import main
from onward.data.items import Items

from .learners import Learner, Points, history, increment


def er() -> Any:
    return learning.strategy("er", memory=12)


def remembered(learner: Learner, numbers: range) -> set[int]:
    """Which of these numbers the memory holds."""
    memory = learner.run._learning.learner.memory
    assert memory is not None
    held = {bytes(memory.digests[slot]) for slot in memory.slots}
    digests = Items.identified(numbers).digests
    assert digests is not None
    return {number for number, row in zip(numbers, digests, strict=True) if bytes(row) in held}


def test_what_is_gone_from_the_data_leaves_the_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the next increment, before a batch is made; it is said how many; a resume keeps to it."""
    increment(tmp_path, Points(range(20)), strategy=er())
    left = Points([*range(6, 20), *range(30, 36)])
    before = Learner(tmp_path, strategy=er())
    held = remembered(before, range(20))
    before.run.close()
    gone = held & set(range(6))
    assert gone
    killed = increment(tmp_path, left, strategy=er(), stop=6, budget=3)
    assert (
        f"{len(gone)} items that are gone or changed left the replay memory"
        in capsys.readouterr().err
    )
    assert remembered(killed, range(20)) == held - gone
    resumed = increment(tmp_path, left, strategy=er(), budget=3)
    assert resumed.run.increment == 2
    assert not remembered(resumed, range(40)) & set(range(6))
    met = {row for rows in killed.rows + resumed.rows for row in rows if row >= len(left)}
    assert len(met) == len(held - gone)


def test_with_only_new_data_nothing_is_withdrawn(tmp_path: Path) -> None:
    """What is out of reach is not gone: the memory is there for exactly that."""
    only = {"only_new": True}
    increment(tmp_path, Points(range(20)), strategy=er(), loading=only)
    learner = Learner(tmp_path, strategy=er())
    learner.loader(Points(range(30, 40)), **only)
    assert len(remembered(learner, range(20))) == 12
    learner.run.close()


def test_who_learned_from_withdrawn_items_is_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every checkpoint that did, and the newest ancestor that did not."""
    increment(tmp_path, Points(range(12)))
    increment(tmp_path, Points(range(20)))
    increment(tmp_path, Points([*range(15), *range(16, 24)]))
    clean, second, third = [c.checkpoint for c in history(tmp_path).live() if c.finished]
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        main(["data", "withdrawn", str(tmp_path), "--json"])
    assert caught.value.code in (None, 0)
    found = json.loads(capsys.readouterr().out)
    assert found["count"] == 1
    assert {second, third} <= {row["checkpoint"] for row in found["learned"]}
    assert clean not in {row["checkpoint"] for row in found["learned"]}
    assert found["clean_ancestor"] == clean
