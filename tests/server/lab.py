"""A storage for outputs, as training runs leave them, and models of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onward.server.database import Database
from onward.server.models import add_model
from onward.server.settings import Settings
from onward.server.storages import register

AddModel = Callable[[str], str]
"""Lists an output of the lab as a model; returns its id."""


def make_lab(folder: Path, database: Database, settings: Settings) -> Path:
    """The folder of the storage `lab`."""
    folder.mkdir()
    with database.write() as session:
        register(session, settings, "lab", str(folder), by="test")
    return folder


def adder(database: Database) -> AddModel:
    def add(name: str) -> str:
        with database.write() as session:
            return add_model(session, f"lab:{name}").id

    return add
