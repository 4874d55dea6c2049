"""Backups: what a server has beside the outputs, in one file; taken while it serves."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy.engine import make_url

from onward.errors import Damaged, StoreError, UsageError
from onward.server.settings import Settings
from onward.stores.os_errors import written

_DATABASE = "onward.db"
_DUMP = "onward.dump"
_FOLDERS = ("code", "attempts")
_SECRETS = "secrets"


def back_up(settings: Settings, file: Path, *, secrets: bool, logs: bool) -> list[str]:
    """Writes a backup; returns the names of its parts. It is whole or absent.

    Secrets are left out unless asked for, since whoever has them has the storages. Raises
    `UsageError` if there is nothing to back up, or the file exists.
    """
    if file.exists():
        raise UsageError(f"{str(file)!r} exists", do="give the name of a new file")
    parts = [name for name in _FOLDERS if name != "attempts" or logs]
    parts += [_SECRETS] if secrets else []
    with tempfile.TemporaryDirectory(dir=settings.folder, prefix="backup-") as scratch:
        dump = _dump_database(settings, Path(scratch))
        partial = file.with_name(f".{file.name}.partial")
        try:
            with written(f"the backup {file} was not written"), open(partial, "xb") as raw:
                os.fchmod(raw.fileno(), 0o600)
                with tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as archive:
                    # The database first: the folders hold all that it names, and maybe more.
                    archive.add(dump, arcname=dump.name)
                    for name in parts:
                        _add(archive, settings.folder / name, name)
                raw.flush()
                os.fsync(raw.fileno())
            os.link(partial, file)
        except FileExistsError as error:
            raise UsageError(f"{str(file)!r} is being written", do="give a new name") from error
        finally:
            with contextlib.suppress(OSError):
                partial.unlink()
    return [dump.name, *parts]


def restore(settings: Settings, file: Path) -> list[str]:
    """Puts a backup into an empty folder (and an empty database); returns the names of its parts.

    What ran when the backup was made is found dead when the server starts, and is tried again as
    after any crash. Raises `UsageError` where something is there already, `Damaged` for a broken
    file.
    """
    folder = settings.folder
    if folder.exists() and any(path.name != "server.lock" for path in folder.iterdir()):
        raise UsageError(
            f"{folder} is not empty", why="a backup replaces nothing", do="give a new --folder"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with tarfile.open(file) as archive:
            # `data`: nothing outside of the folder, no devices, no links that lead away.
            archive.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"there is no file {str(file)!r}") from error
        raise Damaged(f"the backup {file} cannot be read", why=str(error)) from error
    found = sorted(path.name for path in folder.iterdir() if path.name != "server.lock")
    if _DUMP in found:
        _load_dump(settings, folder / _DUMP)
        (folder / _DUMP).unlink()
    elif _DATABASE not in found:
        raise Damaged(f"the backup {file} holds no database", do="take another one")
    elif settings.database and not settings.database.startswith("sqlite"):
        raise UsageError("the backup is of a SQLite database", do="restore it without --database")
    secret = folder / _SECRETS
    if secret.is_dir():
        secret.chmod(0o700)
    return found


def _dump_database(settings: Settings, scratch: Path) -> Path:
    url = make_url(settings.database_url)
    if url.get_backend_name() == "postgresql":
        target = scratch / _DUMP
        _run(["pg_dump", "--format=custom", "--no-owner", f"--file={target}"], settings)
        return target
    source = Path(str(url.database))
    if not source.is_file():
        raise UsageError(f"there is no database {str(source)!r}", do="give the server's --folder")
    target = scratch / _DATABASE
    with (
        contextlib.closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as live,
        contextlib.closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
    return target


def _load_dump(settings: Settings, dump: Path) -> None:
    if make_url(settings.database_url).get_backend_name() != "postgresql":
        raise UsageError(
            "the backup is of a PostgreSQL database",
            do="give --database with the URL of an empty one",
        )
    _run(["pg_restore", "--no-owner", "--exit-on-error", "--single-transaction", str(dump)],
         settings)  # fmt: skip


def _run(command: Sequence[str], settings: Settings) -> None:
    url = make_url(settings.database_url).set(drivername="postgresql")
    program = shutil.which(command[0]) or next(iter(_installed(command[0])), None)
    if program is None:
        raise UsageError(
            f"the program {command[0]} is missing", do="install PostgreSQL's client programs"
        )
    environment = {**os.environ, **({"PGPASSWORD": str(url.password)} if url.password else {})}
    target = url.set(password=None).render_as_string()
    done = subprocess.run(
        [program, *command[1:], f"--dbname={target}"], env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise StoreError(f"{command[0]} failed", why=done.stderr.strip()[-2000:])


def _installed(program: str) -> Iterator[str]:
    for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), reverse=True):
        yield str(path)


def _add(archive: tarfile.TarFile, path: Path, name: str) -> None:
    """Adds a folder as it is now; what vanishes or grows meanwhile is no error."""
    try:
        children = sorted(path.iterdir())
        archive.add(path, arcname=name, recursive=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    for child in children:
        inner = f"{name}/{child.name}"
        if child.is_dir() and not child.is_symlink():
            _add(archive, child, inner)
            continue
        try:
            info = archive.gettarinfo(str(child), arcname=inner)
            if not info.isreg():
                continue
            with child.open("rb") as file:
                archive.addfile(info, _Exactly(file, info.size))
        except FileNotFoundError:
            continue


class _Exactly:
    """A log that is being written: as many bytes as were announced, whatever comes after."""

    def __init__(self, file: object, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, size: int = -1, /) -> bytes:
        data: bytes = self._file.read(min(size, self._left) if size >= 0 else self._left)  # type: ignore[attr-defined]
        self._left -= len(data)
        return data
