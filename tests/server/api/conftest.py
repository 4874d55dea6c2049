"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from onward.server.database import Database
from tests.server.api.house import House


@pytest.fixture
def house(tmp_path: Path, database: Database) -> House:
    """A server's API without a scheduler, on SQLite and on PostgreSQL."""
    return House(tmp_path, database)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server's own log stays out of what commands in the same process print."""
    with capture_logs():
        yield
