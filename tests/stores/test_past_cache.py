"""Writing past the page cache: the same bytes, however they lie and whatever the system can."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from onward.errors import NoSpace, StoreError
from onward.stores import LocalStore
from onward.stores.filesystem import RealFileSystem
from onward.stores.past_cache import BLOCK_BYTES, WORTH_BYTES, PastCache

MIB = 1 << 20


class Watched(RealFileSystem):
    """Says how each write went, and refuses what real direct writes refuse."""

    def __init__(self, *, promises: bool = True, refuses: bool = False) -> None:
        self.promises, self.refuses = promises, refuses
        self.direct = False
        self.past: int = 0
        self.through: int = 0

    def bypass_cache(self, file: int, bypass: bool) -> bool:
        self.direct = bypass and self.promises
        return self.direct

    def write(self, file: int, data: memoryview) -> int:
        if self.direct:
            address = np.frombuffer(data, np.uint8).ctypes.data
            position = os.lseek(file, 0, os.SEEK_CUR)
            wrong = address % BLOCK_BYTES or position % BLOCK_BYTES or data.nbytes % BLOCK_BYTES
            if wrong or self.refuses:
                raise OSError(errno.EINVAL, "not aligned")
            self.past += data.nbytes
        else:
            self.through += data.nbytes
        return super().write(file, data[: 3 * MIB])  # a system may write less than it is given


def aligned(size: int, *, offset: int = 0, seed: int = 0) -> memoryview:
    """A read-only view of noise whose address is `offset` beyond a block."""
    memory = np.frombuffer(mmap.mmap(-1, size + offset), np.uint8)
    memory[:] = np.random.default_rng(seed).integers(0, 256, memory.size, dtype=np.uint8)
    return memory[offset:].data.toreadonly()


SHAPES = {
    "all in whole blocks": [aligned(BLOCK_BYTES), aligned(20 * MIB)],
    "a header, then blocks": [memoryview(b"x" * 4096), *(aligned(8 * MIB, seed=s) for s in (1, 2))],
    "an odd header": [memoryview(b"x" * 1000), aligned(20 * MIB)],
    "odd sizes between": [aligned(9 * MIB), memoryview(b"y" * 77), aligned(9 * MIB, seed=3)],
    "lying badly": [aligned(10 * MIB, offset=64), aligned(10 * MIB, offset=1)],
    "many small": [memoryview(bytes([n % 256]) * 777) for n in range(30_000)],
    "a tail": [aligned(16 * MIB + 5)],
    "empty views": [memoryview(b""), aligned(17 * MIB), memoryview(b"")],
}


@pytest.mark.parametrize("views", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize(
    ("promises", "refuses"), [(True, False), (False, False), (True, True)],
    ids=["past", "through", "refused"],
)  # fmt: skip
def test_the_file_holds_the_bytes(
    tmp_path: Path, views: list[memoryview], promises: bool, refuses: bool
) -> None:
    """For every way in which views may lie, on systems that can, cannot, or find out late."""
    watched = Watched(promises=promises, refuses=refuses)
    store = LocalStore(tmp_path, filesystem=watched)
    content = b"".join(views)
    assert len(content) >= WORTH_BYTES
    store.put("big", views, len(content))
    assert (tmp_path / "big").read_bytes() == content
    if promises and not refuses:
        assert watched.through < BLOCK_BYTES
    else:
        assert watched.past == 0


def test_on_this_machines_own_file_system(tmp_path: Path) -> None:
    """Whatever it can: the real calls, with sizes that leave a tail."""
    views = [memoryview(b"h" * 4096), aligned(24 * MIB), memoryview(b"tail")]
    LocalStore(tmp_path).put("big", views, sum(view.nbytes for view in views))
    assert (tmp_path / "big").read_bytes() == b"".join(views)


def test_what_can_be_written_through_is_copied(tmp_path: Path) -> None:
    """A generator may use its buffer again for the next chunk."""

    def chunks() -> Iterator[memoryview]:
        buffer = bytearray(8 * MIB)
        for number in range(4):
            buffer[:] = bytes([number]) * len(buffer)
            yield memoryview(buffer)

    LocalStore(tmp_path).put("big", chunks(), 32 * MIB)
    content = (tmp_path / "big").read_bytes()
    assert [content[n * 8 * MIB] for n in range(4)] == [0, 1, 2, 3]


class Full(Watched):
    """A disk that takes only so much."""

    def write(self, file: int, data: memoryview) -> int:
        if self.past >= 20 * MIB:
            raise OSError(errno.ENOSPC, "no space left")
        return super().write(file, data)


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """The error of the writing thread comes out of `put`, typed; no part of the file stays."""
    views = [aligned(8 * MIB, seed=seed) for seed in range(5)]
    with pytest.raises(NoSpace):
        LocalStore(tmp_path, filesystem=Full()).put("big", views, 40 * MIB)
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path) -> None:
    def chunks() -> Iterator[memoryview]:
        yield aligned(20 * MIB)
        raise ValueError("the source broke off")

    with pytest.raises(ValueError, match="broke off"):
        LocalStore(tmp_path).put("big", chunks(), 40 * MIB)
    with pytest.raises(StoreError):
        LocalStore(tmp_path).put("big", [aligned(20 * MIB)], 40 * MIB)
    assert list(tmp_path.iterdir()) == []


def test_it_never_runs_far_ahead(tmp_path: Path) -> None:
    """Only a few views wait to be written: the source is asked for no more meanwhile."""
    watched = Watched()
    file = watched.open_new(tmp_path / "x")
    writing = PastCache(watched, file)
    for _ in range(50):
        writing.write(memoryview(b"z" * BLOCK_BYTES))
        assert len(writing._waiting) <= 3
    writing.finish()
    writing.close()
    watched.close(file)
    assert (tmp_path / "x").stat().st_size == 50 * BLOCK_BYTES
