"""Fixtures for scheduling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onward.engines.machine import ThisMachine
from onward.server.database import open_database
from onward.server.database.migrating import migrate
from tests.server.scheduling.workshop import Workshop


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workshop]:
    """Real agents on this machine."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    url = f"sqlite:///{tmp_path}/onward.db"
    database = open_database(url)
    migrate(database)
    shop = Workshop(tmp_path, database, ThisMachine(), url=url)
    yield shop
    for folder in shop.settings.attempts.glob("*"):
        shop.engine.destroy(folder)
        shop.engine.destroy(folder)
    database.close()
