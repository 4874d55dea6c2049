"""The scores of an increment in the record of its checkpoint."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import msgspec
import pytest

from onward.errors import Damaged, Unstorable
from onward.repository import Facts, FrozenHoldout, Scores, open_repository
from onward.repository.documents import sealed
from onward.repository.records import parse_record, record_key
from onward.repository.summary import read_summary, write_summary
from onward.stores import MemoryStore
from tests.repository.checkpoints import leaf, output_with

FACTS = Facts(
    step=1, epoch=1, increment=1, parent=None, finished=True, reason="test", verb="fresh",
    framework="numpy", framework_version="1",
)  # fmt: skip
FROZEN = {"old": FrozenHoldout(1, "accuracy"), "new": FrozenHoldout(2, "mse", lower=True)}


def test_scores_are_in_the_record_and_in_the_summary() -> None:
    """What was not finite is null; a checkpoint without scores has no such field."""
    store = MemoryStore("out")
    repository = output_with(store, 1)
    scores = Scores(
        after={"old": 0.5, "new": math.nan}, before={"new": math.inf}, frozen=FROZEN, verdict="x"
    )
    writer = repository.claim("test")
    writer.commit({"w": leaf(1)}, replace(FACTS, scores=scores))
    write_summary(store, repository.history)
    summary = read_summary(store)
    assert summary is not None
    for history in (open_repository(store).history, summary):
        without, having = history.commits.values()
        assert without.row is None
        assert having.row == Scores(
            after={"old": 0.5, "new": None}, before={"new": None}, frozen=FROZEN, verdict="x"
        )
        assert list(having.row.frozen) == ["old", "new"]
    assert b"scores" not in store.read(record_key(2))


def test_scores_of_a_thousand_holdouts_can_be_recorded() -> None:
    names = [f"{number:04d}" + "😀" * 15 for number in range(1000)]
    row = dict.fromkeys(names, 1 / 3)
    frozen = dict.fromkeys(names, FrozenHoldout(1, "m" * 64))
    repository = output_with(MemoryStore("out"))
    scores = Scores(after=row, before=row, frozen=frozen, verdict="ä" * 5000)
    commit = repository.claim("t").commit({"w": leaf(1)}, replace(FACTS, scores=scores))
    assert commit.row is not None
    assert len(commit.row.verdict) == 2000


@pytest.mark.parametrize(
    "after", [dict.fromkeys(map(str, range(1001)), 0.0), {"x" * 65: 0.0}, {"": 0.0}]
)
def test_scores_out_of_bounds_are_refused_before_they_are_recorded(
    after: dict[str, float | None],
) -> None:
    repository = output_with(MemoryStore("out"))
    with pytest.raises(Unstorable):
        repository.claim("t").commit({"w": leaf(1)}, replace(FACTS, scores=Scores(after=after)))
    assert not repository.refresh().commits


@pytest.mark.parametrize(
    "scores",
    [7, [], {"after": []}, {"after": {"a": "1"}}, {"after": {"a": True}}, {"verdict": None},
     {"frozen": {"a": 1}}, {"frozen": {"a": {"increment": -1, "metric": ""}}}, None],
)  # fmt: skip
def test_forged_scores_are_damage(scores: object) -> None:
    store = MemoryStore("out")
    output_with(store, 1)
    document = json.loads(store.read(record_key(2)))
    del document["digest"]
    with pytest.raises(Damaged):
        parse_record(sealed({**document, "scores": scores}), 2)
    assert parse_record(sealed({**document, "scores": {"more": 1}}), 2)


def test_an_older_version_reads_a_record_with_scores() -> None:
    """Fields that a reader does not know are ignored: the format stays 1."""

    class Known(msgspec.Struct):
        format: int
        checkpoint: str

    repository = output_with(MemoryStore("out"))
    commit = repository.claim("t").commit({"w": leaf(1)}, replace(FACTS, scores=Scores()))
    data = repository.store.read(record_key(commit.seq))
    assert msgspec.json.decode(data, type=Known).format == 1
