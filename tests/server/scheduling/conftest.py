"""Fixtures for scheduling."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from onward.engines.machine import ThisMachine
from onward.server.database import Database
from tests.server.scheduling.workshop import Workshop


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
