"""Power cuts at every moment of everything that changes an output on a local disk.

A cut leaves what was synced, and of the rest anything: see `tests/stores/powercut.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from onward.errors import OnwardError
from onward.repository import Repository, Writer
from onward.stores import LocalStore, MemoryStore
from tests.repository.outputs import (
    Picture,
    Wrapped,
    at_step,
    facts,
    filled,
    going_on,
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

    def __str__(self) -> str:
        return self.name


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


def _violations(
    filesystem: RecordingFileSystem, root: Path, *, since: int, allowed: Callable[[int], object]
) -> tuple[int, list[str]]:
    """Every different image after each operation from `since` on, and what is wrong in them.

    `allowed` gives the pictures that may be found after so many operations.
    """
    seen: set[tuple[frozenset[tuple[Path, bytes]], str]] = set()
    found: list[str] = []
    for cut in range(since, len(filesystem.done) + 1):
        pictures = allowed(cut)
        assert isinstance(pictures, list)
        for image in images(filesystem.done[:cut], root):
            mark = (frozenset(image.items()), str(len(pictures)))
            if mark in seen:
                continue
            seen.add(mark)
            store = _stored(image, root / "out")
            try:
                picture = look(store)
                if picture not in pictures:
                    found.append(f"after operation {cut}: {picture}")
                save_next(store)
                look(store)
            except (OnwardError, AssertionError) as error:
                found.append(f"after operation {cut}: {error}")
    return len(seen), found


def _cut_during(act: Act, root: Path, *, deaf_to: str = "") -> tuple[int, list[str]]:
    filesystem = RecordingFileSystem(deaf_to=deaf_to)
    store = LocalStore(root / "out", filesystem=filesystem)
    repository = with_three(store)
    writer = going_on(repository)
    old = look(store)
    began = len(filesystem.done)
    act.do(repository, writer)
    ended = len(filesystem.done)
    new = act.changed(old)
    assert look(store) == new

    def allowed(cut: int) -> list[Picture]:
        # Acknowledged is what was there when the call began, and once it returned, what it made.
        return [new] if cut >= ended else [old, new]

    return _violations(filesystem, root, since=began, allowed=allowed)


@pytest.mark.parametrize("act", _ACTS, ids=str)
def test_power_cut_at_every_moment(root: Path, act: Act) -> None:
    """Whatever was acknowledged survives, whole; what was under way is there whole or not at all;
    and the next save works.
    """
    count, found = _cut_during(act, root)
    assert found == []
    assert count >= 10


def test_power_cut_while_an_output_is_made(root: Path) -> None:
    """From the very first operation on: no output yet, or one whose acknowledged saves are there."""
    filesystem = RecordingFileSystem()
    store = LocalStore(root / "out", filesystem=filesystem)
    repository = new_output(store)
    made = len(filesystem.done)
    writer = repository.claim("first")
    claimed = len(filesystem.done)
    writer.commit(state(1), facts(1))
    saved = len(filesystem.done)
    pictures = [
        (made, Picture()),
        (claimed, Picture(generation=1)),
        (saved, Picture(generation=1).and_checkpoint(1, state(1))),
    ]

    def allowed(cut: int) -> list[Picture]:
        return [p for at, p in pictures if at >= cut][:1] + [p for at, p in pictures if at <= cut][
            -1:
        ]

    count, found = _violations(filesystem, root, since=made, allowed=allowed)
    assert found == []
    assert count >= 20


@pytest.mark.parametrize("deaf_to", ["fsync", "fsync_folder"])
def test_disk_that_forgets_is_found_out(root: Path, deaf_to: str) -> None:
    """The check above has teeth: a store that leaves out either kind of sync loses a save."""
    _, found = _cut_during(_ACTS[0], root, deaf_to=deaf_to)
    assert found != []


class _RecordFirst(Wrapped):
    """Stores packs and manifests only after the log record that makes them count."""

    def __init__(self, store: LocalStore) -> None:
        super().__init__(store)
        self._waiting: list[tuple[str, bytes]] = []

    def put(self, key: str, chunks: object, size_bytes: int) -> None:
        self._waiting.append((key, b"".join(chunks)))  # type: ignore[call-overload]

    def create(self, key: str, data: bytes) -> None:
        super().create(key, data)
        for waiting, content in self._waiting:
            super().put(waiting, [content], len(content))
        self._waiting.clear()


def test_record_before_its_pack_is_found_out(root: Path) -> None:
    """The check above has teeth: the order of a save matters."""
    filesystem = RecordingFileSystem()
    repository = with_three(_RecordFirst(LocalStore(root / "out", filesystem=filesystem)))
    old = look(LocalStore(root / "out"))
    began = len(filesystem.done)
    going_on(repository).commit(state(4), facts(4))
    new = old.and_checkpoint(4, state(4))
    _, found = _violations(filesystem, root, since=began, allowed=lambda cut: [old, new])
    assert found != []
