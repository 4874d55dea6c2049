"""From `alias:path` of a registered storage to the place that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from onward.errors import UsageError
from onward.server.database.tables import Storage
from onward.server.problems import NotFound


@dataclass(frozen=True, slots=True)
class Resolved:
    """A place. `environment`: variables that its store needs, and the secrets they get."""

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    single_writer: bool = False


def resolve(session: Session, location: str) -> Resolved:
    """Raises `NotFound` for an alias that nobody registered, `UsageError` for a path out of it."""
    alias, colon, path = location.partition(":")
    storage = session.get(Storage, alias) if colon else None
    if storage is None:
        raise NotFound(f"there is no storage {alias!r}", do="an administrator registers storages")
    if path.startswith("/") or ".." in path.split("/"):
        raise UsageError(f"the path {path!r} leaves its storage")
    url = f"{storage.url.rstrip('/')}/{path}" if path else storage.url
    return Resolved(url, dict(storage.environment), storage.single_writer)
