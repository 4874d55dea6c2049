"""A working copy: what a pull moves, in which order a push goes, who wins."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from collections.abc import Iterable
from pathlib import Path

import pytest

from onward.errors import Damaged, Fenced, Missing, NoSpace, Unreachable
from onward.repository import open_repository, read_state, verify
from onward.repository.collecting import Collector
from onward.repository.manifest import manifest_key
from onward.repository.mirror import Mirror, missing_bytes
from onward.repository.packs import pack_key
from onward.repository.repacking import Repacker
from onward.stores import Chunk, Fault, FaultPlan, Faulty, LocalStore, MemoryStore, Store
from tests.repository.checkpoints import commit, noise, output_with, value_of


def mirror_of(remote: Store, folder: Path) -> Mirror:
    mirror = Mirror(LocalStore(folder / "output"), remote)
    mirror.pull_log()
    return mirror


def packs_read(plan: FaultPlan) -> set[str]:
    return {call.key for call in plan.calls if call.verb == "read" and "/packs/" in call.key}


def test_of_fifty_checkpoints_only_the_packs_of_one_are_moved(tmp_path: Path) -> None:
    """A frozen tensor's pack and the newest one: two of fifty."""
    remote = MemoryStore()
    writer = output_with(remote).claim("test")
    frozen = noise(1, 100_000)
    for step in range(1, 51):
        commit(writer, step, state={"frozen": frozen, "w": noise(step + 1, 1000)})
    watched = Faulty(remote)
    mirror = mirror_of(watched, tmp_path)
    newest = mirror.remote.history.latest()
    assert newest is not None
    manifest = mirror.pull_checkpoint(newest)
    assert packs_read(watched.plan) == {pack_key(pack) for pack in manifest.packs}
    assert len(manifest.packs) == 2
    state = read_state(mirror.local_store, manifest)
    assert state["frozen"].data.tobytes() == frozen.data.tobytes()


def test_several_checkpoints_share_what_they_share(tmp_path: Path) -> None:
    """Each pack is fetched once, and what is here already not at all."""
    remote = MemoryStore()
    writer = output_with(remote).claim("test")
    for step in (1, 2, 3):
        commit(writer, step, state={"frozen": noise(0, 5000), "w": noise(step, 100)})
    watched = Faulty(remote)
    mirror = mirror_of(watched, tmp_path)
    manifests = mirror.manifests(mirror.remote.history.live())
    mirror.pull(manifests)
    reads = [call.key for call in watched.plan.calls if "/packs/" in call.key]
    assert len(reads) == len(set(reads)) == 3
    assert missing_bytes(mirror.local_store, manifests) == 0
    mirror.pull(manifests)
    assert len([call for call in watched.plan.calls if "/packs/" in call.key]) == 3


def test_too_little_disk_for_all_together_is_said_before_any_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pack alone would fit."""
    remote = MemoryStore()
    writer = output_with(remote).claim("test")
    for step in (1, 2, 3):
        commit(writer, step, state={"w": noise(step, 1000)})
    watched = Faulty(remote)
    mirror = mirror_of(watched, tmp_path)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 0, 2500))
    with pytest.raises(NoSpace):
        mirror.pull(mirror.manifests(mirror.remote.history.live()))
    assert packs_read(watched.plan) == set()


def test_commits_are_pushed_in_order_each_complete_before_its_record(tmp_path: Path) -> None:
    """Pack, manifest, record; then the next checkpoint."""
    watched = Faulty(MemoryStore())
    mirror = mirror_of(watched, tmp_path)
    writer = mirror.claim("test")
    first, second = commit(writer, 1), commit(writer, 2)
    before = len(watched.plan.calls)
    pushed: list[str] = []
    mirror.push(on_pushed=lambda c: pushed.append(c.checkpoint))
    assert pushed == [first.checkpoint, second.checkpoint]
    kinds = [
        call.key.split("/")[1] for call in watched.plan.calls[before:]
        if call.verb in ("put", "create")
    ]  # fmt: skip
    assert kinds == ["packs", "manifests", "log"] * 2
    remote = open_repository(watched)
    assert verify(remote, every_byte=True).intact
    latest = remote.history.latest()
    assert latest is not None
    assert value_of(watched, remote, latest) == 2


def test_what_an_earlier_process_left_is_pushed_at_the_next_start(tmp_path: Path) -> None:
    """Acknowledged locally, the process gone: the commits still arrive."""
    remote = MemoryStore()
    writer = mirror_of(remote, tmp_path).claim("dies")
    left = [commit(writer, step).checkpoint for step in (1, 2)]
    again = Mirror(LocalStore(tmp_path / "output"), remote)
    assert again.pull_log().folder is None
    assert list(open_repository(remote).history.commits) == left


def test_a_store_that_is_away_delays_the_push_and_loses_nothing(tmp_path: Path) -> None:
    """The next push brings all of it, each commit once."""
    faulty = Faulty(MemoryStore())
    mirror = mirror_of(faulty, tmp_path)
    writer = mirror.claim("test")
    commit(writer, 1)
    faulty.plan.faults = (Fault(faulty.plan.count("put") + 1, verb="put"),)
    with pytest.raises(Unreachable):
        mirror.push()
    commit(writer, 2)
    assert [c.step for c in mirror.push()] == [1, 2]
    assert [c.step for c in open_repository(faulty).history.live()] == [1, 2]


def test_a_push_whose_answer_was_lost_is_not_made_twice(tmp_path: Path) -> None:
    """The record is at the store although this process never heard of it."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("test")
    commit(writer, 1)
    Mirror(LocalStore(tmp_path / "output"), remote).push()  # as if by ourselves, unheard
    assert [c.step for c in mirror.push()] == [1]
    commit(writer, 2)
    mirror.push()
    assert [c.step for c in open_repository(remote).history.live()] == [1, 2]


def test_an_alias_made_meanwhile_is_kept_and_the_commit_follows_it(tmp_path: Path) -> None:
    """Somebody else's record took the slot: not a conflict."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("test")
    first = commit(writer, 1)
    mirror.push()
    open_repository(remote).set_alias("mine", first.checkpoint)
    second = commit(writer, 2)
    mirror.push()
    history = open_repository(remote).history
    assert history.aliases == {"mine": first.checkpoint}
    latest = history.latest()
    assert latest is not None
    assert latest.checkpoint == second.checkpoint


def test_who_was_taken_over_cannot_push_and_keeps_everything(tmp_path: Path) -> None:
    """Set aside as a whole output, and the working copy goes on with the winner's log."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("loser")
    commit(writer, 1)
    mirror.push()
    lost = commit(writer, 2)
    winner = open_repository(remote).claim("the winner")
    won = commit(winner, 10)
    with pytest.raises(Fenced, match=r"(?s)the winner"):
        mirror.push()

    again = Mirror(LocalStore(tmp_path / "output"), remote)
    stranded = again.pull_log()
    assert [c.checkpoint for c in stranded.commits] == [lost.checkpoint]
    assert "the winner" in stranded.why
    assert stranded.folder is not None
    kept_store = LocalStore(stranded.folder)
    kept = open_repository(kept_store)
    assert value_of(kept_store, kept, kept.history.commits[lost.checkpoint]) == 2
    assert lost.checkpoint not in again.local.history.commits
    latest = again.local.history.latest()
    assert latest is not None
    assert latest.checkpoint == won.checkpoint
    with pytest.raises(Missing):
        again.local_store.size(manifest_key(lost.checkpoint))
    assert again.pull_log().folder is None


def test_packs_of_one_commit_go_up_together(tmp_path: Path) -> None:
    """None of them is answered before the other one has come; the manifest comes after both."""
    both = threading.Barrier(2, timeout=30)

    class Together(MemoryStore):
        def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
            if "/packs/" in key:
                both.wait()
            super().put(key, chunks, size_bytes)

    mirror = mirror_of(Together(), tmp_path)
    writer = mirror.claim("test")
    commit(writer, 1, state={"a": noise(1, 100)})
    shares = commit(writer, 2, state={"a": noise(1, 100), "b": noise(2, 100)})
    # As if the first were not to be pushed: both packs are the second's, whose parent is missing.
    mirror.unpushed = lambda: [shares]  # type: ignore[method-assign]
    with pytest.raises(Damaged, match="parent"):
        mirror.push()
    assert both.n_waiting == 0
    assert len(list(mirror.remote.store.list("onward/packs/"))) == 2


def test_a_pack_that_is_at_the_store_need_not_be_here_to_be_shared(tmp_path: Path) -> None:
    """A new process knows nothing of what was pushed; it asks the store first."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("test")
    first = commit(writer, 1, state={"frozen": noise(0, 5000)})
    mirror.push()
    commit(writer, 2, state={"frozen": noise(0, 5000), "w": noise(2, 100)})
    for pack in mirror.local.manifest(first).packs:
        mirror.local_store.delete(pack_key(pack))
    again = Mirror(LocalStore(tmp_path / "output"), remote)
    assert again.pull_log().folder is None
    assert [c.step for c in again.remote.history.live()] == [1, 2]
    assert verify(open_repository(remote), every_byte=True).intact


def test_a_pack_dropped_meanwhile_is_pushed_under_another_name(tmp_path: Path) -> None:
    """Its bytes are on this machine; so are those of the commits that go on reusing it."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("test")
    frozen = noise(0, 5000)
    first = commit(writer, 1, state={"frozen": frozen})
    commit(writer, 2, state={"other": noise(9, 10)})
    mirror.push()
    writer.base_on(mirror.local.manifest(first))
    shares = [commit(writer, step, state={"frozen": frozen}) for step in (3, 4)]
    open_repository(remote).drop([first.checkpoint])
    watched = Faulty(remote)
    mirror.remote.store = mirror.remote.log.store = watched
    assert mirror.push() == shares
    packs = [c.key for c in watched.plan.calls if c.verb == "put" and "/packs/" in c.key]
    assert len(packs) == 1
    again = open_repository(remote)
    assert verify(again, every_byte=True).intact
    for pushed in again.history.live()[1:]:
        state = read_state(remote, again.manifest(pushed))
        assert state["frozen"].data.tobytes() == frozen.data.tobytes()
    assert verify(again).leftovers == []


def test_a_repack_beside_training_on_a_working_copy(tmp_path: Path) -> None:
    """The base of the run is moved at the remote output; pushes go on, before and after."""
    remote = MemoryStore()
    first = output_with(remote).claim("first")
    frozen = noise(0, 5000)
    commit(first, 1, state={"frozen": frozen, "w": noise(1, 50_000)})
    commit(first, 2, state={"frozen": frozen, "w": noise(2, 10)})
    mirror = mirror_of(remote, tmp_path)
    latest = mirror.remote.history.latest()
    assert latest is not None
    manifest = mirror.pull_checkpoint(latest)
    elsewhere = open_repository(remote)
    elsewhere.drop([elsewhere.history.live()[0].checkpoint])
    assert len(Repacker(Collector(elsewhere)).repack().packs) == 1
    Collector(elsewhere).sweep(grace_s=0, now_s=0)

    writer = mirror.claim("second")

    assert verify(mirror.local, commits=mirror.local.refresh().live()).intact
    writer.base_on(manifest)  # as the old manifest has it
    commit(writer, 3, state={"frozen": frozen, "w": noise(3, 10)})
    mirror.push()
    writer.base_on(mirror.local.manifest(latest))
    commit(writer, 4, state={"frozen": frozen, "w": noise(4, 10)})
    mirror.push()
    again = open_repository(remote)
    assert [c.step for c in again.history.live()] == [2, 3, 4]
    assert verify(again, every_byte=True).intact


def test_a_leftover_commit_that_is_damaged_here_does_not_block_the_output(tmp_path: Path) -> None:
    """Its pack is gone: set aside, and the store's newest is the newest."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    writer = mirror.claim("test")
    commit(writer, 1)
    mirror.push()
    broken = commit(writer, 2)
    for pack in mirror.local.manifest(broken).packs:
        mirror.local_store.delete(pack_key(pack))
    again = Mirror(LocalStore(tmp_path / "output"), remote)
    stranded = again.pull_log()
    assert [c.checkpoint for c in stranded.commits] == [broken.checkpoint]
    assert [c.step for c in again.local.history.live()] == [1]


def test_a_local_log_that_is_damaged_is_kept_and_made_anew(tmp_path: Path) -> None:
    """The store's log is the truth."""
    remote = MemoryStore()
    mirror = mirror_of(remote, tmp_path)
    commit(mirror.claim("test"), 1)
    mirror.push()
    (tmp_path / "output/onward/log/00000000000000000001.json").write_bytes(b"{}")
    again = Mirror(LocalStore(tmp_path / "output"), remote)
    stranded = again.pull_log()
    assert stranded.folder is not None
    assert (stranded.folder / "onward/log/00000000000000000001.json").read_bytes() == b"{}"
    assert [c.step for c in again.local.history.live()] == [1]


def test_another_output_at_the_same_place_does_not_mix_with_the_old_one(tmp_path: Path) -> None:
    """Somebody removed the output and began it anew."""
    old = MemoryStore()
    mirror = mirror_of(old, tmp_path)
    unpushed = commit(mirror.claim("test"), 5)
    new = MemoryStore()
    output_with(new, 1)
    again = Mirror(LocalStore(tmp_path / "output"), new)
    stranded = again.pull_log()
    assert [c.checkpoint for c in stranded.commits] == [unpushed.checkpoint]
    assert [c.step for c in again.local.history.live()] == [1]


def test_a_long_log_is_pulled_by_way_of_its_summary(tmp_path: Path) -> None:
    """Few requests for many checkpoints, and training goes on from the newest."""
    remote = MemoryStore()
    output_with(remote, *range(1, 101))
    watched = Faulty(remote)
    mirror = mirror_of(watched, tmp_path)
    assert watched.plan.count() < 80
    writer = mirror.claim("test")
    commit(writer, 101)
    mirror.push()
    assert [c.step for c in open_repository(remote).history.live()] == list(range(1, 102))
    assert len(open_repository(mirror.local_store).history.commits) == 101


def test_damage_at_the_store_is_found_by_the_pull(tmp_path: Path) -> None:
    """A flipped bit in a pack: nothing of it is kept under the pack's name."""
    remote = MemoryStore()
    repository = output_with(remote, 1)
    newest = repository.history.latest()
    assert newest is not None
    (pack,) = repository.manifest(newest).packs
    data = bytearray(remote.read(pack_key(pack)))
    data[-1] ^= 1
    remote.put(pack_key(pack), [bytes(data)], len(data))
    mirror = mirror_of(remote, tmp_path)
    with pytest.raises(Damaged, match=pack):
        mirror.pull_checkpoint(newest)
    assert not (tmp_path / "output" / pack_key(pack)).exists()
