"""A limit on local space is kept, and never costs a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from onward.errors import SpaceLimit, UsageError
from onward.repository import (
    Commit,
    manifest_key,
    open_repository,
    pack_key,
    read_state,
    verify,
)
from onward.repository.mirror import Mirror
from onward.stores import FaultPlan, Faulty, LocalStore, MemoryStore
from onward.training.space import LocalSpace, parse_space, space_limit
from tests.repository.checkpoints import commit, noise, output_with

STATE_BYTES = 10_000
PACK_BYTES = 10_240  # more than it takes, with its header


class Bench:
    """A working copy with a limit of so many packs, and the calls that its output got."""

    def __init__(self, folder: Path, *, packs: float) -> None:
        self.plan = FaultPlan()
        self.remote = MemoryStore()
        self.local = LocalStore(folder / "output")
        self.mirror = Mirror(self.local, Faulty(self.remote, self.plan))
        self.mirror.pull_log()
        self.writer = self.mirror.claim("test")
        self.space = LocalSpace(self.local, int(packs * PACK_BYTES))
        self._clock = 0

    def save(self, step: int, **more: object) -> Commit:
        """A commit as a saver makes it: room first."""
        self.space.make_room(PACK_BYTES)
        made = commit(self.writer, step, state={"w": noise(step, STATE_BYTES), **more})
        self.stamp(made)
        return made

    def stamp(self, made: Commit) -> None:
        """Each pack is a second younger than the ones before, whatever the file system's clock."""
        self._clock += 1
        for pack in self.mirror.local.manifest(made).packs:
            path = self.local.path(pack_key(pack))
            if path.stat().st_mtime > 10_000:
                os.utime(path, (self._clock, self._clock))

    def here(self) -> list[int]:
        """Steps of the checkpoints whose own packs are in the working copy."""
        history = self.mirror.local.refresh()
        manifests = [(c.step, self.mirror.local.manifest(c)) for c in history.live()]
        return [step for step, manifest in manifests if self.holds(manifest.packs)]

    def holds(self, packs: Iterable[str]) -> bool:
        return all(self.local.path(pack_key(pack)).exists() for pack in packs)


def test_what_is_pushed_goes_first_oldest_first(tmp_path: Path) -> None:
    """The limit holds at every save; the output and the log here keep every checkpoint."""
    bench = Bench(tmp_path, packs=3.5)
    for step in range(1, 9):
        bench.save(step)
        bench.mirror.push()
        assert bench.space.used_bytes() <= bench.space.limit_bytes
        assert bench.here() == list(range(max(1, step - 2), step + 1))
    remote = open_repository(bench.remote)
    assert verify(remote, every_byte=True).intact
    assert [c.step for c in remote.history.live()] == list(range(1, 9))
    assert [c.step for c in bench.mirror.local.refresh().live()] == list(range(1, 9))
    deleted = [call.key for call in bench.plan.calls if call.verb == "delete"]
    assert all(key.startswith("onward/probe/") for key in deleted)


def test_no_more_is_deleted_than_is_needed(tmp_path: Path) -> None:
    """And nothing while all fits."""
    bench = Bench(tmp_path, packs=4)
    commits = [bench.save(step) for step in (1, 2, 3)]
    bench.mirror.push()
    free = bench.space.limit_bytes - bench.space.used_bytes()
    assert bench.space.make_room(free) == 0
    assert bench.space.make_room(free + 1) == commits[0].stored
    assert bench.here() == [2, 3]


def test_unpushed_checkpoints_are_never_deleted_the_next_save_waits(tmp_path: Path) -> None:
    """It is refused before anything is written, and goes through once the pushes caught up."""
    bench = Bench(tmp_path, packs=3.5)
    for step in (1, 2, 3):
        bench.save(step)
    with pytest.raises(SpaceLimit, match="3 checkpoints there are not pushed yet") as caught:
        bench.save(4)
    assert not caught.value.for_good
    assert bench.here() == [1, 2, 3]
    bench.mirror.push()
    bench.save(4)
    bench.mirror.push()
    assert bench.here() == [2, 3, 4]
    assert verify(open_repository(bench.remote), every_byte=True).checkpoints == 4


def test_only_as_many_as_are_pushed_make_room(tmp_path: Path) -> None:
    """A lag of one: the others are enough."""
    bench = Bench(tmp_path, packs=3.5)
    bench.save(1)
    bench.mirror.push()
    bench.save(2)
    bench.save(3)
    bench.save(4)
    assert bench.here() == [2, 3, 4]
    with pytest.raises(SpaceLimit):
        bench.save(5)


def test_packs_that_the_newest_checkpoint_shares_stay(tmp_path: Path) -> None:
    """However old they are: the next checkpoint is built on them."""
    bench = Bench(tmp_path, packs=3.5)
    frozen = noise(99, 1000)
    first = bench.save(1, frozen=frozen)
    shared = bench.mirror.local.manifest(first).packs
    for step in range(2, 7):
        bench.save(step, frozen=frozen)
        bench.mirror.push()
        assert bench.holds(shared)
    newest = bench.mirror.local.refresh().latest()
    assert newest is not None
    state = read_state(bench.local, bench.mirror.local.manifest(newest))
    assert state["frozen"].data.tobytes() == frozen.data.tobytes()


def test_what_is_being_restored_stays_until_it_is_let_go(tmp_path: Path) -> None:
    """A run that begins from an older checkpoint."""
    bench = Bench(tmp_path, packs=3.5)
    first = bench.save(1)
    bench.save(2)
    bench.save(3)
    bench.mirror.push()
    bench.space.pin(bench.mirror.local.manifest(first).packs)
    bench.space.make_room(PACK_BYTES)
    assert bench.here() == [1, 3]
    bench.space.unpin()
    bench.space.make_room(2 * PACK_BYTES)
    assert bench.here() == [3]


def test_a_limit_that_can_never_hold_two_checkpoints_says_so(tmp_path: Path) -> None:
    """Waiting for pushes would not help: it names the limit that would do."""
    bench = Bench(tmp_path, packs=1.5)
    bench.save(1)
    with pytest.raises(SpaceLimit, match=r"to 22\.4 kB or more") as caught:
        bench.save(2)
    assert caught.value.for_good
    bench.mirror.push()
    with pytest.raises(SpaceLimit) as caught:
        bench.save(2)
    assert caught.value.for_good
    assert bench.here() == [1]


def test_what_was_deleted_here_is_fetched_again_when_needed(tmp_path: Path) -> None:
    """And looked for at the output, not called damaged here."""
    bench = Bench(tmp_path, packs=2.5)
    commits = [bench.save(step) for step in (1, 2) if bench.mirror.push() is not None]
    bench.mirror.push()
    commits.append(bench.save(3))
    for every_byte in (False, True):
        findings = verify(open_repository(bench.local), every_byte=every_byte)
        assert findings.intact
        assert findings.not_here == [commits[0].checkpoint]
    bench.mirror.push()
    manifest = bench.mirror.pull_checkpoint(commits[0])
    state = read_state(bench.local, manifest)
    assert state["w"].data.tobytes() == noise(1, STATE_BYTES).data.tobytes()


def test_what_is_nowhere_else_and_missing_is_damage(tmp_path: Path) -> None:
    """Only what is pushed may be missing."""
    bench = Bench(tmp_path, packs=9)
    made = bench.save(1)
    for pack in bench.mirror.local.manifest(made).packs:
        bench.local.delete(pack_key(pack))
    assert verify(open_repository(bench.local)).damaged.keys() == {made.checkpoint}
    bench.mirror.local_store.delete(manifest_key(made.checkpoint))
    assert verify(open_repository(bench.local)).damaged.keys() == {made.checkpoint}


def test_a_plain_output_is_left_alone(tmp_path: Path) -> None:
    """Its checkpoints are nowhere else: no limit deletes from it, nor keeps it from growing."""
    local = LocalStore(tmp_path)
    repository = output_with(local, 1, 2, 3)
    assert LocalSpace(local, 10).make_room(10_000) == 0
    assert verify(repository, every_byte=True).intact


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("20GB", 20 * 10**9), ("1.5 TB", 1_500_000_000_000), ("512MiB", 512 << 20), ("7", 7),
     ("3k", 3000), ("4 KB", 4000), (4096, 4096), ("2G", 2 * 10**9)],
)  # fmt: skip
def test_amounts_of_space(text: str | int, size_bytes: int) -> None:
    """Units of a thousand, or of 1024 with an i."""
    assert parse_space(text) == size_bytes


@pytest.mark.parametrize("text", ["", "0", "-1", "lots", "20XB", "1e9", "GB"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    """With how to write one."""
    with pytest.raises(UsageError, match="write it like"):
        parse_space(text)


def test_the_limit_is_as_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """None where nobody set one."""
    monkeypatch.delenv("ONWARD_SPACE", raising=False)
    assert space_limit() is space_limit("") is None
    monkeypatch.setenv("ONWARD_SPACE", "2GB")
    assert space_limit() == space_limit("") == 2 * 10**9
    assert space_limit("1GB") == 10**9
