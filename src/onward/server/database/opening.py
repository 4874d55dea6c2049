"""Opening the database: SQLite that survives power cuts, or PostgreSQL."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session

from onward.errors import OnwardError, UsageError

_BUSY_S = 30.0


class Overtaken(OnwardError):
    """Somebody else moved the row first; look again, nothing was changed."""


class Database:
    """Gives out sessions. A `write` is committed when its block ends, and undone if it raises."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"
        # SQLite has one writer; waiting here is fair, and needs no polling.
        self._writing: Any = threading.RLock() if self.is_sqlite else nullcontext()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session that sees one moment. Rows stay usable after it."""
        with Session(self.engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction."""
        with self._writing, Session(self.engine, expire_on_commit=False) as session:
            if self.is_sqlite:
                session.connection().exec_driver_sql("BEGIN IMMEDIATE")
            yield session
            session.commit()

    def close(self) -> None:
        self.engine.dispose()


def open_database(url: str) -> Database:
    """Raises `UsageError` for a URL that cannot be meant, or a database that does not answer."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "postgresql":
            parsed = parsed.set(drivername="postgresql+psycopg")
        elif parsed.get_backend_name() != "sqlite":
            raise UsageError(
                f"the database is {parsed.get_backend_name()!r}",
                do="use sqlite:///FILE or postgresql://USER@HOST/NAME",
            )
        if parsed.get_backend_name() == "sqlite":
            engine = _sqlite(str(parsed.database or ""), parsed)
        else:
            engine = create_engine(
                parsed, pool_pre_ping=True, pool_size=20, max_overflow=20,
                isolation_level="READ COMMITTED",
            )  # fmt: skip
        with engine.connect():
            pass
    except (ArgumentError, NoSuchModuleError) as error:
        raise UsageError(
            "the database's URL cannot be understood",
            why=str(error),
            do="use sqlite:///FILE or postgresql://USER@HOST/NAME",
        ) from error
    except ImportError as error:
        raise UsageError(
            "a package for this database is missing",
            why=str(error),
            do="pip install 'onward[server,postgresql]'",
        ) from error
    except DBAPIError as error:
        raise UsageError(
            f"the database {make_url(url).render_as_string(hide_password=True)} does not open",
            why=str(error.orig),
            do="start it, or give another --database",
        ) from error
    return Database(engine)


def _sqlite(path: str, url: Any) -> Engine:
    if path and path != ":memory:":
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # Before SQLite makes it, so that nobody else can ever read it.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    engine = create_engine(url, connect_args={"timeout": _BUSY_S}, pool_size=20, max_overflow=30)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        # Python must not open transactions by itself: `write` says BEGIN IMMEDIATE.
        connection.isolation_level = None
        for pragma in (
            "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "cache_size=-16000",
            "temp_store=MEMORY",
        ):  # fmt: skip
            connection.execute(f"PRAGMA {pragma}")

    return engine
