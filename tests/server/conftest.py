"""What tests of the server share: a database of either kind, an application over it, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.security.tokens import SCOPES, make_token
from onward.server.settings import Settings
from tests.postgresql import PostgreSQL, postgresql
from tests.server.kills.lives import Ground
from tests.server.process import ServerProcess
from tests.server.scheduling.workshop import Workshop

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def postgresql_cluster() -> Iterator[PostgreSQL]:
    """One for all tests of a process."""
    with postgresql() as cluster:
        yield cluster


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database with today's tables: SQLite, then PostgreSQL."""
    if request.param == "postgresql":
        cluster: PostgreSQL = request.getfixturevalue("postgresql_cluster")
        return cluster.new_database(_prepared)
    url = f"sqlite:///{tmp_path / 'server' / 'onward.db'}"
    _prepared(url)
    return url


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Open, and empty but for its tables."""
    found = open_database(database_url)
    yield found
    found.close()


@pytest.fixture
def settings(tmp_path: Path, database_url: str, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A folder of its own, for working copies as well."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    return Settings(folder=tmp_path / "server", database=database_url, tick_s=0.02)


@pytest.fixture
def parts(settings: Settings, database: Database) -> Parts:
    """Real agents on this machine, where a test's client starts the supervisor."""
    return Parts(settings, database, ThisMachine())


@pytest.fixture
def tokens(database: Database) -> dict[str, str]:
    """A token's text for each scope, under the scope's name."""
    with database.write() as session:
        return {
            scope: make_token(session, f"{scope}-token", scope, by="test")[1] for scope in SCOPES
        }


@pytest.fixture
def client(parts: Parts, tokens: dict[str, str]) -> Iterator[TestClient]:
    """The application, its supervisor running, asked as an administrator."""
    with TestClient(
        make_app(parts),
        base_url="http://127.0.0.1:8420",
        headers={"authorization": f"Bearer {tokens['admin']}"},
    ) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path, database_url: str) -> Iterator[ServerProcess]:
    """A real `onward serve`, to be killed and started again."""
    process = ServerProcess(tmp_path / "served", database_url)
    process.start()
    yield process
    process.stop()


@pytest.fixture
def workshop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database, database_url: str
) -> Iterator[Workshop]:
    """Real agents on this machine."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    shop = Workshop(tmp_path, database, ThisMachine(), url=database_url)
    yield shop
    for folder in shop.settings.attempts.glob("*"):
        shop.engine.destroy(folder)
        shop.engine.destroy(folder)


@pytest.fixture(scope="session")
def ground() -> Iterator[Ground]:
    """Where servers come from that are killed."""
    found = Ground()
    yield found
    found.end()


def _prepared(url: str) -> None:
    database = open_database(url)
    migrate(database)
    database.close()
