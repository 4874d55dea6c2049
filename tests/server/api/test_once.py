"""Every request sent twice, in any order and at the same moment, has one effect."""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
from fastapi.routing import APIRoute
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from onward.server import models
from onward.server.api import routers
from onward.server.database.tables import Audit, Job, Model, Move
from tests.server.api.house import SPEC, House

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
UNSAFE = {"POST", "PUT", "PATCH", "DELETE"}
SENT_BY_THEMSELVES = {"/api/v1/jobs/{job_id}/log/cut"}


@dataclass(frozen=True)
class Asked:
    """A request with its key; answers that came for it."""

    path: str
    body: Any
    key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def send(self, client: Any) -> httpx2.Response:
        return client.post(self.path, json=self.body, headers={"idempotency-key": self.key})


def requests_for(house: House) -> list[Asked]:
    """Something of every kind, much of it about the same jobs."""
    waiting = [house.job(name=f"waiting {n}") for n in range(6)]
    running = [house.job(name=f"running {n}") for n in range(3)]
    ended = [house.job(name=f"ended {n}") for n in range(3)]
    for job in running:
        house.attempt(job)
    for job in ended:
        house.end(job)
    asked = [Asked("/api/v1/jobs", {**SPEC, "name": f"new {n}"}) for n in range(6)]
    for action in ("pause", "resume", "stop", "cancel", "retry", "continue"):
        body = {} if action == "continue" else None
        asked += [Asked(f"/api/v1/jobs/{j}/{action}", body) for j in waiting + running + ended]
        asked += [
            Asked("/api/v1/jobs/bulk", {"action": action, "jobs": each})
            for each in (waiting, waiting[::-1], running + ended)
        ]
    return asked


def counted(house: House, *what: Any) -> int:
    with house.database.read() as session:
        return session.scalar(select(func.count()).select_from(*what)) or 0


@pytest.mark.parametrize("seed", range(1, 21 if FULL else 2))
def test_every_call_sent_twice_and_shuffled_has_one_effect(house: House, seed: int) -> None:
    """All at once, by eight: each key is answered the same whenever it succeeded, is written once
    in the audit log, and makes its jobs once. A refusal had no effect."""
    asked = requests_for(house)
    before = counted(house, Job), counted(house, Audit)
    sent = asked * 2
    random.Random(seed).shuffle(sent)
    with house.served() as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda each: (each.key, each.send(client)), sent))
        again = list(pool.map(lambda each: (each.key, each.send(client)), asked))
    assert {answer.status_code for _, answer in answers} <= {200, 201, 409}
    done: dict[str, Any] = {}
    for key, answer in answers + again:
        if answer.status_code < 400:
            assert done.setdefault(key, answer.json()) == answer.json()
    assert counted(house, Audit) - before[1] == len(done)
    new = {
        job["id"]
        for body in done.values()
        for job in [body] + [r["job"] for r in body.get("results", ()) if r["job"]]
        if job.get("name", "").startswith("new") or job.get("parent")
    }
    assert counted(house, Job) - before[0] == len(new)
    with house.database.read() as session:
        moves = session.execute(
            select(Move.job, Move.before, Move.after)
            .where(Move.attempt.is_(None))
            .order_by(Move.id)
        ).all()
    story: dict[str, str] = {}
    for job, came_from, went_to in moves:
        assert story.get(job, "queued") == came_from, "no move is made twice"
        story[job] = went_to


def test_the_same_request_at_the_same_moment_is_done_once(house: House) -> None:
    """Twenty times at once: one job, twenty equal answers."""
    asked = Asked("/api/v1/jobs", SPEC)
    with house.served() as client, ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda _: asked.send(client), range(20)))
    assert Counter(answer.status_code for answer in answers) == {201: 20}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert house.jobs() == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 19


def test_a_key_is_for_one_request(house: House) -> None:
    """With another body, path or query it is refused; for another token it is another key."""
    first = Asked("/api/v1/jobs", SPEC)
    job = first.send(house.client).json()["id"]
    for other in (
        Asked("/api/v1/jobs", {**SPEC, "name": "other"}, first.key),
        Asked("/api/v1/jobs?x=1", SPEC, first.key),
        Asked(f"/api/v1/jobs/{job}/pause", None, first.key),
    ):
        answer = other.send(house.client)
        assert answer.status_code == 422, other.path
        assert answer.json()["type"].endswith("KeyReused")
    headers = {"authorization": f"Bearer {house.token('write')}", "idempotency-key": first.key}
    assert house.client.post("/api/v1/jobs", json=SPEC, headers=headers).json()["id"] != job
    assert house.jobs() == 2


def test_what_two_make_at_the_same_moment_is_made_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who finds the other's row only when its own is refused decides again, with a key or not."""
    real = models.add_model
    refused: list[str] = []

    def overtaken(session: Session, location: str) -> Model:
        row = real(session, location)
        if not refused:
            refused.append(location)
            session.execute(insert(Model).values(id=row.id, location=location))
        return row

    monkeypatch.setattr(models, "add_model", overtaken)
    for key in ({}, {"idempotency-key": "one"}):
        refused.clear()
        answer = house.client.post("/api/v1/models", json={"location": "here:out"}, headers=key)
        assert (answer.status_code, refused) == (201, ["here:out"])
    assert len(house.client.get("/api/v1/models").json()["items"]) == 1


def test_a_cut_is_made_once(house: House) -> None:
    """Sent again when more was printed, it frees nothing more."""
    attempt = house.attempt(house.job())
    attempt.prints(b"x" * 99 + b"\n" + b"y" * 100_000)
    asked = Asked(f"/api/v1/jobs/{attempt.job}/log/cut", {"keep_bytes": 50_000})
    first = asked.send(house.client).json()
    attempt.prints(b"z" * 100_000)
    assert asked.send(house.client).json() == first
    assert house.client.get(f"/api/v1/jobs/{attempt.job}/log").json()["cuts"] == [
        [0, first["begin"]]
    ]


def test_every_route_that_changes_something_takes_a_key(house: House) -> None:
    """Also those of other parts: from the document, so that a new one cannot be forgotten."""
    paths = house.app.openapi()["paths"]
    without = [
        f"{method.upper()} {path}"
        for path, item in paths.items()
        for method, operation in item.items()
        if method.upper() in UNSAFE
        and not any(p["name"].lower() == "idempotency-key" for p in operation.get("parameters", ()))
    ]
    assert without == []


def test_the_routes_of_jobs_that_change_something_are_all_sent_twice(house: House) -> None:
    """What the first test sends is every such route."""
    from onward.server.api import asking, jobs, logs

    routes: list[Callable[..., Any] | Any] = [
        route for part in (jobs, asking, logs) for route in part.router.routes
    ]
    known = {
        route.path for route in routes if isinstance(route, APIRoute) and route.methods & UNSAFE
    }
    sent = {
        "/".join("{job_id}" if part.startswith("job-") else part for part in each.path.split("/"))
        for each in requests_for(house)
    }
    assert known == sent | SENT_BY_THEMSELVES
    assert routers()
