"""Transfers: cut connections, bad leftovers, full disks, several at once."""

from __future__ import annotations

import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pytest
from blake3 import blake3

from onward.errors import Damaged, NoSpace, TransferFailed, Unreachable
from onward.repository import fetching
from onward.repository.fetching import check_space, fetch_pack, transfer_all
from onward.repository.manifest import PackRef
from onward.stores import LocalStore, MemoryStore

KEY = "onward/packs/aa.safetensors"
DATA = bytes(range(256)) * 40  # 10,240 bytes, read in ranges of 1,000


class Remote(MemoryStore):
    """Keeps the ranges that were read, and breaks off at chosen reads (counted from 1)."""

    def __init__(self, *, fails_at: set[int] | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at or set()
        self.reads: list[tuple[int, int | None]] = []

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        self.reads.append((start, size_bytes))
        if len(self.reads) in self.fails_at:
            raise Unreachable("cut off, on purpose")
        return super().read(key, start, size_bytes)


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_RANGE_BYTES", 1000)
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)


def remote_with(data: bytes, *, fails_at: set[int] | None = None) -> Remote:
    remote = Remote(fails_at=fails_at)
    remote.put(KEY, [data], len(data))
    return remote


def ref(data: bytes = DATA) -> PackRef:
    return PackRef(len(data), blake3(data).hexdigest())


def test_a_cut_connection_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """No byte that arrived is asked for again."""
    remote = remote_with(DATA, fails_at={4, 5, 9})
    local = LocalStore(tmp_path)
    passed: list[int] = []
    fetch_pack(remote, local, KEY, ref(), progress=passed.append)
    assert local.read(KEY) == DATA
    assert sum(passed) == len(DATA)
    answered = [start for i, (start, _) in enumerate(remote.reads, 1) if i not in remote.fails_at]
    assert answered == list(range(0, len(DATA), 1000))


def test_a_store_that_stays_away_ends_the_transfer_and_keeps_what_came(tmp_path: Path) -> None:
    """The next call begins behind the bytes that are here."""
    local = LocalStore(tmp_path)
    with pytest.raises(TransferFailed, match="could not be fetched"):
        fetch_pack(remote_with(DATA, fails_at=set(range(5, 100))), local, KEY, ref())
    again = remote_with(DATA)
    fetch_pack(again, local, KEY, ref())
    assert again.reads[0] == (4000, 1000)
    assert local.read(KEY) == DATA


def test_what_is_here_and_whole_is_not_fetched(tmp_path: Path) -> None:
    """Only its digest is taken."""
    local = LocalStore(tmp_path)
    fetch_pack(remote_with(DATA), local, KEY, ref())
    remote = remote_with(DATA)
    fetch_pack(remote, local, KEY, ref())
    assert remote.reads == []


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
    assert remote.reads == []
    check_space(tmp_path / "neither", 10)


def test_all_transfers_are_done_and_their_bytes_counted() -> None:
    """More transfers than run at once."""
    passed: list[int] = []
    transfer_all([lambda progress, n=n: progress(n) for n in range(20)], passed.append)
    assert sum(passed) == sum(range(20))


def test_the_first_error_is_raised_and_ends_the_others() -> None:
    """Whoever still transfers stops at its next byte."""
    stopped = threading.Event()

    def fails(progress: fetching.Progress) -> None:
        raise Damaged("bad")

    def goes_on(progress: fetching.Progress) -> None:
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
