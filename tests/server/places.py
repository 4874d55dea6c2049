"""Storages for tests that only name locations and never go there."""

from __future__ import annotations

from onward.server.database import Database
from onward.server.database.tables import Storage


def name_storage(database: Database, alias: str) -> None:
    """Registers a bucket that nobody will ask; again changes nothing."""
    with database.write() as session:
        session.merge(
            Storage(
                alias=alias, url=f"s3://onward-{alias}", single_writer=False, environment={},
                created_at=0.0, created_by="test",
            )
        )  # fmt: skip
