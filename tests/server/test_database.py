"""The database: its tables are what the migrations make, and a write is all or nothing."""

from __future__ import annotations

import threading

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from onward.errors import NewerFormat, UsageError
from onward.server.database import Base, Database, Overtaken, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Job, Move
from onward.server.jobs.moves import move_job
from onward.server.jobs.requests import find_job, submit
from onward.server.problems import IllegalMove
from onward.server.spec import JobRequest
from tests.server.places import name_storage

REQUEST = JobRequest.model_validate(
    {
        "name": "one",
        "command": ["train.py"],
        "code": {"digest": "0" * 64},
        "output": {"location": "here:out"},
    }
)


@pytest.fixture(autouse=True)
def _here(database: Database) -> None:
    name_storage(database, "here")


def test_the_migrations_make_the_tables_that_the_code_describes(database: Database) -> None:
    """Whoever changes a table changes a migration."""
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_migrating_twice_changes_nothing_and_a_newer_database_is_refused(
    database: Database,
) -> None:
    """An older server never writes into tables that it does not know."""
    migrate(database)
    with database.write() as session:
        session.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(NewerFormat, match="newer Onward"):
        migrate(database)


def test_a_write_that_raises_leaves_nothing(database: Database) -> None:
    """A job and its moves are written together or not at all."""

    def half() -> None:
        with database.write() as session:
            submit(session, REQUEST, by="test")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        half()
    with database.read() as session:
        assert session.query(Job).count() == 0


def test_of_many_movers_one_wins_and_the_others_are_told(database: Database) -> None:
    """Eight threads move one job at once: one move, one entry in the timeline."""
    with database.write() as session:
        job_id = submit(session, REQUEST, by="test").id
    ends: list[str] = []
    start = threading.Barrier(8)

    def move() -> None:
        with database.read() as session:
            job = find_job(session, job_id)
        start.wait()
        try:
            with database.write() as session:
                move_job(session, job, "running", by="test")
            ends.append("won")
        except (Overtaken, IllegalMove) as error:
            ends.append(type(error).__name__)

    threads = [threading.Thread(target=move) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == ["Overtaken"] * 7 + ["won"]
    with database.read() as session:
        job = find_job(session, job_id)
        assert (job.state, job.version) == ("running", 2)
        assert session.query(Move).count() == 1


def test_an_illegal_move_names_the_state(database: Database) -> None:
    """What has ended stays ended."""
    with database.write() as session:
        job = submit(session, REQUEST, by="test")
        move_job(session, job, "cancelled", by="test")
        with pytest.raises(IllegalMove, match="is cancelled"):
            move_job(session, job, "queued", by="test")


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("mysql://root@localhost/x", "use sqlite"),
        ("nonsense", "cannot be understood"),
        ("postgresql://nobody:hidden@127.0.0.1:1/none", "does not open"),
    ],
)
def test_a_database_that_cannot_be_is_refused_without_its_password(url: str, what: str) -> None:
    """A typed error, which says what to do and shows no secret."""
    with pytest.raises(UsageError) as caught:
        open_database(url)
    assert what in str(caught.value)
    assert "hidden" not in str(caught.value)
