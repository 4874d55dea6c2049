"""A storage with outputs, as training runs leave them: no framework is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onward.server.app import Parts
from onward.server.models import add_model
from onward.server.storages import register
from tests.cli.scored import Scored, three_increments

AddModel = Callable[[str], str]


@pytest.fixture
def lab(tmp_path: Path, parts: Parts) -> Path:
    """The folder of the storage `lab`."""
    folder = tmp_path / "lab"
    folder.mkdir()
    with parts.database.write() as session:
        register(session, parts.settings, "lab", str(folder), by="test")
    return folder


@pytest.fixture
def add(lab: Path, parts: Parts) -> AddModel:
    """Lists an output as a model; returns its id."""

    def make(name: str) -> str:
        with parts.database.write() as session:
            return add_model(session, f"lab:{name}").id

    return make


@pytest.fixture
def digits(lab: Path) -> Scored:
    """Three increments: the second is fine, the third forgets much of `first`."""
    return three_increments(lab / "digits")
