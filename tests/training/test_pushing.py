"""Pushing from the training process: it may lag, it catches up, and the lag can be seen."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onward.errors import Fenced, Indeterminate, OnwardError, Unreachable
from onward.repository import Commit, open_repository, verify
from onward.repository.mirror import Mirror
from onward.repository.working import Lag, LagWatch
from onward.stores import LocalStore, MemoryStore, Store
from onward.training import places
from onward.training.lag import LagNotices, lag_text
from onward.training.places import Pusher, WorkingFolder
from tests.repository.checkpoints import commit, noise, output_with
from tests.repository.slow import Away, Slow


class Bench:
    """A working copy of `remote` with a pusher, and what it said."""

    def __init__(self, remote: Store, folder: Path) -> None:
        self.said: list[str] = []
        self.heard = threading.Event()
        working = WorkingFolder("s3://bucket/out", root=folder)
        self.mirror = Mirror(LocalStore(working.output), remote)
        self.mirror.pull_log()
        self.writer = self.mirror.claim("test")
        self.pusher = Pusher(self.mirror, working, self._say)
        self.pusher.start()

    def _say(self, text: str) -> None:
        self.said.append(text)
        if "waiting" in text:
            self.heard.set()

    def commits(self, *steps: int) -> list[Commit]:
        return [commit(self.writer, step, state={"w": noise(step, 1000)}) for step in steps]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(places, "_PUSH_EVERY_S", 0.001)
    monkeypatch.setattr(places, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(places, "_QUIET_S", 0.001)
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before  # no pusher is left behind


def pushed_in_order(store: Store) -> list[int]:
    repository = open_repository(store)
    assert verify(repository, every_byte=True).intact
    return [c.step for c in repository.history.commits.values()]


def test_a_slow_store_does_not_slow_commits(tmp_path: Path) -> None:
    """Twenty of them return while not one push has ended; then all arrive, in order."""
    slow = Slow(MemoryStore())
    bench = Bench(slow, tmp_path)
    bench.commits(1)
    assert slow.waited_for.wait(60)
    commits = bench.commits(*range(2, 21))
    assert open_repository(slow.store).history.commits == {}
    assert LocalStore(bench.mirror.local_store.folder).size(
        f"onward/manifests/{commits[-1].checkpoint}.json"
    )
    lag = bench.pusher.lag()
    assert (lag.checkpoints, lag.size_bytes > 20_000) == (20, True)
    slow.go_on.set()
    bench.pusher.finish()
    assert pushed_in_order(slow.store) == list(range(1, 21))
    assert bench.pusher.lag() == Lag()


def test_the_end_says_what_it_waits_for(tmp_path: Path) -> None:
    """Only where there is something to wait for."""
    slow = Slow(MemoryStore())
    bench = Bench(slow, tmp_path)
    bench.commits(1)
    assert slow.waited_for.wait(60)
    bench.commits(2)
    ending = threading.Thread(target=bench.pusher.finish)
    ending.start()
    assert bench.heard.wait(60)
    slow.go_on.set()
    ending.join()
    assert [text for text in bench.said if "waiting" in text] == [
        "waiting for 2 checkpoints, 2.3 kB, to be pushed"
    ]


@pytest.mark.parametrize("error", [Unreachable, Indeterminate])
def test_a_store_that_was_away_gets_all_of_it(tmp_path: Path, error: type[OnwardError]) -> None:
    """However often it was tried meanwhile; that is said once, and training never hears of it."""
    away = Away(MemoryStore(), error)
    bench = Bench(away, tmp_path)
    bench.commits(1, 2, 3)
    assert away.asked.wait(60)
    assert bench.pusher.failure is None
    assert len([text for text in bench.said if "delayed" in text]) == 1
    away.away = False
    bench.pusher.finish()
    assert pushed_in_order(away.store) == [1, 2, 3]


def test_a_store_that_stays_away_is_told_at_the_end_and_pushed_by_the_next_run(
    tmp_path: Path,
) -> None:
    """Nothing that was acknowledged is lost."""
    away = Away(MemoryStore())
    bench = Bench(away, tmp_path)
    bench.commits(1, 2)
    with pytest.raises(Unreachable):
        bench.pusher.finish()
    local = bench.mirror.local_store
    assert [c.step for c in LagWatch(local).unpushed()] == [1, 2]
    Mirror(LocalStore(local.folder), away.store).pull_log()
    assert pushed_in_order(away.store) == [1, 2]
    assert LagWatch(local).unpushed() == []


def test_a_take_over_is_a_failure_not_a_lag(tmp_path: Path) -> None:
    """It will not pass."""
    remote = MemoryStore()
    bench = Bench(remote, tmp_path)
    output_with(remote, 7)
    bench.commits(1)
    with pytest.raises(Fenced):
        bench.pusher.finish()


# In words.


def test_a_lag_is_said_when_it_grows_beyond_a_save_interval() -> None:
    """Not for one checkpoint, however large; not for a moment; again only when it has doubled."""
    notices = LagNotices(patience_s=10)
    said = [
        notices.about(lag)
        for lag in [
            Lag(1, 10**12, 3000), Lag(), Lag(2, 10, 9), Lag(2, 1_200_000_000, 35), Lag(3, 10, 69),
            Lag(3, 3000, 70), Lag(1, 1000, 400), Lag(), Lag(), Lag(2, 10, 9), Lag(2, 10, 11),
        ]
    ]  # fmt: skip
    assert [text[:60] for text in said if text] == [
        "pushing lags, training goes on: 2 checkpoints (1.2 GB, oldes",
        "pushing lags, training goes on: 3 checkpoints (3.0 kB, oldes",
        "pushing has caught up",
        "pushing lags, training goes on: 2 checkpoints (10 B, oldest ",
    ]


def test_a_lag_in_words() -> None:
    """As the last words of the progress line."""
    assert lag_text(Lag()) == ""
    assert lag_text(Lag(1, 12_300_000, 35.4)) == "1 checkpoint (12.3 MB, oldest 35 s) not pushed"
    assert lag_text(Lag(2, 1, 7300)) == "2 checkpoints (1 B, oldest 2.0 h) not pushed"
