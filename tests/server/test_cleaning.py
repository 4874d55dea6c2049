"""Cleaning a server's folder: only what ended long ago, only what nobody needs, and never half."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from sqlalchemy import update

from onward.cli import main
from onward.engines.folder import take
from onward.errors import UsageError
from onward.server import cleaning
from onward.server.cleaning import clean
from onward.server.database import Database
from onward.server.database.tables import Job
from onward.server.names import now_s
from onward.server.settings import Settings
from tests.server.api.house import Attempted, House

DAY_S = 86_400.0


@pytest.fixture
def house(tmp_path: Path, database: Database) -> House:
    return House(tmp_path, database)


@pytest.fixture
def settings(house: House, database_url: str) -> Settings:
    return Settings(folder=house.settings.folder, database=database_url)


def ended(house: House, *, days_ago: float) -> Attempted:
    """An attempt of a job that ended then, with all that one leaves."""
    job = house.job()
    attempt = house.attempt(job)
    attempt.prints("printed\n" * 2000)
    attempt.trains(1, 2)
    (attempt.folder / "work").mkdir()
    (attempt.folder / "work/notes").write_text("of the script")
    (attempt.folder / "job.json").write_text("{}")
    (attempt.folder / "agent.json").write_text("{}")
    attempt.ends()
    house.end(job)
    with house.database.write() as session:
        session.execute(
            update(Job).where(Job.id == job).values(ended_at=now_s() - days_ago * DAY_S)
        )
    return attempt


def names(attempt: Attempted) -> set[str]:
    return {path.name for path in attempt.folder.iterdir()}


def test_what_ended_long_ago_is_freed_and_nothing_else(house: House, settings: Settings) -> None:
    """Younger jobs and those that go on keep all; a dry run frees nothing and says as much."""
    old, young = ended(house, days_ago=100), ended(house, days_ago=80)
    going = house.attempt(house.job())
    going.prints("going\n")
    before = {each.id: names(each) for each in (old, young, going)}
    dry = clean(settings, 90 * DAY_S, now_s=now_s(), dry_run=True)
    assert {each.id: names(each) for each in (old, young, going)} == before
    done = clean(settings, 90 * DAY_S, now_s=now_s(), dry_run=False)
    assert (done.attempts, done.left) == ([old.id], {})
    assert done == dry
    assert done.freed_bytes >= 16_000
    assert names(old) == {"job.json", "agent.json", "outcome.json", "cleaned.json"}
    assert {each.id: names(each) for each in (young, going)} == {
        each.id: before[each.id] for each in (young, going)
    }
    assert clean(settings, 90 * DAY_S, now_s=now_s(), dry_run=False).attempts == []
    shown = house.client.get(f"/api/v1/jobs/{old.job}/log")
    assert (shown.status_code, shown.json()["lines"]) == (200, [])
    assert house.client.get(f"/api/v1/jobs/{old.job}").json()["state"] == "succeeded"
    page = house.client.get(f"/jobs/{old.job}", headers={"accept": "text/html"})
    assert "Log and metrics were freed by an administrator." in page.text
    raw = house.client.get(f"/api/v1/jobs/{old.job}/log/raw")
    assert (raw.status_code, "freed it on" in raw.json()["why"]) == (404, True)


def test_who_lives_or_has_not_pushed_is_left(house: House, settings: Settings) -> None:
    """Whatever the database says; each is named with why."""
    lives, unpushed = ended(house, days_ago=9), ended(house, days_ago=9)
    (lives.folder / "agent.json").unlink()
    lock = take(lives.folder, 1)
    assert lock is not None
    (unpushed.folder / "outcome.json").write_text(json.dumps({"lost": ["step 7"]}))
    before = names(lives), names(unpushed)
    done = clean(settings, DAY_S, now_s=now_s(), dry_run=False)
    assert done.attempts == []
    assert set(done.left) == {lives.id, unpushed.id}
    assert (names(lives), names(unpushed)) == before


def test_no_link_is_followed(house: House, settings: Settings, tmp_path: Path) -> None:
    """Scripts own the folder: what a link in it names stays."""
    attempt = ended(house, days_ago=9)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").write_text("stays")
    (attempt.folder / "work/link").symlink_to(elsewhere)
    (attempt.folder / "other").symlink_to(elsewhere)
    clean(settings, DAY_S, now_s=now_s(), dry_run=False)
    assert names(attempt) == {"job.json", "agent.json", "outcome.json", "cleaned.json"}
    assert (elsewhere / "file").read_text() == "stays"


def test_a_clean_that_died_is_finished(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each removal: the folder says that it was cleaned, and the next clean frees the rest."""
    remove = cleaning._remove
    for dies_at in range(3):
        attempt = ended(house, days_ago=9)
        removed: list[Path] = []

        def dying(path: Path, at: int = dies_at, removed: list[Path] = removed) -> None:
            if len(removed) == at:
                raise KeyboardInterrupt
            removed.append(path)
            remove(path)

        with monkeypatch.context() as broken:
            broken.setattr(cleaning, "_remove", dying)
            with pytest.raises(KeyboardInterrupt):
                clean(settings, DAY_S, now_s=now_s(), dry_run=False)
        assert "cleaned.json" in names(attempt)
        assert clean(settings, DAY_S, now_s=now_s(), dry_run=False).attempts == [attempt.id]
        assert names(attempt) == {"job.json", "agent.json", "outcome.json", "cleaned.json"}


def test_the_command(house: House, settings: Settings, tmp_path: Path) -> None:
    """Says how much; less than a day, or a folder without a server, is refused."""
    attempt = ended(house, days_ago=9)
    place = ["--folder", str(settings.folder), "--database", settings.database]
    call = ["server", "clean", "--older-than", "2d", *place]
    assert "would free" in CliRunner().invoke(main, [*call, "--dry-run"]).output
    found = json.loads(CliRunner().invoke(main, [*call, "--json"]).stdout)
    assert found["attempts"] == [attempt.id]
    with pytest.raises(UsageError, match="within a day"):
        clean(settings, 60.0, now_s=now_s(), dry_run=True)
    with pytest.raises(UsageError, match="no server"):
        clean(Settings(folder=tmp_path / "none"), DAY_S, now_s=now_s(), dry_run=True)
