"""What tests of models share: the storage `lab`, and an output in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward.server.app import Parts
from tests.cli.scored import Scored, three_increments
from tests.server.lab import AddModel, adder, make_lab


@pytest.fixture
def lab(tmp_path: Path, parts: Parts) -> Path:
    """The folder of the storage `lab`."""
    return make_lab(tmp_path / "lab", parts.database, parts.settings)


@pytest.fixture
def add(lab: Path, parts: Parts) -> AddModel:
    """Lists an output as a model; returns its id."""
    return adder(parts.database)


@pytest.fixture
def digits(lab: Path) -> Scored:
    """Three increments: the second is fine, the third forgets much of `first`."""
    return three_increments(lab / "digits")
