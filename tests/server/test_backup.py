"""Backups: taken while a server serves, put into a new place, gone on with."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from onward.errors import Damaged, UsageError
from onward.server.app import Parts
from onward.server.backup import back_up, restore
from onward.server.database import open_database
from onward.server.database.tables import Job
from onward.server.jobs.requests import submit
from onward.server.settings import Settings
from tests.postgresql import PostgreSQL
from tests.server.places import name_storage
from tests.server.test_database import REQUEST


def filled(parts: Parts) -> None:
    """A job, a secret, a log."""
    name_storage(parts.database, "here")
    with parts.database.write() as session:
        submit(session, REQUEST, by="test")
    (parts.settings.secrets).mkdir(parents=True)
    (parts.settings.secrets / "key").write_text("canary")
    (parts.settings.attempts / "att-1").mkdir(parents=True)
    (parts.settings.attempts / "att-1" / "log").write_text("a line\n")


def elsewhere(settings: Settings, tmp_path: Path, request: pytest.FixtureRequest) -> Settings:
    """A new folder and an empty database of the same kind."""
    database = f"sqlite:///{tmp_path / 'new' / 'onward.db'}"
    if settings.database.startswith("postgresql"):
        cluster: PostgreSQL = request.getfixturevalue("postgresql_cluster")
        database = cluster.new_database()
    return replace(settings, folder=tmp_path / "new", database=database)


def test_what_a_backup_holds_is_there_again_after_a_restore(
    parts: Parts, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Jobs, logs, and (asked for) secrets; the backup itself is for its owner's eyes only."""
    filled(parts)
    file = tmp_path / "backup.tar.gz"
    back_up(parts.settings, file, secrets=True, logs=True)
    assert file.stat().st_mode & 0o777 == 0o600
    there = elsewhere(parts.settings, tmp_path, request)
    restore(there, file)
    assert (there.secrets / "key").read_text() == "canary"
    assert there.secrets.stat().st_mode & 0o777 == 0o700
    assert (there.attempts / "att-1" / "log").read_text() == "a line\n"
    database = open_database(there.database_url)
    with database.read() as session:
        assert [job.name for job in session.query(Job)] == ["one"]
    database.close()


def test_secrets_stay_unless_they_are_asked_for(parts: Parts, tmp_path: Path) -> None:
    """A backup is copied around; what opens the storages is not in it."""
    filled(parts)
    file = tmp_path / "backup.tar.gz"
    assert "secrets" not in back_up(parts.settings, file, secrets=False, logs=False)
    with tarfile.open(file) as archive:
        assert not [name for name in archive.getnames() if "secrets" in name or "attempts" in name]


def test_nothing_is_replaced(parts: Parts, tmp_path: Path) -> None:
    """Neither an earlier backup nor a server that is there already."""
    filled(parts)
    file = tmp_path / "backup.tar.gz"
    back_up(parts.settings, file, secrets=False, logs=True)
    before = file.read_bytes()
    with pytest.raises(UsageError, match="exists"):
        back_up(parts.settings, file, secrets=False, logs=True)
    assert file.read_bytes() == before
    with pytest.raises(UsageError, match="not empty"):
        restore(parts.settings, file)


def test_a_broken_backup_is_refused(
    parts: Parts, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A truncated file is damage, said as such."""
    filled(parts)
    file = tmp_path / "backup.tar.gz"
    back_up(parts.settings, file, secrets=False, logs=True)
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(Damaged, match="cannot be read"):
        restore(elsewhere(parts.settings, tmp_path, request), file)
