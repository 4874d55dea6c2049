"""Pinning code: read where it comes from once, stored by digest, copied for every attempt.

    settings.code/
      tmp-<random>/tree/…     being written; whoever starts a server removes what is left
      <digest>/tree/…         whole, and never written again

A folder gets its final name when everything in it is durable; then the database learns of it. Dying
between the two leaves a tree that the next pin of the same code finds and only has to enter.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from onward.errors import Damaged
from onward.server.code.archives import unpack
from onward.server.code.folders import fetched, gather
from onward.server.code.git import Addresses, gather_git
from onward.server.code.limits import Limits
from onward.server.code.tree import Tree, digest_of, walk
from onward.server.database import Database
from onward.server.database.tables import Code
from onward.server.names import now_s
from onward.server.problems import BadCode, NotFound
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.spec import CodeSpec
from onward.stores import Store
from onward.stores.os_errors import written

OpenAt = Callable[[str], Store]
"""From a location (`alias:path`) of a registered storage to its store. Raises `OnwardError`."""

_TEMPORARY = "tmp-"


@dataclass(frozen=True, slots=True)
class Pinned:
    """A tree that is stored; `source` is for people."""

    digest: str
    source: str
    files: int
    size_bytes: int

    @property
    def code(self) -> CodeSpec:
        """How a job names it."""
        return CodeSpec(digest=self.digest, source=self.source)


def pin_code(
    settings: Settings, database: Database, code: CodeSpec, *, by: str, open_at: OpenAt,
    addresses: Addresses, limits: Limits | None = None,
) -> Pinned:  # fmt: skip
    """Stores the code as it is now. Doing it again stores nothing twice.

    Raises `BadCode` for what is no code or is hostile, `NotFound` for an unknown digest, and what
    the storage raises.
    """
    if code.digest is not None:
        with database.read() as session:
            return _pinned(find_code(session, code.digest))

    def bring(tree: Tree) -> str:
        if code.folder is not None:
            gather(open_at(code.folder), tree)
            return code.folder
        if code.archive is not None:
            above, _, name = code.archive.rpartition("/")
            if not above:
                above, _, name = code.archive.partition(":")
                above += ":"
            if not name:
                raise BadCode(f"{code.archive!r} names no archive", do="give a file of a storage")
            with fetched(open_at(above), name, tree.limits) as file:
                unpack(file, tree)
            return code.archive
        assert code.git is not None
        password = read_secret(settings, code.secret).strip() if code.secret else ""
        commit = gather_git(code.git, code.revision, tree, addresses=addresses, password=password)
        named = f" ({code.revision})" if code.revision not in ("", commit) else ""
        return f"{code.git} at {commit}{named}"

    return _enter(database, _store(settings, bring, limits or Limits()), by=by)


def pin_archive(
    settings: Settings, database: Database, file: IO[bytes], *, by: str, name: str = "",
    limits: Limits | None = None,
) -> Pinned:  # fmt: skip
    """Stores an archive that somebody sent. Raises `BadCode`."""

    def bring(tree: Tree) -> str:
        unpack(file, tree)
        return f"uploaded by {by}" + (f": {name}" if name else "")

    return _enter(database, _store(settings, bring, limits or Limits()), by=by)


def find_code(session: Session, digest: str) -> Code:
    """Raises `NotFound`."""
    row = session.get(Code, digest)
    if row is None:
        raise NotFound(
            f"no code with the digest {digest!r} is stored here",
            do="name its folder, git repository or archive instead",
        )
    return row


def checked_tree(settings: Settings, digest: str) -> Path:
    """Where the tree is, to be copied for an attempt: scripts may write where they are, and a link
    would let them change what is pinned. Raises `Damaged` if it is not what was pinned."""
    place = settings.code / digest
    if not _is_whole(place, digest):
        raise Damaged(
            f"the code {digest[:12]}… is not stored as it was pinned",
            why=f"{place} is missing or was changed",
            do="submit the job again from its source, which stores it anew",
        )
    return place / "tree"


def tree_of(settings: Settings, digest: str) -> Path:
    """Where a tree is, if it is stored."""
    return settings.code / digest / "tree"


def paths_of(settings: Settings, digest: str) -> list[str]:
    """Every path of a tree. Raises `Damaged` if it is not there any more."""
    tree = tree_of(settings, digest)
    if not tree.is_dir():
        raise Damaged(
            f"the code {digest[:12]}… is not stored any more", why=f"{tree} is missing",
            do="name its folder, git repository or archive, which stores it anew",
        )  # fmt: skip
    return [path for path, _ in walk(tree)]


def clear_unfinished(settings: Settings) -> None:
    """Removes what a server left that died while it pinned. Only for when a server starts."""
    if settings.code.is_dir():
        for left in settings.code.glob(f"{_TEMPORARY}*"):
            shutil.rmtree(left, ignore_errors=True)


def _store(settings: Settings, bring: Callable[[Tree], str], limits: Limits) -> Pinned:
    with written(f"could not store code in {settings.code}"):
        settings.code.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=settings.code))
    try:
        folder = temporary / "tree"
        folder.mkdir()
        tree = Tree(folder, limits)
        source = bring(tree)
        digest = tree.finish()
        _publish(temporary, settings.code / digest, digest)
        return Pinned(digest, source[:4000], tree.files, tree.size_bytes)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _publish(temporary: Path, final: Path, digest: str) -> None:
    with written(f"could not store code in {final.parent}"):
        for above, _, _ in os.walk(temporary):
            _fsync_folder(Path(above))
        if final.is_dir() and not _is_whole(final, digest):
            # A disk lost some of it, or somebody changed it: this is what it was.
            final.rename(temporary.with_name(temporary.name + "-damaged"))
            shutil.rmtree(temporary.with_name(temporary.name + "-damaged"), ignore_errors=True)
        try:
            temporary.rename(final)
        except OSError as error:
            # The same code is stored already, and stays.
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        _fsync_folder(final.parent)


def _is_whole(final: Path, digest: str) -> bool:
    try:
        return digest_of(final / "tree") == digest
    except OSError:
        return False


def _fsync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _enter(database: Database, pinned: Pinned, *, by: str) -> Pinned:
    """The row of a tree; whoever was first stays its source."""
    try:
        with database.write() as session:
            if session.get(Code, pinned.digest) is None:
                session.add(
                    Code(
                        digest=pinned.digest, source={"text": pinned.source}, files=pinned.files,
                        size_bytes=pinned.size_bytes, created_at=now_s(), created_by=by,
                    )
                )  # fmt: skip
    except IntegrityError:
        pass  # PostgreSQL: the same code was pinned at the same moment
    return pinned


def _pinned(row: Code) -> Pinned:
    source: Any = row.source.get("text", "")
    return Pinned(row.digest, str(source), row.files, row.size_bytes)
