"""Audits in the log: what a record may say, where it travels, who reads it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec
import pytest

from onward.errors import Damaged, NewerFormat, Unstorable
from onward.repository import Repository, Scores, open_repository, record_audit, verify
from onward.repository.auditing import Retrain
from onward.repository.documents import sealed
from onward.repository.mirror import Mirror
from onward.repository.records import Audit, parse_record, record_key
from onward.repository.summary import SUMMARY_KEY, read_summary, write_summary
from onward.stores import LocalStore, MemoryStore, Store
from tests.repository.checkpoints import commit, output_with


def retrain(repository: Repository, **given: Any) -> Retrain:
    newest = repository.history.latest()
    assert newest is not None
    usual: dict[str, Any] = {
        "checkpoint": newest.checkpoint, "retrain": "a" * 16, "share": 1.0, "steps": 10,
        "samples": 640, "seconds": 1.5, "stored": 99, "metrics": {"loss": 0.5, "odd": math.nan},
        "scores": Scores(after={"old": 0.5, "odd": math.inf}),
    }  # fmt: skip
    return Retrain(**{**usual, **given})


def audited(store: Store, **given: Any) -> Repository:
    repository = output_with(store, 1, 2)
    record_audit(repository, retrain(repository, **given))
    return repository


def test_an_audit_is_in_the_history_of_whoever_opens_the_output() -> None:
    """What was not finite is null; the summary tells it as the log does."""
    store = MemoryStore("out")
    repository = audited(store)
    write_summary(store, repository.history)
    summary = read_summary(store)
    assert summary is not None
    for history in (repository.history, open_repository(store).history, summary):
        ((checkpoint, (audit,)),) = history.audits.items()
        assert checkpoint == audit.checkpoint
        assert (audit.share, audit.steps, audit.samples, audit.seconds) == (1.0, 10, 640, 1.5)
        assert audit.metrics == {"loss": 0.5, "odd": None}
        assert audit.scores.after == {"old": 0.5, "odd": None}
        assert audit.made_by.startswith("onward ")
    assert verify(open_repository(store)).intact


def test_the_same_retrain_is_recorded_once() -> None:
    """Whoever was killed after the append does it again, and nothing happens."""
    repository = audited(MemoryStore("out"))
    seq = repository.history.seq
    again = record_audit(repository, retrain(repository, steps=11))
    assert again.steps == 10
    assert repository.refresh().seq == seq
    record_audit(repository, retrain(repository, retrain="b" * 16))
    assert [len(found) for found in repository.refresh().audits.values()] == [2]


def test_a_checkpoint_that_was_dropped_meanwhile_may_be_audited() -> None:
    """The evidence is not thrown away; of an unknown checkpoint there is none."""
    store = MemoryStore("out")
    repository = output_with(store, 1, 2)
    oldest = repository.history.live()[0].checkpoint
    repository.drop([oldest])
    record_audit(repository, retrain(repository, checkpoint=oldest))
    assert list(open_repository(store).history.audits) == [oldest]
    with pytest.raises(Damaged) as caught:
        record_audit(repository, retrain(repository, checkpoint="0" * 16, retrain="b" * 16))
    assert "unknown" in caught.value.why


@pytest.mark.parametrize(
    "given",
    [
        {"share": 0.0}, {"share": 1.5}, {"seconds": -1.0}, {"seconds": math.nan}, {"steps": -1},
        {"retrain": "x"}, {"samples": -1},
    ],
)  # fmt: skip
def test_what_no_reader_would_accept_is_not_recorded(given: dict[str, Any]) -> None:
    repository = output_with(MemoryStore("out"), 1)
    with pytest.raises(Unstorable):
        record_audit(repository, retrain(repository, **given))
    assert not repository.refresh().audits


def test_forged_format_is_damage() -> None:
    """An audit bears format 3, and nothing else does."""
    store = MemoryStore("out")
    repository = audited(store)
    (audit,) = next(iter(repository.history.audits.values()))
    document = msgspec.to_builtins(audit)
    assert document["format"] == 3
    assert isinstance(parse_record(sealed(document), audit.seq), Audit)
    for wrong in (1, 2):
        with pytest.raises(Damaged):
            parse_record(sealed({**document, "format": wrong}), audit.seq)
    with pytest.raises(Damaged):
        parse_record(sealed({**document, "kind": "claim", "who": "x"}), audit.seq)


@pytest.mark.parametrize("summed", [False, True])
def test_older_onward_refuses_politely(monkeypatch: pytest.MonkeyPatch, summed: bool) -> None:
    """Also where a summary would let it begin behind the audit."""
    from onward.repository import records, summary

    store = MemoryStore("out")
    repository = audited(store)
    repository.set_alias("mine", next(iter(repository.history.audits)))
    if summed:
        write_summary(store, repository.history)
    monkeypatch.setattr(records, "_NEWEST_FORMAT", 2)
    monkeypatch.setattr(summary, "AUDIT_FORMAT", 1)
    with pytest.raises(NewerFormat, match="upgrade onward"):
        open_repository(store)


def test_a_summary_of_an_older_version_is_read() -> None:
    """It has no field for audits, as there were none: a working copy begins with such a one."""
    store = MemoryStore("out")
    repository = output_with(store, 1, 2)
    write_summary(store, repository.history)
    document = msgspec.json.decode(store.read(SUMMARY_KEY))
    del document["audits"], document["digest"]
    data = sealed(document)
    store.put(SUMMARY_KEY, [data], len(data))
    summary = read_summary(store)
    assert summary is not None
    assert summary.audits == {}


def test_a_summary_with_an_audit_of_nothing_is_not_trusted() -> None:
    store = MemoryStore("out")
    repository = audited(store)
    (audit,) = next(iter(repository.history.audits.values()))
    forged = msgspec.structs.replace(audit, checkpoint="0" * 16)
    repository.history.audits["0" * 16] = [forged]
    write_summary(store, repository.history)
    assert read_summary(store) is None


def test_training_that_goes_on_is_pushed_past_an_audit(tmp_path: Path) -> None:
    """Somebody's audit takes the slot at the output; the working copy's commit follows it."""
    remote = MemoryStore("remote")
    commit(output_with(remote).claim("test"), 1)
    mirror = Mirror(LocalStore(tmp_path / "output"), remote)
    mirror.pull_log()
    writer = mirror.claim("trainer")
    commit(writer, 2)
    other = open_repository(remote)
    record_audit(other, retrain(other))
    assert [pushed.step for pushed in mirror.push()] == [2]
    history = open_repository(remote).history
    assert [c.step for c in history.live()] == [1, 2]
    assert len(history.audits) == 1
    # Another machine's copy takes the audit over, by way of the summary that it begins with.
    again = Mirror(LocalStore(tmp_path / "other"), remote)
    again.pull_log()
    assert again.local.history.audits == history.audits
    assert open_repository(again.local_store).history.audits == history.audits
    mirror.pull_log()
    assert mirror.local.history.audits == history.audits


def test_an_audit_in_a_log_is_passed_on_byte_for_byte(tmp_path: Path) -> None:
    remote = MemoryStore("remote")
    repository = audited(remote)
    mirror = Mirror(LocalStore(tmp_path / "output"), remote)
    mirror.pull_log()
    record_audit(repository, retrain(repository, retrain="b" * 16))
    mirror.pull_log()
    assert [len(found) for found in mirror.local.history.audits.values()] == [2]
    for seq in (repository.history.seq - 1, repository.history.seq):
        assert mirror.local_store.read(record_key(seq)) == remote.read(record_key(seq))
