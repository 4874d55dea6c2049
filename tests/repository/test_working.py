"""What a working copy says of itself is behind the truth at worst, never ahead of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from onward.repository import open_repository
from onward.repository.mirror import Mirror
from onward.repository.working import (
    WORKING_KEY,
    Lag,
    LagWatch,
    lag_of,
    note_pushed,
    read_working,
)
from onward.stores import LocalStore, MemoryStore
from tests.repository.checkpoints import commit, output_with


def steps(watch: LagWatch) -> list[int]:
    return [commit.step for commit in watch.unpushed()]


def test_the_folder_alone_tells_what_is_not_pushed(tmp_path: Path) -> None:
    """One look after the other, beside whoever commits and pushes."""
    local, remote = LocalStore(tmp_path), MemoryStore()
    mirror = Mirror(local, remote)
    watch = LagWatch(local)
    assert steps(watch) == []
    mirror.pull_log()
    writer = mirror.claim("test")
    commit(writer, 1)
    commit(writer, 2)
    assert steps(watch) == [1, 2]
    mirror.push()
    assert steps(watch) == []
    commit(writer, 3)
    assert steps(watch) == steps(LagWatch(local)) == [3]


def test_what_was_pulled_is_pushed(tmp_path: Path) -> None:
    """By way of a summary too: the log of a long output begins later here."""
    local, remote = LocalStore(tmp_path), MemoryStore()
    output_with(remote, *range(1, 100))
    mirror = Mirror(local, remote)
    mirror.pull_log()
    assert steps(LagWatch(local)) == []
    commit(mirror.claim("test"), 100)
    assert steps(LagWatch(local)) == [100]


def test_an_alias_at_the_store_meanwhile_changes_nothing(tmp_path: Path) -> None:
    """Records have other numbers there; checkpoints have their names."""
    local, remote = LocalStore(tmp_path), MemoryStore()
    mirror = Mirror(local, remote)
    mirror.pull_log()
    writer = mirror.claim("test")
    first = commit(writer, 1)
    mirror.push()
    open_repository(remote).set_alias("good", first.checkpoint)
    commit(writer, 2)
    commit(writer, 3)
    assert steps(LagWatch(local)) == [2, 3]
    mirror.push()
    assert steps(LagWatch(local)) == []


def test_a_note_of_something_else_proves_nothing(tmp_path: Path) -> None:
    """Of another output, or of a checkpoint that the log does not know."""
    local = LocalStore(tmp_path)
    repository = output_with(local, 1, 2)
    newest = repository.history.latest()
    assert newest is not None
    for id_, pushed in [("0" * 32, newest.checkpoint), (repository.history.repository, "0" * 16)]:
        note_pushed(local, id_, "s3://x", pushed)
        assert steps(LagWatch(local)) == [1, 2]
    local.put(WORKING_KEY, [b"{"], 1)
    assert read_working(local) is None
    assert steps(LagWatch(local)) == []  # a plain output, as far as anybody can tell


def test_a_lag_counts_bytes_and_the_age_of_the_oldest() -> None:
    """By the time in its record; a clock that was set back makes no negative age."""
    repository = output_with(MemoryStore(), 1, 2)
    commits = repository.history.live()
    made = datetime.fromisoformat(commits[0].time)
    later = lag_of(commits, made + timedelta(seconds=40))
    assert later == Lag(2, sum(c.stored for c in commits), 40.0)
    assert lag_of(commits, made - timedelta(days=1)).oldest_s == 0.0
    assert lag_of([], datetime.now(UTC)) == Lag()
