"""Transfers: cut connections, bad leftovers, full disks, several at once."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path

import pytest
from blake3 import blake3

from onward.errors import Damaged, NoSpace, StoreError, TransferFailed, Unreachable
from onward.repository import fetching, ranges
from onward.repository.fetching import check_space, fetch_pack, transfer_all
from onward.repository.manifest import PackRef
from onward.stores import LocalStore, MemoryStore

KEY = "onward/packs/aa.safetensors"
DATA = bytes(range(256)) * 40  # 10,240 bytes, read in ranges of 1,000


class Remote(MemoryStore):
    """Keeps the ranges that were asked for, and breaks off so often at some of them."""

    def __init__(self, *, fails_at: Mapping[int, int] | None = None) -> None:
        super().__init__()
        self.failures = dict(fails_at or {})
        self.asked: list[int] = []
        self.answered: list[int] = []

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        self.asked.append(start)
        if self.failures.get(start):
            self.failures[start] -= 1
            raise Unreachable("cut off, on purpose")
        self.answered.append(start)
        return super().read(key, start, size_bytes)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranges, "_RANGE_BYTES", 1000)
    monkeypatch.setattr(ranges.time, "sleep", lambda _: None)


def remote_with(data: bytes, *, fails_at: Mapping[int, int] | None = None) -> Remote:
    remote = Remote(fails_at=fails_at)
    remote.put(KEY, [data], len(data))
    return remote


def ref(data: bytes = DATA) -> PackRef:
    return PackRef(len(data), blake3(data).hexdigest())


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """No byte that arrived is asked for again."""
    remote = remote_with(DATA, fails_at={0: 1, 3000: 2, 9000: 1})
    local = LocalStore(tmp_path)
    passed: list[int] = []
    fetch_pack(remote, local, KEY, ref(), progress=passed.append)
    assert local.read(KEY) == DATA
    assert sum(passed) == len(DATA)
    assert sorted(remote.answered) == list(range(0, len(DATA), 1000))


def test_a_store_that_stays_away_ends_the_transfer_and_keeps_what_came(tmp_path: Path) -> None:
    """The next call begins behind what is here without a gap, whatever came beyond the gap."""
    local = LocalStore(tmp_path)
    with pytest.raises(TransferFailed, match="could not be fetched"):
        fetch_pack(remote_with(DATA, fails_at={4000: 100}), local, KEY, ref())
    assert fetching.fetched_bytes(local, KEY) == 4000
    again = remote_with(DATA)
    fetch_pack(again, local, KEY, ref())
    assert sorted(again.answered) == list(range(4000, len(DATA), 1000))
    assert local.read(KEY) == DATA


def test_ranges_of_one_pack_are_under_way_together(tmp_path: Path) -> None:
    """The first is answered only once three others were asked for, and they come in its order."""
    gate = threading.Barrier(4, timeout=30)

    class Together(Remote):
        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            if start < 4000:
                gate.wait()
            return super().read(key, start, size_bytes)

    remote = Together()
    remote.put(KEY, [DATA], len(DATA))
    local = LocalStore(tmp_path)
    fetch_pack(remote, local, KEY, ref())
    assert local.read(KEY) == DATA


def test_a_store_that_answers_less_than_asked_for_is_asked_again(tmp_path: Path) -> None:
    """As proxies do: each range is completed before it is appended."""

    class Short(Remote):
        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            return super().read(key, start, min(size_bytes or 0, 300))

    remote = Short()
    remote.put(KEY, [DATA], len(DATA))
    local = LocalStore(tmp_path)
    fetch_pack(remote, local, KEY, ref())
    assert local.read(KEY) == DATA


def test_nothing_is_kept_beyond_a_gap(tmp_path: Path) -> None:
    """Later bytes would stand where others belong, and the next call would build on them."""

    class Gap(Remote):
        def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
            return b"" if start == 3000 else super().read(key, start, size_bytes)

    remote = Gap()
    remote.put(KEY, [DATA], len(DATA))
    local = LocalStore(tmp_path)
    with pytest.raises(Damaged, match="cut short"):
        fetch_pack(remote, local, KEY, ref())
    assert fetching.fetched_bytes(local, KEY) == 3000


def test_what_arrived_is_durable_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Synced on the way, and once more when all of it is written."""
    local, sizes = LocalStore(tmp_path), []
    monkeypatch.setattr(ranges, "_SYNC_BYTES", 3000)
    real = os.fsync

    def fsync(file: int) -> None:
        real(file)
        assert not (tmp_path / KEY).exists()
        sizes.append(os.fstat(file).st_size)

    monkeypatch.setattr(ranges.os, "fsync", fsync)
    fetch_pack(remote_with(DATA), local, KEY, ref())
    assert sizes[-1] == len(DATA)
    assert len(sizes) > 1


def test_a_failed_sync_on_the_way_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of it once; a later sync that succeeds proves nothing."""
    monkeypatch.setattr(ranges, "_SYNC_BYTES", 3000)
    errors = iter([OSError(errno.EIO, "disk")])

    def fsync(file: int) -> None:
        for error in errors:
            raise error

    monkeypatch.setattr(ranges.os, "fsync", fsync)
    with pytest.raises(StoreError):
        fetch_pack(remote_with(DATA), LocalStore(tmp_path), KEY, ref())
    assert not (tmp_path / KEY).exists()


def test_what_is_here_and_whole_is_not_fetched(tmp_path: Path) -> None:
    """Only its digest is taken."""
    local = LocalStore(tmp_path)
    fetch_pack(remote_with(DATA), local, KEY, ref())
    remote = remote_with(DATA)
    fetch_pack(remote, local, KEY, ref())
    assert remote.asked == []


@pytest.mark.parametrize("left", [b"x" * 3000, DATA[:2000] + b"x" * 9000], ids=["bad", "too long"])
def test_a_bad_leftover_is_fetched_anew(tmp_path: Path, left: bytes) -> None:
    """What a disk did to an unfinished file must not be blamed on the store."""
    local = LocalStore(tmp_path)
    partial = tmp_path / "onward" / "incoming" / "aa.safetensors"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(left)
    fetch_pack(remote_with(DATA), local, KEY, ref())
    assert local.read(KEY) == DATA


def test_a_file_that_went_bad_here_is_fetched_anew(tmp_path: Path) -> None:
    """Length alone proves nothing."""
    local = LocalStore(tmp_path)
    local.put(KEY, [bytes(len(DATA))], len(DATA))
    fetch_pack(remote_with(DATA), local, KEY, ref())
    assert local.read(KEY) == DATA


@pytest.mark.parametrize("stored", [DATA[:-1], DATA[:-1] + b"!"], ids=["cut", "flipped"])
def test_damage_at_the_store_is_found_and_nothing_is_kept(tmp_path: Path, stored: bytes) -> None:
    """Unverified bytes never get the name of a pack."""
    local = LocalStore(tmp_path)
    with pytest.raises(Damaged):
        fetch_pack(remote_with(stored), local, KEY, ref())
    assert not (tmp_path / KEY).exists()


def test_too_little_disk_is_said_before_the_transfer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder need not exist for its disk to be asked."""
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(100, 90, 10))
    remote = remote_with(DATA)
    with pytest.raises(NoSpace, match="10,240 bytes"):
        fetch_pack(remote, LocalStore(tmp_path / "not" / "yet"), KEY, ref())
    assert remote.asked == []
    check_space(tmp_path / "neither", 10)


def test_all_transfers_are_done_and_their_bytes_counted() -> None:
    """More transfers than run at once."""
    passed: list[int] = []
    transfer_all([lambda progress, n=n: progress(n) for n in range(20)], passed.append)
    assert sum(passed) == sum(range(20))


def test_the_first_error_is_raised_and_ends_the_others() -> None:
    """Whoever still transfers stops at its next byte."""
    stopped = threading.Event()

    def fails(progress: ranges.Progress) -> None:
        raise Damaged("bad")

    def goes_on(progress: ranges.Progress) -> None:
        try:
            for _ in range(100_000):
                progress(1)
                if stopped.wait(0.001):
                    return
        finally:
            stopped.set()

    with pytest.raises(Damaged, match="bad"):
        transfer_all([goes_on, fails])
    assert stopped.is_set()
