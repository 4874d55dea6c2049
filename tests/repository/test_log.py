"""Reading the log: what it costs, what is missing in it, and what a summary may say."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest

from onward.errors import Damaged, Missing, NotAnOutput, OnwardError, StoreError, Unreachable
from onward.repository import (
    Repository,
    exists,
    open_or_create,
    open_repository,
    record_key,
    verify,
)
from onward.repository.documents import digest_of, sealed
from onward.repository.history import History
from onward.repository.log import SUMMARY_EVERY, Log
from onward.repository.records import (
    NO_DIGEST,
    AnyRecord,
    Claim,
    Commit,
    DocumentRef,
    Open,
    new_checkpoint_id,
    new_hex32,
    now,
    record_bytes,
)
from onward.repository.summary import SUMMARY_KEY, read_summary, summary_bytes, write_summary
from onward.stores import FaultPlan, Faulty, MemoryStore, Store
from tests.repository.forging import forge_record, replace_object
from tests.repository.outputs import (
    Wrapped,
    at_step,
    copied,
    facts,
    going_on,
    leaf,
    new_output,
    opened,
    scaled,
    state,
    with_three,
)


def _long_log(commits: int, *, summary_at: int | None = None) -> MemoryStore:
    """A log of so many commits, without their manifests and packs."""
    store, history, writer = MemoryStore("long"), History(), new_hex32()

    def append(record: AnyRecord) -> None:
        data = record_bytes(record)
        store.create(record_key(record.seq), data)
        history.apply(record, digest_of(data))
        if record.seq == summary_at:
            write_summary(store, history)

    def common(generation: int) -> dict[str, Any]:
        return {
            "seq": history.seq + 1, "record": new_hex32(), "writer": writer, "time": now(),
            "generation": generation, "prev": history.head_digest,
        }  # fmt: skip

    append(Open(**common(0), repository=new_hex32(), made_by="test"))
    append(Claim(**common(1), who="test"))
    parent = None
    for number in range(commits):
        commit = Commit(
            **common(1), checkpoint=new_checkpoint_id(), step=number, epoch=0, increment=1,
            parent=parent, finished=False, reason="test", stored=1, metrics={"loss": 1 / 3},
            manifest=DocumentRef(NO_DIGEST, 1),
        )  # fmt: skip
        append(commit)
        parent = commit.checkpoint
    return store


def _requests(store: Store) -> tuple[int, Repository]:
    plan = FaultPlan()
    repository = open_repository(Faulty(store, plan))
    return plan.count(), repository


def _with_summary(records: int = SUMMARY_EVERY + 3) -> MemoryStore:
    """A small output whose log has a summary, and a few records behind it."""
    store = MemoryStore()
    repository = with_three(store)
    while repository.history.seq < records:
        repository.set_alias(f"name{repository.history.seq}", at_step(repository, 1).checkpoint)
    assert read_summary(store) is not None
    return store


# --- what opening costs


def test_opening_after_any_number_of_commits() -> None:
    """Whatever the distance to the last summary, choosing the newest takes few requests."""
    store = MemoryStore()
    writer = new_output(store).claim("writer")
    tree = {"a": leaf(np.zeros(3))}
    for step in range(1, scaled(110, 500)):
        commit = writer.commit(tree, facts(step))
        requests, repository = _requests(store)
        assert requests + 1 <= 32  # and the manifest; probing takes another 16
        assert repository.history.latest() == commit
        assert len(repository.history.commits) == step


@pytest.mark.parametrize("behind", [0, 1, SUMMARY_EVERY - 1])
def test_opening_ten_thousand_commits(behind: int) -> None:
    """The same for a long log, in a second, and with everything that it says."""
    commits = scaled(2000, 10_000)
    store = _long_log(commits, summary_at=commits + 1 - behind)
    began = time.perf_counter()
    requests, repository = _requests(store)
    assert time.perf_counter() - began < scaled(1, 5)
    assert requests + 1 <= 32
    assert len(repository.history.commits) == commits
    latest = repository.history.latest()
    assert latest is not None
    assert latest.step == commits - 1


def test_opening_ten_thousand_commits_to_write() -> None:
    """With the probe of the store, and the manifest of the newest, it is still below 50."""
    commits = scaled(500, 10_000)
    for behind in (0, SUMMARY_EVERY - 1):
        plan = FaultPlan()
        open_or_create(Faulty(_long_log(commits, summary_at=commits + 1 - behind), plan))
        assert plan.count() + 1 < 50


def test_opening_a_long_log_without_a_summary() -> None:
    """It takes as many requests as there are records, and hardly more."""
    store = _long_log(1000)
    requests, repository = _requests(store)
    assert 1002 <= requests <= 1002 + 70
    assert repository.history.seq == 1001


def test_looking_for_news_costs_one_request() -> None:
    """A writer that is alone asks for one slot before each record."""
    store = MemoryStore()
    with_three(store)
    plan = FaultPlan()
    repository = opened(Faulty(store, plan))
    before = plan.count()
    repository.refresh()
    assert plan.count() == before + 1


# --- records that are missing


def _deleted(store: MemoryStore, *seqs: int) -> MemoryStore:
    other = copied(store)
    for seq in seqs:
        other.delete(record_key(seq))
    return other


def test_any_record_missing() -> None:
    """Somewhere in the middle it is `Damaged`, never an older or an empty output."""
    store = MemoryStore()
    head = with_three(store).history.seq
    for seq in range(head):
        with pytest.raises(Damaged, match=f"log record {seq} at .* is missing"):
            open_repository(_deleted(store, seq))
        with pytest.raises(Damaged):
            exists(_deleted(store, seq))
        with pytest.raises(Damaged):
            open_or_create(_deleted(store, seq))


@pytest.mark.parametrize("seq", [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 23, 24, 31, 32, 63, 64, 65, 98])
def test_record_missing_in_a_longer_log(seq: int) -> None:
    """Wherever the windows of reading begin and end."""
    with pytest.raises(Damaged, match=f"log record {seq} at .* is missing"):
        open_repository(_deleted(_long_log(98), seq))


def test_several_records_missing() -> None:
    """A hole of up to seven is found as well; one of any length by `verify`."""
    store = _long_log(98)
    for start in range(1, 90):
        with pytest.raises(Damaged, match=f"log record {start} "):
            open_repository(_deleted(store, *range(start, start + 7)))
    wide = _deleted(store, *range(40, 90))
    repository = Repository(wide)
    repository.log.refresh()
    reasons = verify(repository).damaged[""]
    assert reasons == ["log record 40 is missing, but 99 exists"]


def test_last_records_missing() -> None:
    """That is an older log, whole: nothing in it can tell, and nothing else decides."""
    store = MemoryStore()
    repository = with_three(store)
    older = _deleted(store, repository.history.seq)
    assert open_repository(older).history.seq == repository.history.seq - 1


def test_record_missing_before_the_summary() -> None:
    """Opening does not read it; `verify` does, and still looks at every checkpoint."""
    store = _with_summary()
    for seq in (1, 3, SUMMARY_EVERY - 2):
        hurt = _deleted(store, seq)
        assert open_repository(hurt).history.seq == open_repository(store).history.seq
        findings = verify(open_repository(hurt))
        assert f"log record {seq} " in findings.damaged[""][0]
        assert findings.leftovers == []
        assert findings.checkpoints == 3


def test_log_of_a_working_copy() -> None:
    """It may begin at its summary's record: nothing is wrong with that."""
    store = _with_summary()
    summary = read_summary(store)
    assert summary is not None
    copy = _deleted(store, *range(summary.seq))
    findings = verify(open_repository(copy), every_byte=True)
    assert findings.intact
    assert findings.checkpoints == 3
    copy.delete(SUMMARY_KEY)
    with pytest.raises(OnwardError):
        open_repository(copy)
    assert not verify(Repository(copy)).intact


def test_log_that_grows_while_it_is_read() -> None:
    """A record that appears between two reads is not a hole."""

    class Growing(Wrapped):
        late = True

        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            if key == record_key(3) and self.late:
                self.late = False
                raise Missing("not yet")
            return super().read(key, start, size_bytes)

    store = MemoryStore()
    head = with_three(store).history.seq
    assert open_repository(Growing(store)).history.seq == head


def test_place_without_an_output() -> None:
    """It is not an output, whatever else lies there."""
    store = MemoryStore()
    store.create("ckpt_9.pth", b"")
    store.create("onward/summary.json", b"{}")
    assert not exists(store)
    with pytest.raises(NotAnOutput):
        open_repository(store)


@pytest.mark.parametrize("seq", [0, 2, 5])
def test_damaged_record(seq: int) -> None:
    """It stops every reader, and names the record; what was read before it stays."""
    store = MemoryStore()
    with_three(store)
    forge_record(store, lambda record: record.update(prev="1" * 64, repository="x"), seq)
    repository = Repository(store)
    for _ in range(2):
        with pytest.raises(Damaged, match=f"log record {seq}"):
            repository.log.load()
        assert repository.history.seq == seq - 1


# --- the summary


def _forged_summary(store: MemoryStore, **changes: Any) -> None:
    document = json.loads(store.read(SUMMARY_KEY))
    del document["digest"]
    document.update(changes)
    replace_object(store, SUMMARY_KEY, sealed(document))


def test_summary_is_written_now_and_then() -> None:
    """Every few dozen records, by whoever appends, and it says what the log says."""
    store = MemoryStore()
    repository = with_three(store)
    plan = FaultPlan()
    repository = opened(Faulty(store, plan))
    for _ in range(3 * SUMMARY_EVERY):
        repository.set_alias("name", at_step(repository, 1).checkpoint)
    assert plan.count("put") == 3
    summary = read_summary(store)
    assert summary is not None
    assert repository.history.seq - summary.seq < SUMMARY_EVERY


def test_summary_is_used() -> None:
    """Opening reads none of the records before it."""
    store = _with_summary()
    plan = FaultPlan()
    history = open_repository(Faulty(store, plan)).history
    read = {call.key for call in plan.calls}
    assert record_key(0) not in read
    whole = Log(store)
    whole.refresh()
    assert summary_bytes(whole.history) == summary_bytes(history)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"record_digest": "0" * 64},
        {"seq": 3},
        {"seq": 10**6},
        {"seq": -1},
        {"generation": 7},
        {"commits": []},
        {"commits": [{}]},
        {"aliases": {"champion": "0" * 16}},
        {"aliases": {"../x": "0" * 16}},
        {"dropped": ["0" * 16]},
        {"writer": "nobody"},
        {"condemned": ["../../x"]},
        {"condemned": {"../../x": 1}},
        {"condemned": {"0" * 32: 10**6}},
        {"outdated": {"0" * 16: 10**6}},
        {"outdated": {"../x": 1}},
        {"pins": ["0" * 16]},
        {"moved": {"0" * 16: {"name": f"{'0' * 16}-{'0' * 8}", "digest": "0" * 64, "size": 1}}},
        {"aliases": {f"pin-{'0' * 16}": "0" * 16}},
        {"who": "x" * 3000},
    ],
    ids=str,
)
def test_forged_summary_is_ignored(changes: dict[str, Any]) -> None:
    """One that no log could have made is not believed, although its seal is right."""
    store = _with_summary()
    right = summary_bytes(open_repository(store).history)
    _forged_summary(store, **changes)
    assert read_summary(store) is None
    assert summary_bytes(open_repository(store).history) == right
    assert verify(open_repository(store)).intact


def test_forged_summary_that_hangs_together() -> None:
    """Whoever can write so much can also write a log; `verify` compares, and tells."""
    store = _with_summary()
    document = json.loads(store.read(SUMMARY_KEY))
    aliases = dict.fromkeys(document["aliases"], document["commits"][1]["checkpoint"])
    _forged_summary(store, aliases=aliases)
    assert open_repository(store).history.aliases != {}
    findings = verify(open_repository(store))
    assert findings.damaged == {"": ["summary.json does not match the log; delete it"]}
    store.delete(SUMMARY_KEY)
    assert verify(open_repository(store)).intact


def test_stale_summary() -> None:
    """An old one is as good: the records behind it are read."""
    store = _with_summary()
    old = store.read(SUMMARY_KEY)
    repository = opened(store)
    for _ in range(100):
        repository.set_alias("name", at_step(repository, 1).checkpoint)
    replace_object(store, SUMMARY_KEY, old)
    assert open_repository(store).history.seq == repository.history.seq
    assert verify(open_repository(store)).intact


def test_summary_of_a_log_that_was_cut_short() -> None:
    """A summary of records that are not there any more is not believed."""
    store = _with_summary()
    summary = read_summary(store)
    assert summary is not None
    head = open_repository(store).history.seq
    for seq in range(summary.seq, head + 1):
        store.delete(record_key(seq))
    assert open_repository(store).history.seq == summary.seq - 1


@pytest.mark.parametrize(
    ("error", "opens"), [(StoreError("bad sector"), True), (Unreachable("silence"), False)]
)
def test_summary_that_cannot_be_read(error: StoreError, opens: bool) -> None:
    """A bad sector under a cache costs time, not the output; silence is silence."""

    class Hurt(Wrapped):
        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            if key == SUMMARY_KEY:
                raise error
            return super().read(key, start, size_bytes)

    store = Hurt(_with_summary())
    if opens:
        assert open_repository(store).history.latest() is not None
    else:
        with pytest.raises(Unreachable):
            open_repository(store)


def test_saving_goes_on_from_a_summary() -> None:
    """A writer that never saw the first records follows them properly."""
    store = _with_summary()
    writer = going_on(opened(store))
    writer.commit(state(4), facts(4, writer.history.latest()))
    store.delete(SUMMARY_KEY)
    assert [c.step for c in open_repository(store).history.live()] == [1, 2, 3, 4]
