"""One server for one database and one folder: two would start every attempt twice."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from onward.errors import UsageError
from onward.server.database import Database

_KEY = 0x6F6E77617264  # "onward"


class Alone:
    """Held as long as this server may act."""

    def __init__(self, database: Database) -> None:
        self._connection = None
        if not database.is_sqlite:
            self._connection = database.engine.connect().execution_options(
                isolation_level="AUTOCOMMIT"
            )
            got = self._connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), {"key": _KEY})
            if not got:
                self.release()
                raise UsageError(
                    "another server uses this database",
                    do="stop it first, or give another --database",
                )

    def still(self) -> bool:
        """Whether the database still keeps others out for us. A broken connection gave it away."""
        if self._connection is None:
            return True  # SQLite is in the folder, and the kernel keeps that
        try:
            self._connection.execute(text("SELECT 1"))
        except DBAPIError:
            return False
        return True

    def release(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a server's folder. Raises `UsageError`, naming the server that has it."""
    path = folder / "server.lock"
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UsageError(
                f"another server uses {folder}",
                why=lock.read(200).strip() or "it holds the lock",
                do="stop it first, or give another --folder",
            ) from None
        lock.truncate(0)
        lock.write(f"{socket.gethostname()} pid {os.getpid()}\n")
        lock.flush()
        yield
