"""Every unsafe route leaves an entry in the audit log that says who, what, to which, from where."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient
from structlog.testing import capture_logs

from onward.server.database import Database
from onward.server.database.tables import Audit
from onward.server.models import add_model
from tests.cli.scored import Scored, answers
from tests.server.api.house import DIGEST, SPEC, House
from tests.server.security.test_routes import UNSAFE, routes

CHANGES_NOTHING = {
    ("POST", "/api/v1/plan"),
    ("POST", "/jobs/new/plan"),
    ("POST", "/look"),
}
"""Looks, or is kept in the viewer's own browser."""
CONSOLE = {("POST", path) for path in ("/jobs/{job_id}/{action}", "/jobs/many", "/jobs/new")}
CONSOLE |= {("POST", "/schedules/{schedule_id}/{action}")}
CONSOLE |= {
    ("POST", f"/settings/{path}")
    for path in (
        "storages", "storages/{alias}/remove", "tokens", "tokens/{token_id}/revoke", "secrets",
        "secrets/{name}/delete", "webhooks", "webhooks/{name}/{action}",
    )
}  # fmt: skip
CONSOLE |= {
    ("POST", f"/models{path}")
    for path in (
        "", "/{model_id}/promote", "/{model_id}/rollback",
        *(f"/{{model_id}}/checkpoints/{{checkpoint}}/{x}" for x in ("promote", "verify", "{kind}")),
    )
}  # fmt: skip
"""Their entries are held to in tests/server/console/test_{settings,models,schedules}_pages.py."""
KEEPS_NO_ANSWER = {"/api/v1/secrets/{name}"}
"""The value must stay out of the database; each request is an entry of its own."""

Sent = tuple[str, str, dict[str, Any], str, str]
"""Method, path, what else is sent; the action and the object that the log must show."""


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    with capture_logs():
        yield House(tmp_path, database)


def archive() -> bytes:
    """A folder with an empty train.py."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("train.py"))
    return file.getvalue()


def count(house: House) -> int:
    with house.database.read() as session:
        return session.scalar(select(func.count()).select_from(Audit)) or 0


def newest(house: House) -> Audit:
    with house.database.read() as session:
        found = session.scalars(select(Audit).order_by(Audit.id.desc()).limit(1)).one()
        session.expunge(found)
        return found


def all_of_them(house: House, folder: Path) -> dict[tuple[str, str], Callable[[], Sent]]:
    """A request that succeeds, for every unsafe route of the API, in an order in which they do."""
    post = house.client.post

    def job(method: str, state: str, path: str = "", **sent: Any) -> Callable[[], Sent]:
        def make() -> Sent:
            # An output for each: only one job writes to an output at a time.
            job_id = house.job(output={"location": f"here:{method}-{state}"})
            if state == "paused":
                house.move(job_id, "paused")
            elif state == "ended":
                house.end(job_id)
            return ("POST", f"/api/v1/jobs/{job_id}/{method}", sent, f"job.{method}", job_id)

        return make

    def new(action: str, path: str, object_: str | None, **sent: Any) -> Callable[[], Sent]:
        return lambda: ("POST", path, sent, action, object_ or "{id}")

    def cut() -> Sent:
        attempted = house.attempt(house.job(output={"location": "here:cut"}))
        attempted.prints("a line\n" * 10)
        path = f"/api/v1/jobs/{attempted.job}/log/cut"
        return ("POST", path, {"json": {"keep_bytes": 0}}, "log.cut", attempted.job)

    def bulk() -> Sent:
        ids = [house.job(output={"location": f"here:bulk{n}"}) for n in range(2)]
        body = {"action": "stop", "jobs": [*ids, "job-none"]}
        return ("POST", "/api/v1/jobs/bulk", {"json": body}, "job.bulk.stop", " ".join(ids))

    def token() -> Sent:
        made = post("/api/v1/tokens", json={"name": "goes", "scope": "read"}).json()["id"]
        return ("DELETE", f"/api/v1/tokens/{made}", {}, "token.revoke", made)

    output = Scored(folder / "lab" / "digits")
    output.freeze("first", 1)
    commits = [
        output.increment(1, first=answers()).checkpoint,
        output.increment(2, first=answers()).checkpoint,
        output.increment(3, first=answers()).checkpoint,
    ]
    (folder / "more").mkdir()
    registered = {"alias": "lab", "url": str(folder / "lab")}
    assert post("/api/v1/storages", json=registered).status_code == 201
    with house.database.write() as session:
        model = add_model(session, "lab:digits").id
    of = f"/api/v1/models/{model}"

    def changes(kind: str, method: str, path: str, about: str, **sent: Any) -> Callable[[], Sent]:
        return lambda: (method, of + path, sent, f"model.{kind}", f"lab:digits {about}")

    schedule = {
        "name": "nightly", "kind": "cron", "cron": "@daily",
        "job": {**SPEC, "output": {"location": "here:nightly"}},
    }  # fmt: skip
    schedules: list[str] = []

    def scheduled(action: str) -> Callable[[], Sent]:
        def make() -> Sent:
            if not schedules:
                schedules.append(post("/api/v1/schedules", json=schedule).json()["id"])
            path = f"/api/v1/schedules/{schedules[0]}"
            if action == "delete":
                return ("DELETE", path, {}, "schedule.delete", schedules[0])
            if action == "change":
                changed = {**schedule, "cron": "@hourly"}
                return ("PUT", path, {"json": changed}, "schedule.change", schedules[0])
            about = "{id}" if action == "run" else schedules[0]
            return ("POST", f"{path}/{action}", {}, f"schedule.{action}", about)

        return make

    def back() -> Sent:
        # From a second champion to the one before.
        post(f"{of}/promote", json={"checkpoint": second, "force": True}).raise_for_status()
        return ("POST", f"{of}/rollback", {}, "model.rollback", f"lab:digits {third}")

    jobs, models = "/api/v1/jobs/{job_id}", "/api/v1/models/{model_id}"
    checkpoint, alias = f"{models}/checkpoints/{{checkpoint}}", f"{models}/aliases/{{name}}"
    hook = {"name": "hook", "url": "http://192.0.2.1/", "secret": "key", "allow_private": True}
    first, second, third = commits
    return {
        ("POST", "/api/v1/jobs"): new("job.submit", "/api/v1/jobs", None, json=SPEC),
        ("POST", "/api/v1/jobs/bulk"): bulk,
        ("POST", f"{jobs}/pause"): job("pause", "queued"),
        ("POST", f"{jobs}/resume"): job("resume", "paused"),
        ("POST", f"{jobs}/stop"): job("stop", "queued"),
        ("POST", f"{jobs}/cancel"): job("cancel", "queued"),
        ("POST", f"{jobs}/retry"): lambda: (*job("retry", "ended")()[:4], "{id}"),
        ("POST", f"{jobs}/continue"): lambda: (*job("continue", "ended")()[:4], "{id}"),
        ("POST", f"{jobs}/log/cut"): cut,
        ("POST", "/api/v1/code"): new(
            "code.upload", "/api/v1/code", DIGEST, content=archive()
        ),
        ("POST", "/api/v1/storages"): new(
            "storage.register", "/api/v1/storages", "more",
            json={"alias": "more", "url": str(folder / "more")},
        ),
        ("DELETE", "/api/v1/storages/{alias}"): lambda: (
            "DELETE", "/api/v1/storages/more", {}, "storage.remove", "more",
        ),
        ("POST", "/api/v1/models"): new(
            "model.add", "/api/v1/models", None, json={"location": "lab:other"}
        ),
        ("POST", f"{models}/promote"): changes(
            "promote", "POST", "/promote", third, json={"checkpoint": third, "force": True}
        ),
        ("POST", f"{models}/rollback"): back,
        ("PUT", alias): changes(
            "alias", "PUT", "/aliases/ours", f"ours {second}", json={"checkpoint": second}
        ),
        ("DELETE", alias): changes("unalias", "DELETE", "/aliases/ours", "ours"),
        ("PUT", f"{checkpoint}/pin"): changes("pin", "PUT", f"/checkpoints/{first}/pin", first),
        ("DELETE", f"{checkpoint}/pin"): changes(
            "unpin", "DELETE", f"/checkpoints/{first}/pin", first
        ),
        ("POST", f"{checkpoint}/verify"): changes(
            "verify", "POST", f"/checkpoints/{second}/verify", second, json={"every_byte": True}
        ),
        ("DELETE", checkpoint): changes("drop", "DELETE", f"/checkpoints/{first}", first),
        ("POST", "/api/v1/schedules"): new(
            "schedule.create", "/api/v1/schedules", None, json=schedule
        ),
        **{
            ("POST", f"/api/v1/schedules/{{schedule_id}}/{action}"): scheduled(action)
            for action in ("disable", "enable", "run")
        },
        ("PUT", "/api/v1/schedules/{schedule_id}"): scheduled("change"),
        ("DELETE", "/api/v1/schedules/{schedule_id}"): scheduled("delete"),
        ("PUT", "/api/v1/secrets/{name}"): lambda: (
            "PUT", "/api/v1/secrets/key", {"json": {"value": "canary"}}, "secret.put", "key",
        ),
        ("POST", "/api/v1/webhooks"): new(
            "webhook.register", "/api/v1/webhooks", "hook", json=hook
        ),
        ("POST", "/api/v1/webhooks/{name}/test"): new(
            "webhook.test", "/api/v1/webhooks/hook/test", "hook"
        ),
        ("DELETE", "/api/v1/webhooks/{name}"): lambda: (
            "DELETE", "/api/v1/webhooks/hook", {}, "webhook.remove", "hook",
        ),
        ("DELETE", "/api/v1/secrets/{name}"): lambda: (
            "DELETE", "/api/v1/secrets/key", {}, "secret.delete", "key",
        ),
        ("POST", "/api/v1/tokens"): new(
            "token.make", "/api/v1/tokens", None, json={"name": "one more", "scope": "read"}
        ),
        ("DELETE", "/api/v1/tokens/{token_id}"): token,
    }  # fmt: skip


def test_every_unsafe_route_leaves_an_entry_and_a_repeated_request_none(
    house: House, tmp_path: Path
) -> None:
    """Enumerated from the router: a new route without a place in this test fails it."""
    asked = all_of_them(house, tmp_path)
    found = {
        (method, path) for path, methods in routes(house.app) for method in methods & set(UNSAFE)
    }  # fmt: skip
    assert found - CHANGES_NOTHING - CONSOLE == set(asked)
    for (method, path), make in asked.items():
        _, url, sent, action, object_ = make()
        before = count(house)
        key = {"idempotency-key": f"{method} {path}"}
        answer = house.client.request(method, url, headers=key, **sent)
        assert answer.is_success, (method, path, answer.text)
        assert count(house) == before + 1, (method, path)
        entry = newest(house)
        assert entry.action == action
        about = answer.json()["id"] if object_ == "{id}" else object_
        assert (entry.object, entry.by) == (about, "the admin"), (method, path)
        assert entry.remote == "testclient"
        if path in KEEPS_NO_ANSWER and method == "PUT":
            continue
        again = house.client.request(method, url, headers=key, **sent)
        assert (again.status_code, count(house)) == (answer.status_code, before + 1), (method, path)


def test_what_the_console_does_is_in_the_log_as_well(house: House) -> None:
    """Signing in and out, a job, several jobs; a wish that there is not leaves nothing."""
    with TestClient(house.app, base_url="http://127.0.0.1:8420", follow_redirects=False) as client:
        token = house.headers["authorization"].removeprefix("Bearer ")
        client.post("/login", data={"token": token})
        assert newest(house).action == "login"
        page = client.get("/jobs", headers={"accept": "text/html"}).text
        csrf = page.split('data-csrf="')[1].split('"')[0]
        one, *several = (house.job(output={"location": f"here:c{n}"}) for n in range(3))
        before = count(house)
        assert client.post(f"/jobs/{one}/pause", data={"csrf": csrf}).status_code == 303
        assert (newest(house).action, newest(house).object) == ("job.pause", one)
        form = {"csrf": csrf, "action": "stop", "job": several, "back": "/jobs"}
        assert client.post("/jobs/many", data=form).status_code == 303
        entry = newest(house)
        assert (entry.action, entry.object) == ("job.bulk.stop", " ".join(several))
        assert count(house) == before + 2
        for wish in ("", "delete\nadmin token.make", "<b>"):
            refused = client.post("/jobs/many", data={**form, "action": wish})
            assert refused.status_code == 404
        assert client.post(f"/jobs/{one}/drop", data={"csrf": csrf}).status_code == 404
        assert count(house) == before + 2
        form = {
            "csrf": csrf, "name": "by hand", "code_kind": "digest", "code": DIGEST,
            "script": "train.py", "output_location": "here:by-hand",
        }  # fmt: skip
        made = client.post("/jobs/new", data=form).headers["location"].removeprefix("/jobs/")
        assert (newest(house).action, newest(house).object) == ("job.submit", made)
        assert client.post("/logout", data={"csrf": csrf}).status_code == 303
        entry = newest(house)
        assert (entry.action, entry.by) == ("logout", "the admin")


def test_what_is_refused_leaves_no_entry(house: House) -> None:
    """The log says what was done, not what was tried."""
    ended = house.job()
    house.end(ended)
    before = count(house)
    for path, body in (
        (f"/api/v1/jobs/{ended}/pause", None),
        ("/api/v1/jobs/job-none/stop", None),
        ("/api/v1/jobs", {"name": "incomplete"}),
        ("/api/v1/storages", {"alias": "here", "url": "s3://again"}),
    ):
        answer = house.client.post(path, json=body)
        assert 400 <= answer.status_code < 500, (path, answer.text)
    assert count(house) == before
