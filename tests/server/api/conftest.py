"""Fixtures of the API's tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward.server.database import Database
from tests.server.api.house import House


@pytest.fixture
def house(tmp_path: Path, database: Database) -> House:
    """A server's API without a scheduler, on SQLite and on PostgreSQL."""
    return House(tmp_path, database)
