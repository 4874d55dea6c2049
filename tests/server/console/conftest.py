"""A console over an empty database, and a browser without JavaScript."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from onward.engines.machine import ThisMachine
from onward.server.app import Parts, make_app
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from tests.server.console.pages import Page


@dataclass
class Browser:
    """Asks for pages as a browser does; follows no redirect by itself."""

    client: TestClient
    database: Database
    settings: Settings
    headers: dict[str, str] = field(default_factory=dict)

    def get(self, path: str, **headers: str) -> Page:
        sent = {"accept": "text/html", **self.headers, **_names(headers)}
        return Page(self.client.get(path, headers=sent, follow_redirects=False))

    def post(self, path: str, fields: dict[str, Any] | None = None, **headers: str) -> Page:
        sent = {"accept": "text/html", **self.headers, **_names(headers)}
        return Page(self.client.post(path, data=fields or {}, headers=sent, follow_redirects=False))

    def submit(self, page: Page, action: str, **fields: Any) -> Page:
        """Sends the form of a page that goes to `action`, with what it holds already."""
        return self.post(action, {**page.form(action), **fields})


def _names(headers: dict[str, str]) -> dict[str, str]:
    return {re.sub("_", "-", name): value for name, value in headers.items()}


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """Signed in as an administrator, in English."""
    # Nothing runs: jobs stay as tests move them.
    settings = Settings(folder=tmp_path / "server", tick_s=1e6)
    database = open_database(settings.database_url)
    migrate(database)
    with database.write() as session:
        _, token = make_token(session, "ada", "admin", by="test")
    app = make_app(Parts(settings, database, ThisMachine()))
    with TestClient(app, base_url="http://127.0.0.1:8420") as client:
        yield Browser(client, database, settings, {"authorization": f"Bearer {token}"})
    database.close()
