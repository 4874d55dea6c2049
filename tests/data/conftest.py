"""Fixtures of the tests of data: a cache of their own, and files that count as settled."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward.data import listing


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as left alone for long, however new they are."""
    monkeypatch.setattr(listing, "RACY_NS", -3600 * 10**9)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty folder for data."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder
