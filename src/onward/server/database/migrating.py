"""Bringing a database to this version's tables, and refusing those of newer versions."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from onward.errors import NewerFormat
from onward.server.database.opening import Database


def migrate(database: Database) -> None:
    """To the newest revision. Raises `NewerFormat` for a database of a newer Onward."""
    config = _config()
    newest = ScriptDirectory.from_config(config).get_current_head()
    with database.engine.connect() as connection:
        present = MigrationContext.configure(connection).get_current_revision()
    if present == newest:
        return
    if present is not None:
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if present not in known:
            raise NewerFormat(
                "the database was made by a newer Onward",
                why=f"its revision {present} is unknown here",
                do="use that version, or restore a backup of before",
            )
    with database.engine.begin() as connection:
        if database.is_sqlite:
            # Else every statement is a transaction: a server that dies here would leave some of the
            # tables, and none could start on them again.
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config
