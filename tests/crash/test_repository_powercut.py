"""Power cuts at every moment of everything that changes an output on a local disk.

A cut leaves what was synced, and of the rest anything: see `tests/stores/powercut.py`.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from onward.errors import OnwardError
from onward.repository import Repository, Writer
from onward.repository.collecting import Collector
from onward.repository.repacking import Repacker
from onward.repository.retention import Retention
from onward.stores import LocalStore, MemoryStore
from tests.repository.outputs import (
    Picture,
    RecordFirst,
    at_step,
    facts,
    filled,
    going_on,
    leaf,
    look,
    new_output,
    quick_temporary_folder,
    save_next,
    state,
    with_three,
)
from tests.stores.filesystems import RecordingFileSystem
from tests.stores.powercut import Image, images


@dataclass(frozen=True)
class Act:
    """Something that is done, and the picture of the output once it is acknowledged."""

    name: str
    do: Callable[[Repository, Writer], object]
    changed: Callable[[Picture], Picture]
    prepare: Callable[[Repository, Writer], object] = lambda repository, writer: None

    def __str__(self) -> str:
        return self.name


def _prune(collector: Collector) -> None:
    collector.prune(Retention(keep_last=1))
    collector.sweep(grace_s=0, now_s=0)


_ACTS = [
    Act(
        "save",
        lambda repository, writer: writer.commit(state(4), facts(4, at_step(repository, 3))),
        lambda old: old.and_checkpoint(4, state(4)),
    ),
    Act(
        "claim",
        lambda repository, _: repository.claim("another writer"),
        lambda old: replace(old, generation=old.generation + 1),
    ),
    Act(
        "alias",
        lambda repository, _: repository.set_alias("champion", at_step(repository, 3).checkpoint),
        lambda old: replace(old, aliases={"champion": 3}),
    ),
    Act(
        "drop",
        lambda repository, _: repository.drop([at_step(repository, 2).checkpoint]),
        lambda old: old.without(2),
    ),
]


def _prepare_repack(repository: Repository, writer: Writer) -> None:
    for step in (7, 8):
        tree = {"kept": leaf(np.arange(9)), **({"gone": leaf(np.zeros(50))} if step == 7 else {})}
        writer.commit(tree, facts(step))
    repository.drop([at_step(repository, 7).checkpoint])


def _repack(repository: Repository, writer: Writer) -> None:
    collector = Collector(repository)
    assert len(Repacker(collector).repack().packs) == 1
    collector.sweep(grace_s=0, now_s=0)


_ACTS += [
    Act(
        "prune",
        lambda repository, _: _prune(Collector(repository)),
        lambda old: old.without(2),
    ),
    Act("repack", _repack, lambda old: old, _prepare_repack),
]


@pytest.fixture
def root() -> Iterator[Path]:
    with quick_temporary_folder() as folder:
        yield folder


def _stored(image: Image, folder: Path) -> MemoryStore:
    """What a store finds in the files of an image; temporary files are none of its objects."""
    objects = {
        path.relative_to(folder).as_posix(): data
        for path, data in image.items()
        if not path.name.startswith(".tmp-")
    }
    return filled(objects)


def _checks(
    filesystem: RecordingFileSystem, root: Path, acknowledged: list[tuple[int, Picture]]
) -> Iterator[str]:
    """What is wrong, or '', for each different image from the first acknowledgement on.

    `acknowledged` says after how many operations a call returned, and what it had made. Until the
    next one returns, its picture may be found already.
    """
    seen: set[tuple[frozenset[tuple[Path, bytes]], int]] = set()
    for cut in range(acknowledged[0][0], len(filesystem.done) + 1):
        last = sum(at <= cut for at, _ in acknowledged) - 1
        allowed = [picture for _, picture in acknowledged[last : last + 2]]
        for image in images(filesystem.done[:cut], root):
            mark = (frozenset(image.items()), last)
            if mark in seen:
                continue
            seen.add(mark)
            store = _stored(image, root / "out")
            try:
                picture = look(store)
                save_next(store)
                look(store)
            except (OnwardError, AssertionError) as error:
                yield f"after operation {cut}: {error}"
            else:
                yield "" if picture in allowed else f"after operation {cut}: {picture}"


def _cut_during(act: Act, root: Path, *, deaf_to: str = "") -> Iterator[str]:
    filesystem = RecordingFileSystem()
    store = LocalStore(root / "out", filesystem=filesystem)
    repository = with_three(store)
    writer = going_on(repository)
    act.prepare(repository, writer)
    old = look(store)
    began = len(filesystem.done)
    filesystem._deaf_to = deaf_to
    act.do(repository, writer)
    acknowledged = [(began, old), (len(filesystem.done), act.changed(old))]
    assert look(store) == act.changed(old)
    return _checks(filesystem, root, acknowledged)


@pytest.mark.parametrize("act", _ACTS, ids=str)
def test_power_cut_at_every_moment(root: Path, act: Act) -> None:
    """Whatever was acknowledged survives, whole; what was under way is there whole or not at all;
    and the next save works.
    """
    checks = list(_cut_during(act, root))
    assert [wrong for wrong in checks if wrong] == []
    assert len(checks) >= 10


def test_power_cut_while_an_output_begins(root: Path) -> None:
    """As soon as there is an output it is whole, and acknowledged saves are there."""
    filesystem = RecordingFileSystem()
    repository = new_output(LocalStore(root / "out", filesystem=filesystem))
    acknowledged = [(len(filesystem.done), Picture())]
    writer = repository.claim("first")
    acknowledged.append((len(filesystem.done), Picture(generation=1)))
    writer.commit(state(1), facts(1))
    picture = Picture(generation=1).and_checkpoint(1, state(1))
    acknowledged.append((len(filesystem.done), picture))
    checks = list(_checks(filesystem, root, acknowledged))
    assert [wrong for wrong in checks if wrong] == []
    assert len(checks) >= 20


@pytest.mark.parametrize("deaf_to", ["fsync", "fsync_folder"])
def test_disk_that_forgets_is_found_out(root: Path, deaf_to: str) -> None:
    """The check above has teeth: a store that leaves out either kind of sync loses a save."""
    assert any(_cut_during(_ACTS[0], root, deaf_to=deaf_to))


def test_record_before_its_pack_is_found_out(root: Path) -> None:
    """The check above has teeth: the order of a save matters."""
    filesystem = RecordingFileSystem()
    repository = with_three(RecordFirst(LocalStore(root / "out", filesystem=filesystem)))
    old = look(LocalStore(root / "out"))
    began = len(filesystem.done)
    going_on(repository).commit(state(4), facts(4))
    acknowledged = [(began, old), (len(filesystem.done), old.and_checkpoint(4, state(4)))]
    assert any(_checks(filesystem, root, acknowledged))


class _OnceStale(RecordingFileSystem):
    """A network disk that does not answer one sync of the log's folder, which is not done."""

    def __init__(self) -> None:
        super().__init__()
        self.stale = False

    def fsync_folder(self, path: Path) -> None:
        if self.stale and path.name == "log":
            self.stale = False
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        super().fsync_folder(path)


def test_power_cut_after_a_reply_that_was_lost(root: Path) -> None:
    """To see one's own record in its slot is not enough: the store must vouch for it."""
    filesystem = _OnceStale()
    repository = new_output(LocalStore(root / "out", filesystem=filesystem))
    writer = repository.claim("first")
    writer.commit(state(1), facts(1))
    filesystem.stale = True
    writer.commit(state(2), facts(2))
    picture = Picture(generation=1).and_checkpoint(1, state(1)).and_checkpoint(2, state(2))
    checks = list(_checks(filesystem, root, [(len(filesystem.done), picture)]))
    assert checks
    assert not any(checks)
