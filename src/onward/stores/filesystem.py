"""Every operation on local files that a store performs, behind one seam for faults and replays."""

from __future__ import annotations

import errno
import fcntl
import os
import stat as stat_bits
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

Kind: TypeAlias = Literal["file", "folder", "link", "other"]

# One system call moves at most this much; Linux itself stops just short of 2 GiB.
_CALL_BYTES = 1 << 30

# Pages of a large file are sent to the disk while the next ones are made: measured here, writing
# 1 GiB and fsync take half as long as when the kernel begins by itself.
_WORTH_SENDING_BYTES = 1 << 20

# File systems that commit names at once (CIFS, some FUSE) refuse to fsync a folder.
_FOLDER_NEEDS_NO_FSYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the file system says about one path. Two names of one file have one `identity`."""

    kind: Kind
    size_bytes: int
    version: str
    identity: tuple[int, int]


class FileSystem(Protocol):
    """Local files, one method per system call that matters. All raise `OSError`.

    Content is durable after `fsync` of its file, a name after `fsync_folder` of its folder, and
    not before.
    """

    def make_folder(self, path: Path) -> None:
        """Make one folder whose parent exists; `FileExistsError` if the name is taken."""

    def open_new(self, path: Path) -> int:
        """Create a file for writing and mark it as being written, for `unlink_abandoned`."""

    def write(self, file: int, data: memoryview) -> int:
        """Write a leading part of `data`, and say how many bytes that was."""

    def bypass_cache(self, file: int, bypass: bool) -> bool:
        """Have writes go past the page cache, or through it again; say whether they now go past.

        Past it, the address, position and length of each write are multiples of 4 KiB.
        """

    def fsync(self, file: int) -> None:
        """Make the content of an open file durable. Once it failed, the content is lost."""

    def close(self, file: int) -> None:
        """Close an open file."""

    def link(self, source: Path, target: Path) -> None:
        """Give `source` the second name `target`; `FileExistsError` if the name is taken."""

    def replace(self, source: Path, target: Path) -> None:
        """Rename `source` to `target` as one change, over whatever file is there."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""

    def unlink_abandoned(self, path: Path) -> bool:
        """Remove a file that `open_new` made, unless somebody still writes it; say whether."""

    def fsync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""

    def read(self, path: Path, start: int, size_bytes: int | None, *, beneath: Path) -> bytes:
        """Bytes of a plain file from `start`, at most `size_bytes` of them."""

    def open_existing(self, path: Path, *, beneath: Path) -> int:
        """Open a plain file for reading. It stays readable when its name is removed.

        `FileNotFoundError` if it is not in the folder `beneath`: links may have been put in the
        way since the path was looked at. Where the system does not tell, that is not checked.
        """

    def read_into(self, file: int, start: int, target: memoryview) -> int:
        """Fill a leading part of `target` from `start`; no bytes are the end of the file."""

    def length(self, file: int) -> int:
        """The length in bytes of an open file."""

    def facts(self, path: Path) -> Facts:
        """Facts of what `path` leads to; symbolic links are followed."""

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        """The names in a folder; symbolic links are not followed."""

    def resolve(self, path: Path) -> Path:
        """`path` without symbolic links; parts that do not exist stay as they are."""


class RealFileSystem:
    """The operating system's file system."""

    def make_folder(self, path: Path) -> None:
        os.mkdir(path)

    def open_new(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(path, flags, 0o666)
        # The lock ends with the process, however it ends. Where locks are not supported nothing
        # can be locked, so nothing is ever taken for abandoned.
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return file

    def write(self, file: int, data: memoryview) -> int:
        written = os.write(file, data[:_CALL_BYTES])
        if written >= _WORTH_SENDING_BYTES:  # past the cache there is nothing to send
            _send_to_disk(file, written)
        return written

    def bypass_cache(self, file: int, bypass: bool) -> bool:
        direct = getattr(os, "O_DIRECT", 0)
        if not direct:
            return False
        flags = fcntl.fcntl(file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(file, fcntl.F_SETFL, flags | direct if bypass else flags & ~direct)
        except OSError:  # many file systems can only write through it
            return False
        return bypass

    def fsync(self, file: int) -> None:
        full_fsync = getattr(fcntl, "F_FULLFSYNC", None)
        if full_fsync is not None:  # macOS: fsync alone stops at the drive's own cache
            fcntl.fcntl(file, full_fsync)
        else:
            os.fsync(file)

    def close(self, file: int) -> None:
        os.close(file)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target, follow_symlinks=False)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def unlink_abandoned(self, path: Path) -> bool:
        try:
            # For writing, because NFS grants exclusive locks to nobody else.
            file = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except PermissionError:
            return False  # another user's
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False  # somebody holds it, or nobody can say
        else:
            os.unlink(path)
            return True
        finally:
            os.close(file)

    def fsync_folder(self, path: Path) -> None:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        except OSError as error:
            if error.errno not in _FOLDER_NEEDS_NO_FSYNC:
                raise
        finally:
            os.close(folder)

    def read(self, path: Path, start: int, size_bytes: int | None, *, beneath: Path) -> bytes:
        file = self.open_existing(path, beneath=beneath)
        try:
            wanted = max(0, self.length(file) - start)
            if size_bytes is not None:
                wanted = min(wanted, size_bytes)
            pieces: list[bytes] = []
            while wanted > 0:
                piece = os.pread(file, min(wanted, _CALL_BYTES), start)
                if not piece:  # cut short since fstat: there is no more
                    break
                pieces.append(piece)
                start += len(piece)
                wanted -= len(piece)
        finally:
            os.close(file)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def open_existing(self, path: Path, *, beneath: Path) -> int:
        # Non-blocking, because opening a named pipe would otherwise wait for ever.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not stat_bits.S_ISREG(os.fstat(file).st_mode):
                raise IsADirectoryError(errno.EISDIR, "not a plain file", str(path))
            if not _is_beneath(file, beneath):
                raise FileNotFoundError(errno.ENOENT, "a link was put in its way", str(path))
        except BaseException:
            os.close(file)
            raise
        return file

    def read_into(self, file: int, start: int, target: memoryview) -> int:
        return os.preadv(file, [target[:_CALL_BYTES]], start)

    def length(self, file: int) -> int:
        return os.fstat(file).st_size

    def facts(self, path: Path) -> Facts:
        status = os.stat(path)
        kind: Kind = "other"
        if stat_bits.S_ISREG(status.st_mode):
            kind = "file"
        elif stat_bits.S_ISDIR(status.st_mode):
            kind = "folder"
        return Facts(
            kind=kind,
            size_bytes=status.st_size,
            version=f"{status.st_mtime_ns:x}-{status.st_ino:x}-{status.st_size:x}",
            identity=(status.st_dev, status.st_ino),
        )

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        with os.scandir(path) as entries:
            return [(entry.name, _kind_of(entry)) for entry in entries]

    def resolve(self, path: Path) -> Path:
        return Path(os.path.realpath(path))


def _is_beneath(file: int, folder: Path) -> bool:
    above = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        home = _place_of(above)
    finally:
        os.close(above)
    place = _place_of(file)
    return not home or not place or place.startswith(home.rstrip("/") + "/")


def _place_of(file: int) -> str:
    """Where the kernel says that an open file or folder is; '' where it does not say."""
    try:
        return os.readlink(f"/proc/self/fd/{file}").removesuffix(" (deleted)")
    except OSError:
        return ""


def _send_to_disk(file: int, last_bytes: int) -> None:
    """Starts writing back the bytes before the file's position; only a hint.

    Linux writes out what is dirty in a range that is not needed, and keeps it while it does.
    """
    advise = getattr(os, "posix_fadvise", None)
    if advise is not None:
        with suppress(OSError):
            end = os.lseek(file, 0, os.SEEK_CUR)
            advise(file, end - last_bytes, last_bytes, os.POSIX_FADV_DONTNEED)


def _kind_of(entry: os.DirEntry[str]) -> Kind:
    if entry.is_symlink():
        return "link"
    if entry.is_dir(follow_symlinks=False):
        return "folder"
    return "file" if entry.is_file(follow_symlinks=False) else "other"
