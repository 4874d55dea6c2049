"""The files that data consists of: on this machine, or in an object store."""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from blake3 import blake3

from onward.errors import DataChanged, DataError
from onward.stores import Entry, Location, Store, open_store, parse

_CHUNK_BYTES = 1 << 20
_MAGIC = re.compile(r"[*\[]")
_NO_DOT = r"(?!(?<![^/])\.)"


class Stamp(NamedTuple):
    """Changes whenever a file does, unless somebody sets its times back.

    `changed_ns` is when the file last changed by its own clock: a change soon after may have the
    same stamp. It is 0 for objects, whose versions tell every change.
    """

    size_bytes: int
    token: str
    changed_ns: int


class DataFile(Protocol):
    """One file of the data. Reading raises `DataChanged` where it no longer has `stamp`."""

    @property
    def name(self) -> str:
        """Its path below the data, with `/`. Bytes that are not UTF-8 are surrogates."""

    @property
    def where(self) -> str:
        """The file as messages show it."""

    def stamp(self) -> Stamp:
        """What it is now. Raises `DataChanged` if it has gone."""

    def chunks(self, stamp: Stamp) -> Iterator[bytes]:
        """All of it, in order; checks after the last chunk that it is still the same."""

    def open(self, stamp: Stamp) -> BinaryIO:
        """It, to be read from any place."""

    def read_at(self, start: int, size_bytes: int) -> bytes:
        """A piece of what it is now, quickly enough to be called for every row."""

    def is_still(self, stamp: Stamp) -> bool:
        """Whether what `read_at` has read is of the file that had this stamp."""


class LocalFile:
    """A file on this machine."""

    __slots__ = ("_held", "_holds", "_modified", "_opened_as", "name", "path")

    def __init__(self, path: str, name: str, holds: bool = False) -> None:
        self.path = path
        self.name = name
        self._holds = holds  # whether reading pieces keeps it open
        self._held: int | None = None
        self._opened_as: Stamp | None = None
        self._modified = (0, 0)

    def __reduce__(self) -> tuple[type[LocalFile], tuple[str, str, bool]]:
        return LocalFile, (self.path, self.name, self._holds)  # an open file stays in its process

    def __del__(self) -> None:
        if self._held is not None:
            os.close(self._held)

    @property
    def where(self) -> str:
        return shown(self.path)

    def stamp(self) -> Stamp:
        try:
            return _stamp_of(os.stat(self.path))
        except OSError as error:
            raise self._unreadable(error) from error

    def chunks(self, stamp: Stamp) -> Iterator[bytes]:
        file = self._opened(stamp)
        try:
            while chunk := os.read(file, _CHUNK_BYTES):
                yield chunk
            self._check(file, stamp)
        except OSError as error:
            raise self._unreadable(error) from error
        finally:
            os.close(file)

    def open(self, stamp: Stamp) -> BinaryIO:
        return os.fdopen(self._opened(stamp), "rb")

    def read_at(self, start: int, size_bytes: int) -> bytes:
        try:
            file = self._held
            if file is None:
                file = os.open(self.path, os.O_RDONLY)
                if self._holds:
                    self._opened_as = _stamp_of(os.fstat(file))
                    self._modified = _modified(file)
                    self._held = file
            try:
                return os.pread(file, size_bytes, start)
            finally:
                if not self._holds:
                    os.close(file)
        except OSError as error:
            raise self._unreadable(error) from error

    def is_still(self, stamp: Stamp) -> bool:
        if self._held is None:
            return self.stamp() == stamp
        return self._opened_as == stamp and _modified(self._held) == self._modified

    def _opened(self, stamp: Stamp) -> int:
        try:
            file = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            self._check(file, stamp)
        except BaseException:
            os.close(file)
            raise
        return file

    def _check(self, file: int, stamp: Stamp) -> None:
        now = _stamp_of(os.fstat(file))
        if now != stamp:
            same = now.size_bytes == stamp.size_bytes
            sizes = f"it had {stamp.size_bytes} bytes, then {now.size_bytes}"
            raise changed(self.where, "its times are others than before" if same else sizes)

    def _unreadable(self, error: OSError) -> DataError:
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            return changed(self.where, "it was there when the data was listed, and has gone")
        return _cannot_read(self.path, error)


class StoredFile:
    """An object in a store. What was read of it stays in memory, because it comes whole."""

    def __init__(self, store: Store, entry: Entry) -> None:
        self._store = store
        self._entry = entry
        self._content: bytes | None = None

    @property
    def name(self) -> str:
        return self._entry.key

    @property
    def where(self) -> str:
        return f"{self._store.url}/{self._entry.key}"

    def stamp(self) -> Stamp:
        return Stamp(self._entry.size_bytes, self._entry.version, 0)

    def chunks(self, stamp: Stamp) -> Iterator[bytes]:
        content = self._read(stamp)
        for start in range(0, len(content), _CHUNK_BYTES):
            yield content[start : start + _CHUNK_BYTES]

    def open(self, stamp: Stamp) -> BinaryIO:
        return io.BytesIO(self._read(stamp))

    def is_still(self, stamp: Stamp) -> bool:
        return self.stamp() == stamp

    def read_at(self, start: int, size_bytes: int) -> bytes:
        return self._read(self.stamp())[start : start + size_bytes]

    def _read(self, stamp: Stamp) -> bytes:
        if self._content is None:
            content = self._store.read(self._entry.key)
            # A read does not say of which version it is, so that the store is asked again.
            now = [found for found in self._store.list(self.name) if found.key == self.name]
            if now != [self._entry] or len(content) != stamp.size_bytes:
                raise changed(self.where, f"it had {stamp.size_bytes} bytes, then {len(content)}")
            self._content = content
        return self._content


def digest_of_file(file: DataFile, stamp: Stamp) -> bytes:
    """BLAKE3 of all its bytes. Raises `DataChanged` if it is not, or does not stay, as `stamp`."""
    digest = blake3()
    for chunk in file.chunks(stamp):
        digest.update(chunk)
    return digest.digest()


def local_files(root: Path, pattern: str | None = None) -> list[LocalFile]:
    """The files below a folder, or the file itself, in the order of the bytes of their names.

    `pattern` is a glob, in which `**/` is any number of folders; then names that begin with a dot
    are passed over. Links count as what they lead to. Raises `DataError` where something cannot be
    read, is neither file nor folder, or where links lead in a circle.
    """
    try:
        status = root.stat()
        if stat.S_ISREG(status.st_mode):
            return [LocalFile(str(root), root.name)]
        if not stat.S_ISDIR(status.st_mode):
            raise _no_file(str(root))
        fits = None if pattern is None else glob(pattern)
        found = [LocalFile(path, name) for name, path in _below(str(root), "", fits, above=())]
    except OSError as error:
        raise _cannot_read(error.filename or root, error) from error
    return sorted(found, key=lambda file: os.fsencode(file.name))


def files_at(url: str | os.PathLike[str]) -> list[DataFile]:
    """The files at a path, below a folder or a prefix, or that a glob (`part-*.csv`) fits.

    Nothing there is an empty list. Objects are those of any store that `open_store` opens.
    """
    location = parse(url)
    if location.is_local:
        path = Path(location.prefix)
        base, pattern = (path, "**/*") if os.path.lexists(path) else split_glob(location.prefix)
        return [*local_files(Path(base), pattern)] if os.path.lexists(base) else []
    base, pattern = split_glob(location.prefix)
    store = open_store(_at(location, str(base)))
    entries = [*store.list("")]
    if not entries and pattern == "**/*" and location.prefix:
        above, _, name = location.prefix.rpartition("/")
        store = open_store(_at(location, above))
        entries = [entry for entry in store.list(name) if entry.key == name]
    return stored_files(store, entries, pattern)


def stored_files(store: Store, entries: Sequence[Entry], pattern: str = "**/*") -> list[DataFile]:
    """Those of a store's objects that a glob fits, in the order of their keys."""
    fits = glob(pattern)
    found = [StoredFile(store, entry) for entry in entries if fits.fullmatch(entry.key)]
    return [*sorted(found, key=lambda file: os.fsencode(file.name))]


def split_glob(path: str) -> tuple[str, str]:
    """The folder before the first part with a wildcard, and the pattern below it."""
    parts = path.split("/")
    for index, part in enumerate(parts):
        if _MAGIC.search(part):
            return "/".join(parts[:index]) or path[: path.startswith("/")], "/".join(parts[index:])
    return path, "**/*"


def glob(pattern: str) -> re.Pattern[str]:
    """A glob as an expression for whole names. No `*` or `?` fits a name's leading dot."""
    parts = []
    for token in re.findall(r"\*\*/|\*\*|\*|\?|\[[^/\]]+\]|.", pattern, re.DOTALL):
        match token:
            case "**/":
                parts.append(r"(?:[^/.][^/]*/)*")
            case "**":
                parts.append(r"(?:" + _NO_DOT + r".)*")
            case "*":
                parts.append(_NO_DOT + r"[^/]*")
            case "?":
                parts.append(_NO_DOT + r"[^/]")
            case _ if token.startswith("[") and len(token) > 2:
                inside = token[1:-1].replace("\\", r"\\")
                inside = "^" + inside[1:] if inside.startswith("!") else inside
                parts.append(f"[{inside}]")
            case _:
                parts.append(re.escape(token))
    try:
        return re.compile("".join(parts), re.DOTALL)
    except re.error as error:
        raise DataError(f"{pattern!r} is no pattern of names", why=str(error)) from error


def below(path: str | os.PathLike[str], base: str | os.PathLike[str]) -> str | None:
    """`path` as seen from `base`, '' if it is the same; None if it lies elsewhere."""
    whole, root = os.path.abspath(path), os.path.abspath(base)
    if whole == root:
        return ""
    return os.path.relpath(whole, root) if Path(whole).is_relative_to(root) else None


def shown(path: str | bytes | os.PathLike[str]) -> str:
    """A path that any terminal can show, whatever its bytes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _below(
    folder: str,
    prefix: str,
    fits: re.Pattern[str] | None,
    *,
    above: tuple[tuple[int, int], ...],
) -> Iterator[tuple[str, str]]:
    status = os.stat(folder)
    here = (status.st_dev, status.st_ino)
    if here in above:
        raise DataError(
            f"{shown(folder)} leads back to a folder that it lies in",
            why="a symbolic link makes a circle",
            do="remove the link",
        )
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir():
                if fits is None or not entry.name.startswith("."):
                    yield from _below(entry.path, name + "/", fits, above=(*above, here))
            elif fits is not None and not fits.fullmatch(name):
                continue
            elif entry.is_file():
                yield name, entry.path
            else:
                raise _no_file(entry.path)


def _at(location: Location, prefix: str) -> str:
    return Location(location.scheme, location.bucket, prefix, location.options).url


def _stamp_of(status: os.stat_result) -> Stamp:
    token = f"{status.st_mtime_ns}-{status.st_ctime_ns}-{status.st_ino}"
    return Stamp(status.st_size, token, max(status.st_mtime_ns, status.st_ctime_ns))


def _modified(file: int) -> tuple[int, int]:
    status = os.fstat(file)
    return status.st_size, status.st_mtime_ns


def changed(where: str, why: str) -> DataChanged:
    """The error for a file that is not what it was."""
    return DataChanged(
        f"{where} changed while it was read",
        why=why,
        do="let whatever writes it end first, then run the same command again",
    )


def _no_file(path: str) -> DataError:
    return DataError(
        f"{shown(path)} is neither a file nor a folder",
        why="it may be a broken link, a socket or a device",
        do="remove it from the data",
    )


def _cannot_read(path: str | os.PathLike[str], error: OSError) -> DataError:
    return DataError(
        f"{shown(path)} cannot be read",
        why=error.strerror or str(error),
        do="check that the path exists and may be read",
    )
