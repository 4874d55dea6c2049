"""Fixtures of the API's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from onward.cli import main
from onward.server.database import Database
from tests.server.api.house import House

Onward = Callable[..., Result]


@pytest.fixture
def house(tmp_path: Path, database: Database) -> House:
    """A server's API without a scheduler, on SQLite and on PostgreSQL."""
    return House(tmp_path, database)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The server's own log stays out of what commands in the same process print."""
    with capture_logs():
        yield


@pytest.fixture
def onward(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Onward]:
    """Runs a command with a login of its own."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)

    def call(*args: object, code: int = 0, **options: Any) -> Result:
        result = CliRunner().invoke(main, [str(a) for a in args], prog_name="onward", **options)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    with house.served() as client:
        token = house.headers["authorization"].removeprefix("Bearer ")
        call("login", str(client.base_url), input=token + "\n")
        yield call
