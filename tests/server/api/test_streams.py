"""Following by server-sent events: everything once, in order, however slow somebody is."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Any
from urllib.parse import urlparse

import httpx2
import pytest
from sqlalchemy import select

from onward.server.api import event_stream
from onward.server.database.tables import Token
from onward.server.jobs.watching import JobWatcher
from onward.server.logs import following
from onward.server.security.tokens import digest_of
from tests.server.api.house import House, events_of, wait_for


def texts(data: dict[str, Any]) -> list[str]:
    return [line["text"] for line in data["lines"]]


def test_a_log_is_followed_over_all_attempts_to_the_end_of_the_job(house: House) -> None:
    """Lines as they come, then the next attempt's, then the end; an open line grows in place."""
    job = house.job()
    with house.served() as client, client.stream("GET", f"/api/v1/jobs/{job}/log/follow") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = events_of(answer.iter_lines())
        first = house.attempt(job)
        first.prints("one\ntwo\nthr")
        id_, kind, data = next(events)
        assert (id_, kind, texts(data)) == ("1:8", "lines", ["one", "two"])
        id_, _, data = next(events)
        assert (id_, data["lines"]) == ("1:8", [{"at": 8, "text": "thr", "open": True}])
        first.prints("ee\n")
        id_, _, data = next(events)
        assert (id_, data["lines"]) == ("1:14", [{"at": 8, "text": "three"}])
        first.prints("no end")
        first.ends()
        seen = []
        while not seen or seen[-1][1] != "attempt-ended":
            seen.append(next(events))
        assert seen[-2][2]["lines"][-1]["text"] == "no end"
        assert seen[-1][2] == {"attempt": 1}
        second = house.attempt(job)
        second.prints("again\n")
        id_, _, data = next(events)
        assert (id_, data["attempt"], texts(data)) == ("2:6", 2, ["again"])
        second.ends()
        house.end(job)
        assert [event[1:] for event in events] == [
            ("attempt-ended", {"attempt": 2}), ("end", {"state": "succeeded"})
        ]  # fmt: skip


def test_whoever_comes_back_goes_on_where_it_was(house: House) -> None:
    """`Last-Event-ID` names a place of an attempt: nothing is missed, nothing comes twice."""
    job = house.job()
    attempt = house.attempt(job)
    attempt.prints("".join(f"line {n}\n" for n in range(50_000)))
    url = f"/api/v1/jobs/{job}/log/follow"
    found: list[str] = []
    last = ""
    with house.served() as client:
        for _ in range(3):
            headers = {"last-event-id": last} if last else {}
            with client.stream("GET", url, headers=headers) as answer:
                last, _, data = next(events_of(answer.iter_lines()))
                found += texts(data)
        attempt.ends()
        house.end(job)
        with client.stream("GET", url, headers={"last-event-id": last}) as answer:
            for _, kind, data in events_of(answer.iter_lines()):
                found += texts(data) if kind == "lines" else []
        with client.stream("GET", url, params={"tail": 3}) as answer:
            tail = [data for _, kind, data in events_of(answer.iter_lines()) if kind == "lines"]
    assert found == [f"line {n}" for n in range(50_000)]
    assert [text for data in tail for text in texts(data)] == [
        "line 49997", "line 49998", "line 49999"
    ]  # fmt: skip


def test_who_stalls_costs_no_memory_and_holds_up_nobody(house: House) -> None:
    """Twenty connections that take nothing, and one that follows: it has everything at once; what
    is kept for all is bounded."""
    job = house.job()
    attempt = house.attempt(job)
    url = f"/api/v1/jobs/{job}/log/follow"
    with house.served() as client:
        address = urlparse(str(client.base_url))
        stalled = []
        for _ in range(20):
            one = socket.create_connection((address.hostname, address.port))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            head = f"GET {url} HTTP/1.1\r\nHost: {address.netloc}\r\n"
            one.sendall(f"{head}Authorization: {house.headers['authorization']}\r\n\r\n".encode())
            stalled.append(one)
        streams = house.app.state.streams
        wait_for(lambda: streams._followed and next(
            iter(streams._followed.values())).followers == 20)  # fmt: skip
        followed = next(iter(streams._followed.values()))
        with client.stream("GET", url) as answer:
            events = events_of(answer.iter_lines())
            count = 0
            for _ in range(40):
                attempt.prints("".join(f"{n:0200d}\n" for n in range(2000)))
            while count < 80_000:
                count += len(next(events)[2]["lines"])
        assert followed.kept_bytes <= following._KEPT + (1 << 20)
        assert client.get(f"/api/v1/jobs/{job}").status_code == 200
        for one in stalled:
            one.close()
        wait_for(lambda: not streams._followed)


def test_a_job_is_followed_and_waited_for(house: House) -> None:
    """Its document at each change, progress too; `wait` answers as soon as it has ended."""
    job = house.job()
    with house.served() as client:
        with client.stream("GET", f"/api/v1/jobs/{job}/follow") as answer:
            events = events_of(answer.iter_lines())
            assert next(events)[2]["state"] == "queued"
            house.attempt(job)
            assert next(events)[2]["state"] == "running"
            answered: list[httpx2.Response] = []
            waiting = threading.Thread(
                target=lambda: answered.append(client.get(f"/api/v1/jobs/{job}/wait?timeout_s=20"))
            )
            waiting.start()
            house.end(job)
            assert next(events)[2]["state"] == "succeeded"
            assert [kind for _, kind, _ in events] == ["end"]
            waiting.join(20)
        assert answered[0].json()["state"] == "succeeded"
        other = house.job()
        now = client.get(f"/api/v1/jobs/{other}/wait?timeout_s=0.01").json()
        assert now["state"] == "queued"
        changed = client.get(f"/api/v1/jobs/{other}/wait?until=change&version={now['version'] - 1}")
        assert changed.json() == now
        assert client.get("/api/v1/jobs/job-none/wait").status_code == 404
        assert client.get("/api/v1/jobs/job-none/log/follow").status_code == 404


def test_events_and_points_are_followed(house: House) -> None:
    """What is told comes as told; points are the training alone."""
    job = house.job()
    attempt = house.attempt(job)
    attempt.trains(1, 2)
    attempt.tells({"at": 3.0, "kind": "saved", "checkpoint": "c", "step": 2})
    with house.served() as client:
        with client.stream("GET", f"/api/v1/jobs/{job}/events/follow") as answer:
            events = events_of(answer.iter_lines())
            data = next(events)[2]
            assert [item["kind"] for item in data["items"]] == ["training", "training", "saved"]
            attempt.trains(3)
            assert [item["step"] for item in next(events)[2]["items"]] == [3]
        with client.stream("GET", f"/api/v1/jobs/{job}/metrics/follow") as answer:
            data = next(events_of(answer.iter_lines()))[2]
            assert [point["step"] for point in data["points"]] == [1, 2, 3]
            assert data["points"][0]["metrics"] == {"loss": 1.0}


def test_a_stream_without_news_says_that_it_is_there(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a job that waits for long, too: a client takes silence for a broken connection."""
    monkeypatch.setattr(following, "HEARTBEAT_S", 0.2)
    job = house.job()
    with house.served() as client:
        for kind in ("log/follow", "follow", "metrics/follow"):
            with client.stream("GET", f"/api/v1/jobs/{job}/{kind}") as answer:
                lines = answer.iter_lines()
                assert any(line == ": still here" for line in lines)
                assert any(line == ": still here" for line in lines)
        house.attempt(job).prints("one\n")
        with client.stream("GET", f"/api/v1/jobs/{job}/log/follow") as answer:
            assert any(line == ": still here" for line in answer.iter_lines())


def test_who_waits_hears_when_the_database_fails(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for good; whoever waits next looks again."""
    job = house.job()

    def fails(watcher: JobWatcher, ids: list[str]) -> dict[str, Any]:
        raise OSError("the disk is gone")

    async def waits() -> None:
        watcher = JobWatcher(house.database)
        with monkeypatch.context() as patch:
            patch.setattr(JobWatcher, "_glimpses", fails)
            with pytest.raises(OSError, match="gone"):
                await watcher.changed(job, None)
        assert (await watcher.changed(job, None)).state == "queued"

    asyncio.run(waits())


def test_a_file_that_is_none_is_told_as_a_problem(house: House) -> None:
    """The answer has begun already: the problem is its last event but one."""
    attempt = house.attempt(house.job())
    (attempt.folder / "log").symlink_to("/etc/hostname")
    with (
        house.served() as client,
        client.stream("GET", f"/api/v1/jobs/{attempt.job}/log/follow") as answer,
    ):
        events = [(kind, data) for _, kind, data in events_of(answer.iter_lines())]
    assert [kind for kind, _ in events] == ["problem", "end"]
    assert events[0][1]["status"] == 409
    assert not house.app.state.streams._followed


def test_streams_end_when_the_server_or_the_token_does(house: House, monkeypatch: Any) -> None:
    """A token that is revoked takes no more; a server that stops keeps nobody."""
    monkeypatch.setattr(event_stream, "_CHECK_EVERY_S", 0.0)
    attempt = house.attempt(house.job())
    url = f"/api/v1/jobs/{attempt.job}/log/follow"
    text = house.token("read")
    with house.served() as client:
        headers = {"authorization": f"Bearer {text}"}
        with client.stream("GET", url, headers=headers) as answer:
            events = events_of(answer.iter_lines())
            attempt.prints("one\n")
            assert texts(next(events)[2]) == ["one"]
            with house.database.write() as session:
                token = session.scalars(select(Token).filter_by(digest=digest_of(text))).one()
                token.revoked_at = 1.0
            house.app.state.principals.forget()
            attempt.prints("two\n")
            assert [texts(data) for _, _, data in events] == [["two"]], "nothing after this"
        with client.stream("GET", url) as answer:
            events = events_of(answer.iter_lines())
            assert texts(next(events)[2]) == ["one"]
            assert texts(next(events)[2]) == ["two"]
            streams = house.app.state.streams
            loop = next(iter(streams._followed.values()))._task.get_loop()
            asyncio.run_coroutine_threadsafe(streams.close(), loop).result(10)
            assert list(events) == []
