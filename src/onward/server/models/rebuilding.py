"""The index made again from outputs: models, checkpoints, lineage. Nothing in an output changes.

What only the database knew is not in outputs: jobs, schedules, tokens, audit. A backup has these.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onward.errors import Missing, OnwardError, UsageError
from onward.server.alone import Alone, alone_in
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Secret, Storage
from onward.server.models.syncing import enter_model, sync_model
from onward.server.names import now_s
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.storages import (
    checked_path,
    list_storages,
    open_resolved,
    register,
    resolve_in,
)
from onward.stores.objects import ObjectStore

_FIRST_RECORD = "onward/log/00000000000000000000.json"
_OWN = "onward"
_DEEPEST = 32


@dataclass(slots=True)
class Rebuilt:
    """What was found: locations of outputs, and why others cannot be read."""

    storages: list[str] = field(default_factory=list)
    models: list[str] = field(default_factory=list)
    checkpoints: int = 0
    problems: dict[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        return {
            "storages": self.storages, "models": self.models, "checkpoints": self.checkpoints,
            "problems": self.problems,
        }  # fmt: skip


def rebuild_index(
    settings: Settings,
    *,
    storages: Mapping[str, str],
    secrets: Mapping[str, Mapping[str, str]],
    say: Callable[[str], None],
) -> Rebuilt:
    """Opens the database, makes its tables where there are none, and rebuilds.

    Raises `UsageError` while a server uses the folder or the database.
    """
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with alone_in(settings.folder):
        database = open_database(settings.database_url)
        try:
            alone = Alone(database)
            try:
                migrate(database)
                return rebuild(settings, database, storages=storages, secrets=secrets, say=say)
            finally:
                alone.release()
        finally:
            database.close()


def rebuild(
    settings: Settings,
    database: Database,
    *,
    storages: Mapping[str, str] | None = None,
    secrets: Mapping[str, Mapping[str, str]] | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Rebuilt:
    """Indexes every output under the registered storages, and under those that are given.

    `storages`: alias → URL, registered if they are not yet. `secrets`: alias → variable → name of a
    secret, whose file must be there. Doing it again changes nothing.
    """
    wanted = dict(secrets or {})
    unknown = sorted(wanted.keys() - (storages or {}).keys())
    if unknown:
        raise UsageError(f"secrets for {unknown[0]!r}, which is no --storage that is given")
    with database.write() as session:
        for alias, url in (storages or {}).items():
            for name in wanted.get(alias, {}).values():
                read_secret(settings, name)
                if session.get(Secret, name) is None:
                    session.add(Secret(name=name, created_at=now_s(), created_by="rebuild"))
                    session.flush()
            if session.get(Storage, alias) is None:
                register(session, settings, alias, url, by="rebuild", environment=wanted.get(alias))
    done = Rebuilt()
    with database.read() as session:
        known = list_storages(session)
    for storage in known:
        done.storages.append(storage.alias)
        try:
            for path in outputs_in(settings, storage):
                _index(settings, database, f"{storage.alias}:{path}", done, say)
        except OnwardError as error:
            done.problems[f"{storage.alias}:"] = str(error.what)
    return done


def outputs_in(settings: Settings, storage: Storage) -> Iterator[str]:
    """The paths of all outputs in a storage, found by the first record of their log."""
    place = resolve_in(storage, "")
    if place.root:
        yield from _in_folder(place.root)
        return
    store = open_resolved(settings, place, deadline_s=60.0)
    assert isinstance(store, ObjectStore)
    yield from _in_bucket(store, "", 0)


def _in_folder(root: str) -> Iterator[str]:
    for above, folders, _ in os.walk(root):
        path = "" if above == root else os.path.relpath(above, root)
        if os.path.isfile(os.path.join(above, _FIRST_RECORD)) and _is_location(path):
            yield path
            folders.remove(_OWN)
        if path.count(os.sep) >= _DEEPEST:
            folders.clear()
        folders.sort()


def _in_bucket(store: ObjectStore, path: str, depth: int) -> Iterator[str]:
    folders, _ = store.look_into(path)
    if _OWN in folders:
        try:
            store.size(f"{path}/{_FIRST_RECORD}" if path else _FIRST_RECORD)
        except Missing:
            pass
        else:
            if _is_location(path):
                yield path
            folders = [name for name in folders if name != _OWN]
    for name in sorted(folders) if depth < _DEEPEST else ():
        yield from _in_bucket(store, f"{path}/{name}" if path else name, depth + 1)


def _is_location(path: str) -> bool:
    try:
        checked_path(path)
    except UsageError:
        return False
    return True


def _index(
    settings: Settings, database: Database, location: str, done: Rebuilt, say: Callable[[str], None]
) -> None:
    with database.write() as session:
        model = enter_model(session, location).id
    row = sync_model(settings, database, model)
    if row.problem:
        done.problems[location] = row.problem
        say(f"{location}: {row.problem}")
        return
    count = int(row.facts.get("checkpoints", 0))
    done.models.append(location)
    done.checkpoints += count
    say(f"{location}: {count:,} checkpoints")
