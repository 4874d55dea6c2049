"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onward.server.database import open_database
from onward.server.database.migrating import migrate
from tests.server.api.house import House


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """A server's API, on SQLite."""
    database = open_database(f"sqlite:///{tmp_path}/onward.db")
    migrate(database)
    yield House(tmp_path, database)
    database.close()
