"""The data of a job: where the script finds it, and what it is at this moment."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from onward.data.files import LocalFile, local_files
from onward.data.listing import Listing, cache_folder
from onward.data.snapshot import DataSnapshot, snapshot_folder, unread_bytes
from onward.errors import BadURL, Missing
from onward.jobs.display import Display
from onward.jobs.fetching import Wanted, fetch
from onward.jobs.scanning import Token, token_of
from onward.stores import Entry, LocalStore, Store, open_store, parse
from onward.stores.os_errors import written
from onward.training.places import WorkingFolder

_STATE_KEY = "data.json"


@dataclass(slots=True)
class DataPlan:
    """What has to be done to have the data on this machine. Nothing for a local path."""

    path: Path
    fetched: list[Entry]
    removed: list[str]
    items: int
    size_bytes: int


class JobData:
    """`url` as a path on this machine: itself, or a copy that follows an object store.

    The copy is held until `release`: another job on the same data meanwhile makes its own.
    Raises `BadURL` at once if there is nothing at `url`; `option` is what named it.
    """

    def __init__(self, url: str, *, option: str = "--data") -> None:
        self._location = parse(url)
        self._folder: WorkingFolder | None = None
        if self._location.is_local:
            path = Path(self._location.prefix)
            if not path.exists():
                raise _nothing_at(str(path), option)
            self.path = path
            return
        self._store, self._entries, single = _listed(url, option)
        self._single = single
        self._first = WorkingFolder.first_path(url, kind="data")
        self.path = self._path_in(self._first)

    @property
    def is_local(self) -> bool:
        return self._location.is_local

    def plan(self) -> DataPlan:
        """What `fetch` would do; touches nothing."""
        if self.is_local:
            return DataPlan(self.path, [], [], 0, 0)
        return self._plan(self._folder.path if self._folder else self._first)

    def fetch(self, display: Display) -> Path:
        """Brings the copy up to date and returns its path: fetches what is new or changed, and
        removes what is gone at the store. A local path is returned as it is."""
        if self.is_local:
            return self.path
        if self._folder is None:
            self._folder = WorkingFolder(self._location.url, kind="data")
        folder = self._folder.path
        self.path = self._path_in(folder)
        plan = self._plan(folder)
        known = _load(folder)
        copy = LocalStore(folder / "copy")
        for key in plan.removed:
            with written(f"could not remove {key} from the copy of the data"):
                copy.path(key).unlink(missing_ok=True)
            known.pop(key, None)

        def arrived(entry: Entry, path: Path) -> None:
            known[entry.key] = (token_of(path), entry.version)

        try:
            if plan.fetched:
                wanted = [Wanted(entry, copy.path(entry.key)) for entry in plan.fetched]
                fetch(
                    self._store, wanted, incoming=folder / "incoming", title="fetching data",
                    display=display, arrived=arrived,
                )  # fmt: skip
        finally:
            _save(folder, known)
        return self.path

    def snapshot(self, *, remember: bool = True) -> DataSnapshot:
        """What the data is, now that it is here; may remember it for the next time."""
        return snapshot_folder(self.path, remember=remember)

    def unread_bytes(self) -> int:
        """About how much `snapshot` has to read."""
        return unread_bytes(self.path)

    def contents(
        self, names: Sequence[str], *, most_read_bytes: int | None = None
    ) -> dict[str, bytes]:
        """8 bytes that stand for the content of each of these files of the copy, by name; nothing
        if more than `most_read_bytes` would have to be read."""
        single = bool(self._single)
        files = [LocalFile(str(self.path if single else self.path / name), name) for name in names]
        listing = Listing(cache_folder(None, "files", os.path.realpath(self.path)))
        if most_read_bytes is not None and listing.unread_bytes(files) > most_read_bytes:
            return {}
        return {file.name: listing.digest(file)[1][:8] for file in files}

    def extent(self) -> tuple[int, int]:
        """How many files the data has here and how many bytes, without reading them."""
        sizes = [file.stamp().size_bytes for file in local_files(self.path)]
        return len(sizes), sum(sizes)

    @property
    def entries(self) -> Sequence[Entry]:
        """What is at the store; nothing for a local path."""
        return () if self.is_local else self._entries

    def release(self) -> None:
        if self._folder is not None:
            self._folder.release()

    def _path_in(self, folder: Path) -> Path:
        return folder / "copy" / self._single if self._single else folder / "copy"

    def _plan(self, folder: Path) -> DataPlan:
        known = _load(folder)
        copy = LocalStore(folder / "copy")
        wanted = {entry.key: entry for entry in self._entries}
        fetched = [
            entry for entry in self._entries if not _is_here(copy, entry, known.get(entry.key))
        ]
        removed = sorted({entry.key for entry in copy.list("")} - wanted.keys())
        total = sum(entry.size_bytes for entry in self._entries)
        return DataPlan(self._path_in(folder), fetched, removed, len(wanted), total)


def _listed(url: str, option: str) -> tuple[Store, Sequence[Entry], str]:
    """The store of a data location, its objects, and its name if it is a single object."""
    store = open_store(url)
    entries = sorted(store.list(""), key=lambda entry: entry.key)
    if entries:
        return store, entries, ""
    location = parse(url)
    above, _, name = location.prefix.rpartition("/")
    if name:
        root = type(location)(location.scheme, location.bucket, above, location.options)
        store = open_store(root.url)
        for entry in store.list(name):
            if entry.key == name:
                return store, [entry], name
    raise _nothing_at(location.display, option)


def _nothing_at(place: str, option: str) -> BadURL:
    return BadURL(
        f"there is no data at {place}",
        why="nothing is stored there",
        do=f"check {option}",
    )


def _is_here(copy: LocalStore, entry: Entry, known: tuple[Token, str] | None) -> bool:
    if known is None or known[1] != entry.version:
        return False
    try:
        return token_of(copy.path(entry.key)) == known[0]
    except OSError:
        return False


def _load(folder: Path) -> dict[str, tuple[Token, str]]:
    try:
        document = json.loads(LocalStore(folder).read(_STATE_KEY))
        return {key: (Token(*token), version) for key, (*token, version) in document.items()}
    except (Missing, ValueError, TypeError, AttributeError):
        return {}


def _save(folder: Path, known: dict[str, tuple[Token, str]]) -> None:
    document = {key: [*token, version] for key, (token, version) in sorted(known.items())}
    data = json.dumps(document).encode()
    LocalStore(folder).put(_STATE_KEY, [data], len(data))
