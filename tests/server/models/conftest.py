"""A storage with outputs, as training runs leave them: no framework is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onward.server.app import Parts
from onward.server.models import add_model
from onward.server.storages import register
from tests.cli.scored import Scored, answers

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
    output = Scored(lab / "digits")
    output.freeze("first", 1)
    output.increment(1, first=answers())
    output.freeze("second", 2)
    output.increment(
        2, "no change", before_second=answers(lost=900), first=answers(lost=1, won=1),
        second=answers(),
    )  # fmt: skip
    output.increment(3, "regression: first", first=answers(lost=400), second=answers())
    return output
