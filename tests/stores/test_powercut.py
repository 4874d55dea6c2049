"""After a power cut at any moment, a local store holds whole objects, and all that it confirmed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onward.errors import AlreadyExists
from onward.stores import LocalStore
from tests.stores.filesystems import RecordingFileSystem
from tests.stores.powercut import Image, images

_ABSENT = None


class _Session:
    """Calls of a store, each with the operations done when it began and when it returned."""

    def __init__(self, folder: Path, *, deaf_to: str = "") -> None:
        self.root = folder
        self.filesystem = RecordingFileSystem(deaf_to=deaf_to)
        self.store = LocalStore(folder / "out", filesystem=self.filesystem)
        self.calls: list[tuple[int, int, str, bytes | None]] = []

    def call(self, key: str, value: bytes | None, call: Callable[[], None]) -> None:
        began = len(self.filesystem.done)
        call()
        self.calls.append((began, len(self.filesystem.done), key, value))

    def create(self, key: str, value: bytes) -> None:
        self.call(key, value, lambda: self.store.create(key, value))

    def put(self, key: str, value: bytes) -> None:
        third = len(value) // 3
        chunks = [value[:third], value[third : 2 * third], value[2 * third :]]
        self.call(key, value, lambda: self.store.put(key, chunks, len(value)))

    def allowed(self, key: str, cut: int) -> set[bytes | None]:
        """What `key` may hold if power goes after `cut` operations."""
        values: set[bytes | None] = {_ABSENT}
        for began, returned, called_key, value in self.calls:
            if called_key != key or began > cut:
                continue
            if returned <= cut and value is not _ABSENT:
                values = {value}
            else:  # under way, or a delete, which is not promised to last
                values.add(value)
        return values


def _violations(session: _Session, folder: Path) -> tuple[int, list[str]]:
    found: list[str] = []
    count = 0
    keys = sorted({key for _, _, key, _ in session.calls})
    for cut in range(len(session.filesystem.done) + 1):
        for image in images(session.filesystem.done[:cut], session.root):
            count += 1
            store = _materialised(image, session.root, folder / str(count))
            listed = {entry.key for entry in store.list("")}
            found += [f"cut {cut}: {key} came from nowhere" for key in listed - set(keys)]
            for key in keys:
                value = store.read(key) if key in listed else _ABSENT
                if value not in session.allowed(key, cut):
                    found.append(f"cut {cut}: {key} holds {value!r}")
            store.sweep_temporaries()
            found += [f"cut {cut}: {path} stays" for path in store.folder.rglob(".tmp-*")]
    return count, found


def _materialised(image: Image, root: Path, folder: Path) -> LocalStore:
    for path, content in image.items():
        copy = folder / path.relative_to(root)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(content)
    return LocalStore(folder / "out")


def _history(session: _Session) -> None:
    session.create("onward/log/0", b"open")
    session.put("onward/packs/p", b"pack" * 30)
    session.create("onward/log/1", b"commit")
    session.put("hint", b"one")
    session.put("hint", b"the second")
    with pytest.raises(AlreadyExists):
        session.create("onward/log/1", b"another")
    session.create("onward/log/2", b"")
    session.call("onward/packs/p", _ABSENT, lambda: session.store.delete("onward/packs/p"))


def test_power_cut_at_every_moment(tmp_path: Path) -> None:
    """Each key is absent, old or new, always whole; what a call confirmed is there for good."""
    session = _Session(tmp_path / "real")
    session.root.mkdir()
    _history(session)
    count, found = _violations(session, tmp_path / "images")
    assert found == []
    assert count > 200


@pytest.mark.parametrize("deaf_to", ["fsync", "fsync_folder"])
def test_power_cut_of_a_store_that_forgets_a_sync(tmp_path: Path, deaf_to: str) -> None:
    """The check above has teeth: leaving out either kind of sync is found."""
    session = _Session(tmp_path / "real", deaf_to=deaf_to)
    session.root.mkdir()
    session.create("log/0", b"open")
    _, found = _violations(session, tmp_path / "images")
    assert found != []


def test_power_cut_after_another_process_made_the_folder(tmp_path: Path) -> None:
    """A folder that is there but not durable yet is made durable by whoever relies on it."""
    session = _Session(tmp_path / "real")
    session.root.mkdir()
    for folder in ("out", "out/log"):
        session.filesystem.make_folder(session.root / folder)
    session.create("log/0", b"open")
    _, found = _violations(session, tmp_path / "images")
    assert found == []
