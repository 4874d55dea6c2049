"""The application, and somebody who has no token for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from onward.server.app import Parts, make_app


@pytest.fixture
def app(parts: Parts) -> FastAPI:
    return make_app(parts)


@pytest.fixture
def stranger(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1:8420", follow_redirects=False) as found:
        yield found
