"""Messages about jobs: each is received at least once, signed, by nobody else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.server.database import Database
from onward.server.database.tables import Delivery
from onward.server.jobs import requests
from onward.server.jobs.moves import move_job
from onward.server.names import now_s
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.server.webhooks import registry
from onward.server.webhooks.courier import Courier
from tests.server.places import name_storage
from tests.server.webhooks.receiver import Receiver

SECRET = "whsec_" + base64.b64encode(b"twenty-four bytes of key").decode()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.close()


@pytest.fixture
def secret(settings: Settings) -> str:
    settings.secrets.mkdir(parents=True, exist_ok=True)
    (settings.secrets / "signing").write_text(SECRET)
    return "signing"


@pytest.fixture
def hook(database: Database, settings: Settings, receiver: Receiver, secret: str) -> str:
    return registered(database, settings, receiver.url)


def registered(database: Database, settings: Settings, url: str, **more: Any) -> str:
    more = {"secret": "signing", "allow_private": True, **more}
    with database.write() as session:
        return registry.register(session, settings, "team", url, by="test", **more).name


def courier(settings: Settings, database: Database, **more: Any) -> Courier:
    """A server's courier that was just started."""
    return Courier(settings, database, **{"waits_s": (0.0,) * 3, "timeout_s": 5.0, **more})


def tell(database: Database, name: str = "team") -> None:
    with database.write() as session:
        registry.send_test(session, name, by="test")


def box(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def test_moves_of_a_job_are_told_signed(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """Each move that the job's `notify` asks for, and the signature is of id, time and body."""
    request = JobRequest.model_validate(
        {
            "name": "a job", "command": ["train.py"], "code": {"digest": "0" * 64},
            "output": {"location": "here:out"}, "notify": [hook],
        }
    )  # fmt: skip
    name_storage(database, "here")
    with database.write() as session:
        job = requests.submit(session, request, by="test")
        move_job(session, job, "running", by="test")
        move_job(session, job, "failed", by="test", reason="it <b>broke</b>")
    courier(settings, database).deliver()
    assert len(receiver.received) == 2
    bodies = [json.loads(each.body) for each in receiver.received]
    assert {body["type"] for body in bodies} == {"job.running", "job.failed"}
    failed = next(body for body in bodies if body["type"] == "job.failed")
    assert (failed["job"]["id"], failed["job"]["reason"]) == (job.id, "it <b>broke</b>")
    for each in receiver.received:
        assert each.path == "/hook?team=a"
        headers = each.headers
        text = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + each.body
        digest = hmac.new(b"twenty-four bytes of key", text, hashlib.sha256).digest()
        assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        assert headers["content-type"] == "application/json"
    assert all(row.done_at is not None and not row.problem for row in box(database))
    courier(settings, database).deliver()
    assert len(receiver.received) == 2


def test_what_failed_is_tried_again_with_the_same_id(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """Until it is received; what went wrong is shown meanwhile."""
    receiver.statuses = [500, 503]
    tell(database)
    sender = courier(settings, database)
    sender.deliver()
    (row,) = box(database)
    assert (row.tries, row.done_at, row.problem) == (1, None, "it answered 500")
    sender.deliver()
    sender.deliver()
    (row,) = box(database)
    assert (row.tries, row.problem) == (3, "")
    assert row.done_at is not None
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    assert len({each.body for each in receiver.received}) == 1


def test_it_is_given_up_after_so_many_tries(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """And says so, for good."""
    receiver.statuses = [500] * 10
    tell(database)
    sender = courier(settings, database)
    for _ in range(6):
        sender.deliver()
    (row,) = box(database)
    assert row.problem == "given up after 4 tries: it answered 500"
    assert (row.tries, len(receiver.received)) == (4, 4)
    assert row.done_at is not None


def test_waits_grow_between_tries(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """A receiver that is down is not hammered."""
    receiver.statuses = [500] * 3
    tell(database)
    sender = courier(settings, database, waits_s=(100.0, 200.0))
    for _ in range(3):
        sender.deliver()
    (row,) = box(database)
    assert (row.tries, len(receiver.received)) == (1, 1)
    assert 90 < row.next_at - now_s() <= 100


def test_a_server_that_dies_before_it_notes_sends_again(
    database: Database, settings: Settings, receiver: Receiver, hook: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """At least once, known by its id; never lost."""

    class Dead(BaseException):
        pass

    def die(*args: Any, **facts: Any) -> None:
        raise Dead

    tell(database)
    with monkeypatch.context() as patch:
        patch.setattr(Courier, "_note", die)
        with pytest.raises(Dead):
            courier(settings, database).deliver()
    assert len(receiver.received) == 1
    courier(settings, database).deliver()
    assert len(receiver.received) == 2
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 1
    assert [row.done_at is None for row in box(database)] == [False]


def test_redirects_are_not_followed(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """Or a public receiver could send the server anywhere."""
    receiver.statuses = [302]
    receiver.location = f"http://127.0.0.1:{receiver.port}/elsewhere"
    tell(database)
    courier(settings, database).deliver()
    assert [each.path for each in receiver.received] == ["/hook?team=a"]
    assert "redirects are not followed" in box(database)[0].problem


def test_a_receiver_that_drips_is_cut_off(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """A byte now and then is within the timeout of every socket, and not within ours."""
    receiver.drip = True
    tell(database)
    began = time.monotonic()
    courier(settings, database, timeout_s=0.5).deliver()
    assert time.monotonic() - began < 5
    assert "no answer within 0.5 s" in box(database)[0].problem


def test_nobody_listens(database: Database, settings: Settings, secret: str) -> None:
    """A port that is closed is said."""
    closed = Receiver()
    closed.close()
    registered(database, settings, closed.url)
    tell(database)
    courier(settings, database).deliver()
    assert "it could not be reached" in box(database)[0].problem


def test_a_name_that_turns_private_is_not_talked_to(
    database: Database, settings: Settings, receiver: Receiver, secret: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """What was public when it was registered is looked at again before each message."""
    registered(database, settings, f"https://localhost:{receiver.port}/hook", allow_private=False)
    tell(database)
    courier(settings, database).deliver()
    assert receiver.received == []
    assert "is not a public host" in box(database)[0].problem


def test_a_removed_webhook_gets_nothing_more(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """What waits for it is given up."""
    tell(database)
    with database.write() as session:
        registry.remove(session, hook)
    courier(settings, database).deliver()
    assert receiver.received == []
    assert box(database)[0].problem == "given up: the webhook was removed"


def test_a_slow_receiver_holds_no_other_up(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """More messages than are sent at once all arrive."""
    for _ in range(20):
        tell(database)
    sender = courier(settings, database)
    for _ in range(4):
        sender.deliver()
    assert len({each.headers["webhook-id"] for each in receiver.received}) == 20


def test_what_was_done_with_long_ago_is_forgotten(
    database: Database, settings: Settings, receiver: Receiver, hook: str
) -> None:
    """And nothing that still waits."""
    tell(database)
    sender = courier(settings, database)
    sender.deliver()
    sender.sweep()
    (row,) = box(database)
    with database.write() as session:
        session.merge(row).done_at = now_s() - 31 * 86400
    tell(database)
    sender.sweep()
    assert [left.done_at for left in box(database)] == [None]


def test_webhooks_by_the_api(
    client: TestClient, tokens: dict[str, str], receiver: Receiver, secret: str
) -> None:
    """Registered, tried, seen and removed by administrators, and sent by the server's thread."""
    path = "/api/v1/webhooks"
    body = {"name": "team", "url": receiver.url, "secret": secret, "allow_private": True}
    made = client.post(path, json=body)
    assert made.status_code == 201, made.text
    assert SECRET not in made.text
    assert client.post(path, json=body).status_code == 409
    for wrong in (
        {"allow_private": False}, {"url": "file:///etc/passwd"}, {"url": "https://u:p@host/"},
        {"url": "https://"}, {"url": "https://host:port/"}, {"secret": "unknown"},
        {"url": "https://host/#x"}, {"url": "gopher://host/1"}, {"name": "Not A Name"},
    ):  # fmt: skip
        assert client.post(path, json={**body, "name": "b", **wrong}).status_code == 422, wrong
    sent = client.post(f"{path}/team/test")
    assert sent.status_code == 202
    until = time.monotonic() + 20
    while not receiver.received and time.monotonic() < until:
        time.sleep(0.02)
    (message,) = receiver.received
    assert message.headers["webhook-id"] == sent.json()["id"]
    assert json.loads(message.body)["type"] == "webhook.test"
    while client.get(f"{path}/team/deliveries").json()["items"][0]["done_at"] is None:
        assert time.monotonic() < until
        time.sleep(0.02)
    second = client.post(f"{path}/team/test").json()
    page = client.get(f"{path}/team/deliveries", params={"limit": 1}).json()
    assert len(page["items"]) == 1
    rest = client.get(f"{path}/team/deliveries", params={"limit": 1, "cursor": page["next"]}).json()
    assert {page["items"][0]["id"], rest["items"][0]["id"]} == {second["id"], sent.json()["id"]}
    writer = {"authorization": f"Bearer {tokens['write']}"}
    assert client.get(path, headers=writer).status_code == 403
    assert client.post(path, json=body, headers=writer).status_code == 403
    assert client.get(f"{path}/team/deliveries", headers=writer).status_code == 403
    assert [item["name"] for item in client.get(path).json()["items"]] == ["team"]
    assert client.delete(f"{path}/team").status_code == 200
    assert client.post(f"{path}/team/test").status_code == 404
