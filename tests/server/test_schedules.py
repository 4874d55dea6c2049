"""Schedules: one job for each tick and each new listing, whenever a server dies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.errors import Unreachable, UsageError
from onward.server.code import pin_archive
from onward.server.database import Database
from onward.server.database.tables import Job, Schedule, Storage
from onward.server.jobs import requests, schedules
from onward.server.jobs.moves import move_job
from onward.server.problems import IllegalMove
from onward.server.scheduling.clock import Clock
from onward.server.scheduling.fingerprints import fingerprint, fingerprint_of
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.stores import LocalStore, MemoryStore, Store
from tests.server.code.archived import tar
from tests.server.places import name_storage

START = 1_767_225_600.0  # 2026-01-01T00:00Z
HOUR = 3600.0


class Bell:
    """Schedules over a database, with a clock that is moved by hand."""

    def __init__(self, settings: Settings, database: Database, folder: Path) -> None:
        self.settings = settings
        self.database = database
        self.data = folder / "data"
        self.data.mkdir()
        self.now = START
        self.open_at: Callable[[str], Store] = lambda location: LocalStore(self.data)
        self.woken = 0

    @property
    def clock(self) -> Clock:
        """A server that was just started: it remembers nothing."""

        def submitted() -> None:
            self.woken += 1

        return Clock(
            self.settings, self.database, lambda location: self.open_at(location),
            submitted=submitted, now=lambda: self.now,
        )  # fmt: skip

    @staticmethod
    def request(more: dict[str, Any]) -> JobRequest:
        return JobRequest.model_validate(
            {
                "name": "nightly", "command": ["train.py"], "code": {"digest": "0" * 64},
                "inputs": {"data_url": {"location": "here:data"}},
                "output": {"location": "here:out"}, **more,
            }
        )  # fmt: skip

    def make(self, kind: Any, cron: str = "", **more: Any) -> str:
        request = self.request(more)
        with self.database.write() as session:
            made = schedules.create(session, "nightly", kind, request, by="test", cron=cron)
            if kind == "cron":
                made.next_at = START + HOUR
            return made.id

    def change(self, id_: str, kind: Any, cron: str = "", **more: Any) -> None:
        with self.database.write() as session:
            schedules.change(session, id_, "nightly", kind, self.request(more), cron=cron)

    def look(self) -> None:
        """The next look at locations."""
        self.now += self.settings.watch_every_s + 1
        self.clock.look()

    def jobs(self) -> list[Job]:
        with self.database.read() as session:
            return list(session.scalars(select(Job).order_by(Job.created_at)))

    def row(self, id_: str) -> Schedule:
        with self.database.read() as session:
            return schedules.find_schedule(session, id_)

    def end_jobs(self) -> None:
        with self.database.write() as session:
            for job in session.scalars(select(Job).where(Job.state == "queued")):
                move_job(session, job, "cancelled", by="test")


@pytest.fixture
def bell(
    settings: Settings, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Bell:
    name_storage(database, "here")
    found = Bell(settings, database, tmp_path)
    monkeypatch.setattr(schedules, "now_s", lambda: found.now)
    return found


def test_a_tick_is_one_job(bell: Bell) -> None:
    """At its time, not before, and not again."""
    id_ = bell.make("cron", "0 * * * *")
    bell.clock.tick()
    assert bell.jobs() == []
    bell.now += HOUR
    bell.clock.tick()
    bell.clock.tick()
    (job,) = bell.jobs()
    assert (job.schedule, job.state, job.created_by) == (id_, "queued", "schedule nightly")
    assert (bell.row(id_).last_job, bell.row(id_).next_at) == (job.id, START + 2 * HOUR)
    assert bell.woken == 1


def test_missed_ticks_are_one_job(bell: Bell) -> None:
    """A server that was away for a day does not train a day long to make up for it."""
    bell.make("cron", "0 * * * *")
    bell.now += 30.5 * HOUR
    for _ in range(3):
        bell.clock.tick()
        bell.end_jobs()
    assert len(bell.jobs()) == 1
    bell.now += HOUR
    bell.clock.tick()
    assert len(bell.jobs()) == 2


def test_a_tick_waits_for_the_job_before(bell: Bell) -> None:
    """One job of a schedule at a time; the tick is answered when that has ended."""
    id_ = bell.make("cron", "0 * * * *")
    bell.now += HOUR
    bell.clock.tick()
    bell.now += HOUR
    bell.clock.tick()
    (job,) = bell.jobs()
    assert bell.row(id_).reason == f"due, and waits for job {job.id}"
    bell.end_jobs()
    bell.clock.tick()
    assert len(bell.jobs()) == 2


@pytest.mark.parametrize("kind", ["cron", "watch"])
@pytest.mark.parametrize("moment", ["before the job", "after the job", "at the commit"])
def test_a_server_that_dies_anywhere_submits_once(
    bell: Bell, monkeypatch: pytest.MonkeyPatch, kind: str, moment: str
) -> None:
    """The tick or the listing and its job are one transaction: neither lost nor doubled."""
    id_ = bell.make(kind, "0 * * * *" if kind == "cron" else "")
    (bell.data / "a.txt").write_text("1")
    if kind == "watch":
        bell.look()
    bell.now += HOUR

    class Dead(BaseException):
        pass

    real = requests.submit

    def dying(*args: Any, **facts: Any) -> Job:
        if moment == "after the job":
            real(*args, **facts)
        raise Dead

    def act() -> None:
        (bell.clock.tick if kind == "cron" else bell.clock.look)()

    with monkeypatch.context() as patch:
        if moment == "at the commit":
            session_class = schedules.Session

            def commit(self: Any) -> None:
                raise Dead

            patch.setattr(session_class, "commit", commit)
        else:
            patch.setattr(requests, "submit", dying)
        with pytest.raises(Dead):
            act()
    assert bell.jobs() == []
    assert bell.row(id_).last_job is None
    for _ in range(3):
        act()
        bell.now += bell.settings.watch_every_s + 1
    assert len(bell.jobs()) == 1


def test_a_changed_schedule_submits_what_it_is_now(bell: Bell) -> None:
    """A tick that is due stays so unless the times changed; other data is looked at anew."""
    id_ = bell.make("cron", "0 * * * *")
    bell.now += HOUR
    bell.change(id_, "cron", "0 * * * *", name="renamed")
    bell.clock.tick()
    assert [job.name for job in bell.jobs()] == ["renamed"]
    bell.end_jobs()
    bell.now += HOUR
    bell.change(id_, "cron", "30 * * * *")
    bell.clock.tick()
    assert len(bell.jobs()) == 1
    assert bell.row(id_).next_at == bell.now + HOUR / 2
    bell.change(id_, "watch")
    (bell.data / "a.txt").write_text("1")
    for _ in range(3):
        bell.look()
        bell.end_jobs()
    assert len(bell.jobs()) == 2
    bell.change(id_, "watch", name="renamed")
    for _ in range(3):
        bell.look()
    assert len(bell.jobs()) == 2, "what was answered is answered again"
    bell.change(id_, "watch", inputs={"data_url": {"location": "here:other"}})
    for _ in range(2):
        bell.look()
    assert len(bell.jobs()) == 3


def test_what_is_new_is_a_job_once_it_does_not_change(bell: Bell) -> None:
    """Half of an upload is never trained on."""
    id_ = bell.make("watch")
    bell.look()
    assert bell.row(id_).reason == "there is nothing at the location yet"
    (bell.data / "a.txt").write_text("1")
    bell.look()
    assert bell.jobs() == []
    (bell.data / "a.txt").write_text("12")
    bell.look()
    (bell.data / "b.txt").write_text("1")
    bell.look()
    assert bell.jobs() == []
    bell.look()
    (job,) = bell.jobs()
    assert (job.schedule, bell.row(id_).last_job) == (id_, job.id)


def test_the_same_listing_is_never_a_second_job(bell: Bell) -> None:
    """Not by looking again, not by another server, not when its job has failed."""
    id_ = bell.make("watch")
    (bell.data / "a.txt").write_text("1")
    for _ in range(2):
        bell.look()
    bell.end_jobs()
    for _ in range(4):
        bell.look()
    assert len(bell.jobs()) == 1
    assert bell.row(id_).reason == "nothing new"
    (bell.data / "a.txt").unlink()
    (bell.data / "b.txt").write_text("1")
    for _ in range(2):
        bell.look()
    assert len(bell.jobs()) == 2


def test_what_is_new_waits_for_the_job_before(bell: Bell) -> None:
    """And is not forgotten."""
    id_ = bell.make("watch")
    (bell.data / "a.txt").write_text("1")
    for _ in range(2):
        bell.look()
    (bell.data / "b.txt").write_text("1")
    for _ in range(3):
        bell.look()
    assert "waits for job" in bell.row(id_).reason
    assert len(bell.jobs()) == 1
    bell.end_jobs()
    bell.look()
    assert len(bell.jobs()) == 2


def test_locations_are_not_looked_at_more_often_than_asked(bell: Bell) -> None:
    """A listing may cost money."""
    looks: list[str] = []
    store = MemoryStore()
    store.put("a", [b"1"], 1)

    def open_at(location: str) -> Store:
        looks.append(location)
        return store

    bell.open_at = open_at
    bell.make("watch")
    for _ in range(5):
        bell.clock.look()
        bell.now += 1
    assert looks == ["here:data"]
    bell.now += bell.settings.watch_every_s
    bell.clock.look()
    assert len(looks) == 2
    bell.now -= 10 * HOUR  # a clock that was set back holds nothing up
    bell.clock.look()
    assert len(looks) == 3


def test_a_store_that_does_not_answer_is_said_and_tried_again(bell: Bell) -> None:
    """What was seen before it went away is still known."""
    id_ = bell.make("watch")
    (bell.data / "a.txt").write_text("1")
    bell.look()
    back = bell.open_at

    def away(location: str) -> Store:
        raise Unreachable("the store is away")

    bell.open_at = away
    bell.look()
    assert "the store is away" in bell.row(id_).reason
    bell.open_at = back
    bell.look()
    assert len(bell.jobs()) == 1


def test_disabled_it_does_nothing_and_makes_up_for_nothing(bell: Bell) -> None:
    """Enabled again it begins from then."""
    id_ = bell.make("cron", "0 * * * *")
    with bell.database.write() as session:
        schedules.disable(session, id_)
    bell.now += 5.5 * HOUR
    bell.clock.tick()
    with bell.database.write() as session:
        assert schedules.enable(session, id_).next_at == START + 6 * HOUR
    bell.clock.tick()
    assert bell.jobs() == []
    with bell.database.write() as session:
        schedules.run_now(session, id_, by="me")
    with bell.database.write() as session, pytest.raises(IllegalMove):
        schedules.run_now(session, id_, by="me")


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "watch", "inputs": {}}, {"kind": "watch", "cron": "0 * * * *"},
        {"kind": "cron", "cron": "0 0 30 2 *"}, {"kind": "cron"},
        {"kind": "cron", "cron": "0 * * * *", "verb": "resume"},
        {"kind": "cron", "cron": "0 * * * *", "verb": "branch", "branch_from": "here:other"},
        {"kind": "cron", "cron": "0 * * * *",
         "output": {"location": "here:out", "predownload": "v3"}},
    ],
)  # fmt: skip
def test_what_can_only_happen_once_is_no_schedule(bell: Bell, wrong: dict[str, Any]) -> None:
    """Nor is what never happens."""
    with pytest.raises(UsageError):
        bell.make(**wrong)


def test_fingerprints_are_of_listings() -> None:
    """Whatever the order; every key, size and version counts, and nothing is like something."""
    store = MemoryStore()
    assert fingerprint_of(store.list("")) == ""
    seen = {""}
    for key, content in (("a", b"1"), ("b", b"1"), ("a", b"22"), ("ab", b"1"), ("a", b"23")):
        store.put(key, [content], len(content))
        seen.add(fingerprint_of(store.list("")))
    assert len(seen) == 6
    entries = list(store.list(""))
    assert fingerprint_of(reversed(entries)) == fingerprint_of(entries)


def test_data_may_be_one_file(tmp_path: Path) -> None:
    """A table that grows, and neither its neighbours nor what only begins like it."""
    places = {"here:": tmp_path, "here:data": tmp_path / "data", "here:data/a.csv": tmp_path / "no"}
    (tmp_path / "data").mkdir()

    def look(location: str) -> str:
        return fingerprint(lambda place: LocalStore(places[place]), location)

    assert look("here:data/a.csv") == ""
    (tmp_path / "data" / "a.csv").write_text("1")
    first = look("here:data/a.csv")
    (tmp_path / "data" / "a.csv.tmp").write_text("1")
    assert look("here:data/a.csv") == first != ""
    (tmp_path / "data" / "a.csv").write_text("12")
    assert look("here:data/a.csv") != first
    assert look("here:data") not in ("", first)


def test_schedules_by_the_api(
    client: TestClient, tokens: dict[str, str], settings: Settings, database: Database,
    tmp_path: Path,
) -> None:  # fmt: skip
    """Made, listed, stopped, run and forgotten; its job runs code that is pinned once."""
    pinned = pin_archive(settings, database, tar(("train.py", b"")), by="test")
    with database.write() as session:
        session.add(
            Storage(
                alias="here", url=str(tmp_path), single_writer=False, environment={},
                created_at=0.0, created_by="test",
            )
        )  # fmt: skip
    body = {
        "name": "nightly", "kind": "cron", "cron": "0 3 * * *", "timezone": "Asia/Shanghai",
        "job": {
            "name": "n", "command": ["train.py"], "code": {"digest": pinned.digest},
            "output": {"location": "here:out"},
        },
    }  # fmt: skip
    path = "/api/v1/schedules"
    made = client.post(path, json=body, headers={"Idempotency-Key": "k"})
    assert made.status_code == 201, made.text
    again = client.post(path, json=body, headers={"Idempotency-Key": "k"})
    assert again.json() == made.json()
    id_ = made.json()["id"]
    assert made.json()["job"]["code"]["source"] == "uploaded by test"
    changed = client.put(f"{path}/{id_}", json={**body, "cron": "@weekly"})
    assert (changed.json()["cron"], changed.json()["version"]) == ("0 0 * * 0", 2), changed.text
    assert client.put(f"{path}/sch-none", json=body).status_code == 404
    second = client.post(path, json={**body, "name": "other", "enabled": False}).json()
    page = client.get(path, params={"limit": 1}).json()
    assert [item["id"] for item in page["items"]] == [second["id"]]
    rest = client.get(path, params={"limit": 1, "cursor": page["next"]}).json()
    assert [item["id"] for item in rest["items"]] == [id_]
    assert client.post(f"{path}/{id_}/disable").json()["enabled"] is False
    assert client.post(f"{path}/{id_}/enable").json()["enabled"] is True
    job = client.post(f"{path}/{id_}/run").json()
    assert job["schedule"] == id_
    assert (
        client.get("/api/v1/jobs", params={"schedule": id_}).json()["items"][0]["id"] == job["id"]
    )
    reader = {"authorization": f"Bearer {tokens['read']}"}
    for action in ("enable", "disable", "run"):
        assert client.post(f"{path}/{id_}/{action}", headers=reader).status_code == 403
    assert client.delete(f"{path}/{id_}", headers=reader).status_code == 403
    assert client.put(f"{path}/{id_}", headers=reader, json=body).status_code == 403
    assert client.delete(f"{path}/{id_}").status_code == 200
    assert client.get(f"{path}/{id_}").status_code == 404
    for wrong in (
        {"cron": "soon"}, {"timezone": "Nowhere"}, {"kind": "watch"}, {"kind": "never"},
        {"job": {**body["job"], "command": ["other.py"]}},  # type: ignore[dict-item]
        {"job": {**body["job"], "notify": ["nobody"]}},  # type: ignore[dict-item]
    ):  # fmt: skip
        assert client.post(path, json={**body, **wrong}).status_code == 422, wrong


def test_errors_of_one_schedule_hold_no_other_up(bell: Bell) -> None:
    """A spec that this version does not understand is told where people look."""
    broken = bell.make("cron", "0 * * * *")
    with bell.database.write() as session:
        schedules.find_schedule(session, broken).spec = {"name": "of another version"}
    bell.make("cron", "0 * * * *")
    bell.now += HOUR
    bell.clock.tick()
    assert len(bell.jobs()) == 1
    assert "could not be looked at" in bell.row(broken).reason
