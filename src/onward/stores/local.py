"""A folder as a store: each object is a file, durable when the call that wrote it returns."""

from __future__ import annotations

import copy
import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from onward.errors import AlreadyExists, BadURL, Missing, StoreError, Unreachable, UnsafeStore
from onward.stores.base import Chunk, Entry, checked_key
from onward.stores.filesystem import Facts, FileSystem, Kind, RealFileSystem
from onward.stores.keys import checked_prefix, counted, is_key
from onward.stores.os_errors import LINK_UNSUPPORTED, looked_up, written
from onward.stores.past_cache import WORTH_BYTES, PastCache

_TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{32}")
_MOST_HELD = 400  # open at once: a process may often have no more than 1024 files


def _new_token() -> str:
    return secrets.token_hex(16)


class LocalStore:
    """Files below `folder`, which is made when something is first stored.

    Writers in any number of processes may share it. A file appears under its key only when its
    content is durable, so that whoever sees a key, now or after a power cut, sees a whole object.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        filesystem: FileSystem | None = None,
        new_token: Callable[[], str] = _new_token,
    ) -> None:
        self.folder = Path(os.path.abspath(folder))
        self._filesystem = filesystem or RealFileSystem()
        self._new_token = new_token
        self._settled: set[Path] = set()
        self._held: Mapping[str, int] = {}

    @property
    def url(self) -> str:
        return str(self.folder)

    def path(self, key: str) -> Path:
        """The file of `key`; `BadURL` if symbolic links lead from there out of this store."""
        path = self.folder / checked_key(key)
        self._inside(path.parent, key)
        return path

    def create(self, key: str, data: bytes) -> None:
        path = self._path_to_write(key)
        temporary = self._write_temporary(path, [data], len(data))
        try:
            self._link(temporary, path)
            # If this fails, a whole object stands there that may not outlast a power cut.
            self._fsync_folder(path.parent)
        finally:
            # Dying before this leaves a second name of the same file, which sweeping removes.
            self._discard(temporary)

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        path = self._path_to_write(key)
        temporary = self._write_temporary(path, chunks, size_bytes)
        try:
            with written(f"could not store {path}"), _swept(path):
                self._filesystem.replace(temporary, path)
        except BaseException:
            self._discard(temporary)
            raise
        # Dying before this may leave the old object or the new one, each of them whole.
        self._fsync_folder(path.parent)

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        with self._existing(key) as path:
            return self._filesystem.read(path, start, size_bytes, beneath=self.folder)

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        have = 0
        with self._opened(key) as file:
            while have < target.nbytes:
                size_bytes = self._filesystem.read_into(file, start + have, target[have:])
                if not size_bytes:
                    break
                have += size_bytes
        return have

    @contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[LocalStore]:
        """This store with the files of `keys` open, so that they can be read once deleted.

        A file that is replaced meanwhile gives its old bytes. Of very many, the last are not held.
        """
        held = copy.copy(self)
        files: dict[str, int] = {}
        held._held = files
        try:
            for key in [*dict.fromkeys(keys)][:_MOST_HELD]:
                with suppress(Missing), self._existing(key) as path:
                    files[key] = self._filesystem.open_existing(path, beneath=self.folder)
            yield held
        finally:
            for file in files.values():
                self._filesystem.close(file)

    def size(self, key: str) -> int:
        if key in self._held:
            with looked_up(f"could not read {self.folder / key}"):
                return self._filesystem.length(self._held[key])
        with self._existing(key) as path:
            facts = self._filesystem.facts(path)
            if facts.kind != "file":
                raise IsADirectoryError(path)
        return facts.size_bytes

    def list(self, prefix: str) -> Iterator[Entry]:
        """All plain files whose path starts with `prefix`, and symbolic links to such files.

        Links to folders or out of the store are passed over, as are names that are no valid keys.
        """
        for key, path, kind in self._walk(prefix):
            if _TEMPORARY.fullmatch(path.name) or not is_key(key):
                continue
            facts = self._facts_of_file(path, kind)
            if facts is not None:
                yield Entry(key, facts.size_bytes, facts.version)

    def delete(self, key: str) -> None:
        path = self.path(key)
        # Not made durable: after a power cut the object may be back, whole, to be deleted again.
        with (
            written(f"could not delete {path}"),
            suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError),
        ):
            self._filesystem.unlink(path)

    def sweep_temporaries(self, prefix: str = "") -> int:
        """Delete what writers that died left behind, and say how many files that were.

        Files that are still being written are left alone.
        """
        swept = 0
        for _, path, kind in self._walk(prefix):
            if kind == "file" and _TEMPORARY.fullmatch(path.name):
                with written(f"could not delete {path}"), suppress(FileNotFoundError):
                    swept += self._filesystem.unlink_abandoned(path)
        return swept

    # --- writing

    def _path_to_write(self, key: str) -> Path:
        path = self.path(key)
        if _TEMPORARY.fullmatch(path.name):
            raise BadURL(
                f"{key!r} is not a valid key here", why="unfinished files go by such names"
            )
        with written(f"could not make the folder {path.parent}"):
            self._settle(path.parent)
        return path

    def _settle(self, folder: Path) -> None:
        """Make `folder`, and its name durable, even if another process has only just made it."""
        if folder in self._settled:
            return
        if folder == self.folder:
            self._make_store_folder()
        else:
            self._settle(folder.parent)
            with suppress(FileExistsError):
                self._filesystem.make_folder(folder)
            self._filesystem.fsync_folder(folder.parent)
        self._settled.add(folder)

    def _make_store_folder(self) -> None:
        missing: list[Path] = []
        above = self.folder
        while not self._exists(above):
            missing.append(above)
            above = above.parent
        for folder in reversed(missing):
            with suppress(FileExistsError):
                self._filesystem.make_folder(folder)
            self._filesystem.fsync_folder(folder.parent)
        if not missing:
            # Somebody else made it, perhaps a moment ago. Its parent may well be unreadable to
            # this user, and then it is not for us to make it durable.
            with suppress(PermissionError):
                self._filesystem.fsync_folder(self.folder.parent)

    def _exists(self, path: Path) -> bool:
        try:
            self._filesystem.facts(path)
        except FileNotFoundError:
            return False
        return True

    def _write_temporary(self, path: Path, chunks: Iterable[Chunk], size_bytes: int) -> Path:
        """A new file beside `path` with durable content; no such file when this raises."""
        temporary = path.parent / f".tmp-{self._new_token()}"
        what = f"could not write {path}"
        with written(what):
            file = self._filesystem.open_new(temporary)
        try:
            try:
                # The chunks' own errors are not ours to translate.
                views = counted(chunks, size_bytes, path.name)
                if size_bytes >= WORTH_BYTES:
                    self._write_past_cache(file, views, what)
                else:
                    for view in views:
                        with written(what):
                            self._write_all(file, view)
                with written(what):
                    self._filesystem.fsync(file)
            finally:
                with written(what):
                    self._filesystem.close(file)
            with written(what), _swept(path):
                stored_bytes = self._filesystem.facts(temporary).size_bytes
            if stored_bytes != size_bytes:
                raise StoreError(what, why=f"{stored_bytes:,} of {size_bytes:,} bytes arrived")
        except BaseException:
            # A failed fsync is final: the kernel may have dropped the bytes and call them clean.
            self._discard(temporary)
            raise
        return temporary

    def _write_past_cache(self, file: int, views: Iterator[memoryview], what: str) -> None:
        with written(what):
            writing = PastCache(self._filesystem, file)
        try:
            for view in views:
                with written(what):
                    writing.write(view)
            with written(what):
                writing.finish()
        finally:
            writing.close()

    def _write_all(self, file: int, view: memoryview) -> None:
        while view.nbytes:
            view = view[self._filesystem.write(file, view) :]

    def _link(self, temporary: Path, path: Path) -> None:
        try:
            with _swept(path):
                self._filesystem.link(temporary, path)
        except FileExistsError as error:
            if self._same_file(temporary, path):
                return  # ours: a network mount repeated a call whose first reply was lost
            # The caller will build on what stands there, so it must be as durable as it seems.
            self._fsync_folder(path.parent)
            raise AlreadyExists(f"{path} exists already") from error
        except OSError as error:
            if error.errno in LINK_UNSUPPORTED:
                raise UnsafeStore(
                    f"{self.folder} cannot hold an output that several processes may open",
                    why=f"its file system has no hard links ({os.strerror(error.errno)})",
                    do="choose a folder on a local disk or NFS, or promise a single writer",
                ) from error
            with written(f"could not store {path}"):
                raise

    def _same_file(self, first: Path, second: Path) -> bool:
        with written(f"could not store {second}"):
            return self._filesystem.facts(first).identity == self._filesystem.facts(second).identity

    def _fsync_folder(self, folder: Path) -> None:
        with written(f"could not make the names in {folder} durable"):
            self._filesystem.fsync_folder(folder)

    def _discard(self, temporary: Path) -> None:
        with suppress(OSError):
            self._filesystem.unlink(temporary)

    # --- reading

    @contextmanager
    def _opened(self, key: str) -> Iterator[int]:
        if key in self._held:
            with looked_up(f"could not read {self.folder / key}"):
                yield self._held[key]
            return
        with self._existing(key) as path:
            file = self._filesystem.open_existing(path, beneath=self.folder)
            try:
                yield file
            finally:
                self._filesystem.close(file)

    @contextmanager
    def _existing(self, key: str) -> Iterator[Path]:
        path = self.folder / checked_key(key)
        self._inside(path, key)  # all of it: the file itself may be a link
        with looked_up(f"could not read {path}"):
            try:
                yield path
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                raise Missing(f"there is no file {path}") from error

    def _inside(self, path: Path, key: str) -> None:
        with looked_up(f"could not read {path}"):
            home = self._filesystem.resolve(self.folder)
            resolved = self._filesystem.resolve(path)
        if not resolved.is_relative_to(home):
            why = f"a symbolic link leads to {resolved}"
            raise BadURL(f"{key!r} is not in {self.folder}", why=why)

    def _walk(self, prefix: str) -> Iterator[tuple[str, Path, Kind]]:
        """Everything but folders whose key starts with `prefix`, one folder after the other."""
        folder_key, slash, start = checked_prefix(prefix).rpartition("/")
        top = self.path(folder_key) if folder_key else self.folder
        self._inside(top, prefix)
        waiting = [(folder_key + slash, top)]
        while waiting:
            key_above, folder = waiting.pop()
            for name, kind in self._names(folder):
                if not name.startswith(start):
                    continue
                if kind == "folder":
                    waiting.append((f"{key_above}{name}/", folder / name))
                else:
                    yield key_above + name, folder / name, kind
            start = ""  # it narrows the names of the first folder only

    def _names(self, folder: Path) -> Sequence[tuple[str, Kind]]:
        with looked_up(f"could not list {folder}"):
            try:
                return self._filesystem.scan(folder)
            except (FileNotFoundError, NotADirectoryError):
                return []  # not made yet, or gone meanwhile

    def _facts_of_file(self, path: Path, kind: Kind) -> Facts | None:
        if kind == "other":
            return None
        with looked_up(f"could not list {path}"):
            try:
                if kind == "link":
                    self._inside(path, path.name)
                facts = self._filesystem.facts(path)
            except (FileNotFoundError, NotADirectoryError, BadURL):
                return None
        return facts if facts.kind == "file" else None


@contextmanager
def _swept(path: Path) -> Iterator[None]:
    """Says what became of a temporary file that is not there any more."""
    try:
        yield
    except FileNotFoundError as error:
        raise Unreachable(
            f"could not store {path}",
            why="its unfinished file was removed meanwhile",
            do="try again",
        ) from error
