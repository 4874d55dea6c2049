"""A tree of code while it is written: every path is checked before it touches the disk.

Whatever brings code (a folder, an archive, git) hands its files to a `Tree`, which alone decides
what a tree may hold, so that no kind of source has looser rules than another. Files come first,
links last: while files are written there is no link that one could be written through.
"""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from blake3 import blake3

from onward.server.code.limits import Limits
from onward.server.problems import BadCode
from onward.stores.os_errors import looked_up, written

_LEFT_OUT = frozenset({".git", "__pycache__"})
_READ_BYTES = 1 << 20


class Tree:
    """Writes code into `folder`, which is new and empty. Raises `BadCode` for what it may not hold.

    Folders are only made for files: an empty one is not part of a tree, as in git.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.files = 0
        self.size_bytes = 0
        self._links: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        self._folded: dict[str, str] = {}
        self._seen = 0

    def add_file(self, path: str, chunks: Iterable[bytes], *, executable: bool = False) -> None:
        """One file, whatever it replaces: there is none twice."""
        checked = self._checked(path)
        if checked is None:
            return
        self._claim(checked, "file")
        target = self.folder / checked
        with written(f"could not store {checked}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
                size = 0
                for chunk in chunks:
                    size += len(chunk)
                    self.size_bytes += len(chunk)
                    self._check_size(checked, size)
                    file.write(chunk)
                os.fchmod(file.fileno(), 0o755 if executable else 0o644)
                file.flush()
                os.fsync(file.fileno())

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link. It is made by `finish`, once everything that it may mean is here."""
        checked = self._checked(path)
        if checked is None:
            return
        if not target or target.startswith("/") or "\\" in target or _is_odd(target):
            raise BadCode(
                f"the link {checked!r} leads to {target[:200]!r}",
                why="a link may only lead to another file or folder of the code",
                do="replace it by what it leads to",
            )
        self._claim(checked, "link")
        self._links[checked] = target

    def pass_over(self, path: str) -> None:
        """A folder: counted, so that a million of them end, and not made."""
        if path.strip("./"):
            self._checked(path)
        else:
            self._count()

    def finish(self) -> str:
        """Makes the links and returns the digest of the tree. Raises `BadCode` for an empty one."""
        for path, target in self._links.items():
            place = self.folder / path
            with written(f"could not store {path}"):
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(target)
        root = self.folder.resolve()
        for path, target in self._links.items():
            try:
                leads_to = (root / path).resolve(strict=True)
            except (OSError, RuntimeError) as error:
                raise BadCode(
                    f"the link {path!r} leads nowhere", why=f"there is no {target!r} in the code",
                    do="remove it",
                ) from error  # fmt: skip
            if leads_to == root or not leads_to.is_relative_to(root):
                raise BadCode(
                    f"the link {path!r} leads out of the code", why=f"to {target!r}",
                    do="replace it by what it leads to",
                )  # fmt: skip
        if not self.files:
            raise BadCode("there is no file in this code", do="give a folder that holds the script")
        return digest_of(self.folder)

    def _checked(self, path: str) -> str | None:
        """The path as it is stored; None for what is never part of code. Raises `BadCode`."""
        self._count()
        while path.startswith("./"):
            path = path[2:]
        parts = path.rstrip("/").split("/")
        reason = _fault(path, parts, self.limits)
        if reason:
            raise BadCode(f"the code holds the path {path[:200]!r}", why=reason, do="rename it")
        return None if _LEFT_OUT.intersection(parts) else "/".join(parts)

    def _count(self) -> None:
        self._seen += 1
        if self._seen > self.limits.files:
            raise BadCode(
                f"there are more than {self.limits.files:,} files in this code",
                why="code is scripts; data is an input of the job",
                do="give a folder that holds only the code",
            )

    def _claim(self, path: str, kind: str) -> None:
        """Notes that `path` is a file or a link, and all above are folders, once and for all."""
        parts = path.split("/")
        for end in range(1, len(parts)):
            self._note("/".join(parts[:end]), "folder", path)
        self._note(path, kind, path)
        self.files += 1

    def _note(self, name: str, kind: str, path: str) -> None:
        known = self._kinds.get(name)
        if known is not None and (known != kind or kind != "folder"):
            raise BadCode(
                f"the code holds {name!r} twice",
                why=f"once as a {known}, once as a {kind}",
                do="keep one of them",
            )
        self._kinds[name] = kind
        other = self._folded.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise BadCode(
                f"the code holds both {other!r} and {name!r}",
                why="on some machines they are the same file",
                do="rename one of them",
            )

    def _check_size(self, path: str, size: int) -> None:
        if size > self.limits.file_bytes:
            raise BadCode(
                f"the file {path!r} has more than {self.limits.file_bytes:,} bytes",
                why="code is scripts; data is an input of the job",
                do="put it in a storage and give it as an input",
            )
        if self.size_bytes > self.limits.total_bytes:
            raise BadCode(
                f"the code has more than {self.limits.total_bytes:,} bytes",
                why="code is scripts; data is an input of the job",
                do="put what is large in a storage and give it as an input",
            )


def digest_of(folder: Path) -> str:
    """The digest of a tree: of each path, in the order of their bytes, its kind and content.

    Lengths stand before what has them, so that no two trees read alike.
    """
    whole = blake3(b"onward code 1\n")
    for path, kind in walk(folder):
        place = folder / path
        if kind == "link":
            content = blake3(os.fsencode(os.readlink(place))).digest()
        else:
            content = _digest_of_file(place)
        name = os.fsencode(path)
        whole.update(f"{kind} {len(name)} ".encode() + name + content)
    return whole.hexdigest()


def walk(folder: Path) -> Iterator[tuple[str, str]]:
    """Each path of a tree and its kind (`file`, `executable` or `link`), in the order of bytes."""
    found: list[tuple[bytes, str]] = []
    for above, folders, files in os.walk(folder, onerror=_raise):
        for name in [*folders, *files]:
            place = Path(above, name)
            mode = place.lstat().st_mode
            if stat.S_ISDIR(mode):
                continue
            kind = "executable" if mode & stat.S_IXUSR else "file"
            kind = "link" if stat.S_ISLNK(mode) else kind
            found.append((os.fsencode(place.relative_to(folder)), kind))
    for name_, kind in sorted(found):
        yield os.fsdecode(name_), kind


def _digest_of_file(place: Path) -> bytes:
    digest = blake3()
    with looked_up(f"could not read {place}"), open(place, "rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.digest()


def _raise(error: OSError) -> None:
    raise error


def _fault(path: str, parts: list[str], limits: Limits) -> str:
    if path.startswith("/"):
        return "it is absolute"
    if any(part in ("", ".", "..") for part in parts):
        return "it has empty parts, '.' or '..'"
    if "\\" in path:
        return "it has a backslash"
    if _is_odd(path):
        return "it has control characters, or is no UTF-8"
    if len(parts) > limits.depth:
        return f"it is more than {limits.depth} folders deep"
    if any(len(part.encode()) > 255 for part in parts) or len(path.encode()) > limits.path_bytes:
        return "it is too long"
    return ""


def _is_odd(text: str) -> bool:
    return any(
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or char in "\u202a\u202b\u202c"
        "\u202d\u202e\u2066\u2067\u2068\u2069" for char in text
    )  # fmt: skip
