"""What is remembered of data on this machine, so that unchanged files are not read again.

Nothing here is an authority: what is missing, damaged, foreign or cannot be written only costs
reading again. Each file appears whole under its name, so that processes do not disturb each other.
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec
import platformdirs
from blake3 import blake3

from onward.data.files import DataFile, Stamp, digest_of_file

RACY_NS = 2_000_000_000
"""A file that changed less than this before it was read may change again under the same stamp: the
coarsest clocks of file systems tick every two seconds."""

_MAGIC = b"onward cache 1\n"
_SPARE = 1000
_AS_LONG_AS = 16 << 10
_UNWANTED_S = 3600
_UNUSED_S = 60 * 86400
_LISTING = "listing"
_FOLDER = re.compile("[0-9a-f]{32}")


def cache_home() -> Path:
    """Where caches live: in `ONWARD_HOME`, or the user's cache folder."""
    chosen = os.environ.get("ONWARD_HOME")
    return Path(chosen) if chosen else Path(platformdirs.user_cache_dir("onward"))


def cache_folder(home: str | os.PathLike[str] | None, *about: object) -> Path:
    """The folder for one data location and one way to read it, as `about` tells them."""
    digest = blake3(ascii(about).encode()).hexdigest(length=16)
    return (Path(home) if home is not None else cache_home()) / "snapshots" / digest


class Listing:
    """The content digests of files, by their names and stamps.

    A digest is remembered only where the file had been left alone for a while when it was read, as
    Git does with its index.
    """

    def __init__(self, folder: Path, *, now_ns: Callable[[], int] = time.time_ns) -> None:
        self.folder = folder
        self._now_ns = now_ns
        self._known = _loaded(read_kept(folder / _LISTING))
        self._present: dict[bytes, tuple[int, str, bytes]] = {}

    def digest(self, file: DataFile) -> tuple[Stamp, bytes]:
        """The file's stamp and the BLAKE3 digest of its content, which is read only if need be."""
        stamp = file.stamp()
        name = file.where.encode()
        known = self._known.get(name)
        if known is not None and known[:2] == stamp[:2]:
            self._present[name] = known
            return stamp, known[2]
        began_ns = self._now_ns()
        digest = digest_of_file(file, stamp)
        if stamp.changed_ns + RACY_NS <= began_ns:
            self._present[name] = (stamp.size_bytes, stamp.token, digest)
        return stamp, digest

    def unread_bytes(self, files: Iterable[DataFile]) -> int:
        """How many bytes `digest` would have to read of these; a file counts for 16 KiB at least,
        as opening it takes so long."""
        total = 0
        for file in files:
            stamp = file.stamp()
            known = self._known.get(file.where.encode())
            if known is None or known[:2] != stamp[:2]:
                total += max(stamp.size_bytes, _AS_LONG_AS)
        return total

    def save(self, *, beside: Collection[str] = ()) -> None:
        """Remembers what `digest` was asked for; of the other files in the folder, `beside` stay.

        What was not asked for stays as well, because others may ask for more of the same data,
        until it is most of what there is.
        """
        both = {**self._known, **self._present}
        kept = both if len(both) <= 2 * len(self._present) + _SPARE else self._present
        if kept == self._known:
            with suppress(OSError):
                os.utime(self.folder)  # in use
            return
        now_s = self._now_ns() / 1e9
        keep(self.folder / _LISTING, msgspec.msgpack.encode(kept))
        _drop_others(self.folder, {_LISTING, *beside}, before_s=now_s - _UNWANTED_S)
        _forget_unused(self.folder.parent, before_s=now_s - _UNUSED_S)


def keep(path: Path, content: bytes) -> None:
    """Writes a file that `read_kept` reads; if that cannot be, quietly does not."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(file, "wb") as new:
                new.write(_MAGIC + blake3(content).digest())
                new.write(content)
            # Without fsync: after a power cut a torn file is found by its digest.
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def read_kept(path: Path) -> memoryview | None:
    """The content of a file that `keep` wrote; `None` if it is not exactly that."""
    try:
        whole = memoryview(path.read_bytes())
    except OSError:
        return None
    content = whole[len(_MAGIC) + 32 :]
    if whole[: len(_MAGIC)] != _MAGIC or whole[len(_MAGIC) :][:32] != blake3(content).digest():
        return None
    return content


def _loaded(content: memoryview | None) -> dict[bytes, tuple[int, str, bytes]]:
    if content is None:
        return {}
    try:
        return msgspec.msgpack.decode(content, type=dict[bytes, tuple[int, str, bytes]])
    except (msgspec.MsgspecError, ValueError):
        return {}


def _drop_others(folder: Path, wanted: Collection[str], *, before_s: float) -> None:
    # What is new may be another process's, on its way to the listing.
    with suppress(OSError):
        for entry in [*os.scandir(folder)]:
            if entry.name not in wanted and entry.stat().st_mtime < before_s:
                os.unlink(entry.path)


def _forget_unused(caches: Path, *, before_s: float) -> None:
    # Somebody may have given a folder of his own as the cache: only what is surely ours goes.
    with suppress(OSError):
        for entry in [*os.scandir(caches)]:
            ours = _FOLDER.fullmatch(entry.name) and os.path.exists(f"{entry.path}/{_LISTING}")
            if ours and entry.stat().st_mtime < before_s:
                for file in [*os.scandir(entry.path)]:
                    os.unlink(file.path)
                os.rmdir(entry.path)
