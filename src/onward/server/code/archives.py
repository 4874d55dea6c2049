"""Unpacking archives that strangers made: tar, tar.gz and zip, never to a place that they name.

Neither `extractall` nor any path of an archive touches the disk: members are read as bytes and
given to a `Tree`. What the two libraries read at once is bounded too, as headers can be as large
as their author likes.
"""

from __future__ import annotations

import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from onward.errors import OnwardError
from onward.server.code.limits import Limits
from onward.server.code.tree import Tree
from onward.server.problems import BadCode

_CHUNK_BYTES = 1 << 20
_LONGEST_READ = 8 << 20
_RATIO_COUNTS_FROM = 1 << 20
_LONGEST_LINK = 4096
_BROKEN = (
    tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OverflowError, ValueError,
    NotImplementedError, UnicodeError, RuntimeError, LookupError, OSError,
)  # fmt: skip
"""What the two libraries raise for bytes that are no archive."""


def unpack(file: IO[bytes], tree: Tree) -> None:
    """Gives every file of an archive to `tree`. Raises `BadCode`."""
    file.seek(0)
    begin = file.read(4)
    file.seek(0, 2)
    packed = file.tell()
    file.seek(0)
    if packed > tree.limits.archive_bytes:
        raise BadCode(
            f"the archive has more than {tree.limits.archive_bytes:,} bytes",
            why="code is scripts; data is an input of the job",
            do="leave out what is no code",
        )
    with _understood():
        if begin[:2] == b"\x1f\x8b":
            with tempfile.TemporaryFile() as plain:
                _gunzip(file, plain, packed, tree.limits)
                _untar(plain, tree)
        elif begin[:2] == b"PK":
            _unzip(file, packed, tree)
        else:
            _untar(file, tree)


def unpack_tar(file: IO[bytes], tree: Tree) -> None:
    """As `unpack`, of a tar that is not packed and may be as large as what it holds."""
    with _understood():
        _untar(file, tree)


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except OnwardError:
        raise
    except _BROKEN as error:
        raise BadCode(
            "this is no archive that can be read",
            why=f"{type(error).__name__}: {error}"[:300],
            do="make it with `tar czf code.tar.gz -C FOLDER .` or as a zip",
        ) from error


def _gunzip(file: IO[bytes], plain: IO[bytes], packed: int, limits: Limits) -> None:
    most = min(
        # A tar has a header and padding for each file beside its bytes.
        limits.total_bytes + 2048 * limits.files,
        max(limits.ratio * packed, _RATIO_COUNTS_FROM),
    )
    inflate = zlib.decompressobj(wbits=31)
    size = 0
    while chunk := file.read(_CHUNK_BYTES):
        while chunk:
            part = inflate.decompress(chunk, _CHUNK_BYTES)
            chunk = inflate.unconsumed_tail
            size += len(part)
            if size > most:
                raise _swells(packed)
            plain.write(part)
            if inflate.eof:
                # Several streams, one after the other, are one file (RFC 1952).
                chunk = inflate.unused_data
                if chunk.strip(b"\0"):
                    inflate = zlib.decompressobj(wbits=31)
                else:
                    chunk = b""
    if not inflate.eof:
        raise EOFError("the archive ends in the middle")
    plain.seek(0)


def _untar(plain: IO[bytes], tree: Tree) -> None:
    with tarfile.open(fileobj=_Bounded(plain), mode="r:") as archive:
        while (member := archive.next()) is not None:
            if member.isdir():
                tree.pass_over(member.name)
            elif member.issym():
                tree.add_link(member.name, member.linkname)
            elif member.isreg() and not member.issparse():
                content = archive.extractfile(member)
                assert content is not None
                tree.add_file(member.name, _chunks(content), executable=bool(member.mode & 0o100))
            else:
                raise _no_plain_file(member.name)


def _unzip(file: IO[bytes], packed: int, tree: Tree) -> None:
    with zipfile.ZipFile(_Bounded(file)) as archive:
        members = archive.infolist()
        if len(members) > 2 * tree.limits.files:
            raise BadCode(f"there are more than {tree.limits.files:,} files in this code")
        total = sum(member.file_size for member in members)
        if total > max(tree.limits.ratio * packed, _RATIO_COUNTS_FROM):
            raise _swells(packed)
        for member in members:
            # The upper half is Unix's mode, if the archive was made there.
            mode = member.external_attr >> 16 if member.create_system == 3 else 0
            kind = stat.S_IFMT(mode)
            if member.is_dir():
                tree.pass_over(member.filename)
                continue
            if member.flag_bits & 1:
                raise BadCode(f"{member.filename[:200]!r} in the archive is encrypted")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise BadCode(
                    f"{member.filename[:200]!r} is compressed in an unusual way", do="use deflate"
                )
            if kind == stat.S_IFLNK:
                if member.file_size > _LONGEST_LINK:
                    raise _no_plain_file(member.filename)
                tree.add_link(member.filename, archive.read(member).decode())
            elif kind in (0, stat.S_IFREG):
                with archive.open(member) as content:
                    tree.add_file(member.filename, _chunks(content), executable=bool(mode & 0o100))
            else:
                raise _no_plain_file(member.filename)


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK_BYTES):
        yield chunk


def _swells(packed: int) -> BadCode:
    return BadCode(
        "the archive unpacks to far more than code is",
        why=f"it has {packed:,} bytes packed",
        do="leave out what is no code",
    )


def _no_plain_file(name: str) -> BadCode:
    return BadCode(
        f"{name[:200]!r} in the archive is no plain file",
        why="devices, pipes, hard links and sparse files are not unpacked",
        do="make the archive of plain files; with hard links: tar --hard-dereference",
    )


class _Bounded:
    """A file of which no more is read at once than headers honestly need."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        left = self._left() if size < 0 or size > _LONGEST_READ else size
        if min(size if size >= 0 else left, left) > _LONGEST_READ:
            raise ValueError("a header is larger than any honest one")
        return self._file.read(size)

    def _left(self) -> int:
        here = self._file.tell()
        end = self._file.seek(0, 2)
        self._file.seek(here)
        return end - here

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)
