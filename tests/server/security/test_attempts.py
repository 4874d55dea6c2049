"""Wrong tokens: an address that shows too many is told to wait, and a right one is always taken."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from starlette.requests import Request
from starlette.testclient import TestClient

from onward.server.security.attempts import Desk, WrongTokens, sender_of

WRONG = {"authorization": "Bearer onw_wrong"}
PAGE = {"accept": "text/html"}


def from_(address: str | None) -> Request:
    """A request that somebody at this address sends."""
    client = (address, 1) if address is not None else None
    return Request({"type": "http", "client": client, "headers": []})


def test_a_sender_waits_after_twenty_within_a_minute_and_others_do_not() -> None:
    """Until the first of them is a minute old."""
    now = 0.0
    wrong = WrongTokens(lambda: now)
    for _ in range(20):
        assert wrong.wait_s("1.2.3.4") == 0
        wrong.note("1.2.3.4")
        now += 0.5
    assert wrong.wait_s("1.2.3.4") == 50
    assert wrong.wait_s("1.2.3.5") == 0
    now = 60.0
    assert wrong.wait_s("1.2.3.4") == 0


def test_what_is_remembered_of_senders_does_not_grow() -> None:
    """Many addresses push out those that were wrong longest ago, not who is at it."""
    wrong = WrongTokens(lambda: 0.0)
    for number in range(30_000):
        wrong.note(f"10.0.{number}")
        wrong.note("busy")
    assert len(wrong._wrong) == 10_000
    assert all(len(times) <= 20 for times in wrong._wrong.values())
    assert wrong.wait_s("busy") > 0


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("192.0.2.7", "192.0.2.7"), ("::ffff:192.0.2.7", "192.0.2.7"), ("::1", "::/64"),
        ("2001:db8:1:2:a:b:c:d", "2001:db8:1:2::/64"), ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::9", "2001:db8:1:3::/64"), ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"), (None, ""),
    ],
)  # fmt: skip
def test_who_has_a_network_is_one_sender(address: str | None, sender: str) -> None:
    """Whoever has one IPv6 address has 2**64 of them."""
    assert sender_of(from_(address)) == sender


def test_wrong_tokens_are_told_to_wait_and_right_ones_are_served(
    stranger: TestClient, tokens: dict[str, str]
) -> None:
    """429 with Retry-After in the place of 401; nobody is kept out by a neighbour's guesses."""
    answers = [stranger.get("/api/v1/health", headers=WRONG) for _ in range(25)]
    assert [answer.status_code for answer in answers] == [401] * 19 + [429] * 6
    assert 50 <= int(answers[-1].headers["retry-after"]) <= 60
    assert answers[-1].headers["content-type"] == "application/problem+json"
    assert answers[-1].json()["title"] == "too many wrong tokens came from this address"
    for path in ("/api/v1/jobs", "/metrics", "/nowhere", "/static/onward.css"):
        assert stranger.get(path, headers=WRONG).status_code == 429, path
        assert stranger.get(path).status_code == 401, path
    page = stranger.get("/jobs", headers={**WRONG, **PAGE})
    assert (page.status_code, page.headers["retry-after"] > "0") == (429, True)
    assert "Too many wrong tokens" in page.text
    for scope in ("read", "admin"):
        right = {"authorization": f"Bearer {tokens[scope]}"}
        assert stranger.get("/api/v1/health", headers=right).status_code == 200


def test_who_signs_in_with_a_right_token_is_let_in_after_others_guesses(
    stranger: TestClient, tokens: dict[str, str]
) -> None:
    """The form and the header count together; what a proxy says of others does not count."""
    for number in range(10):
        stranger.get("/api/v1/health", headers={**WRONG, "x-forwarded-for": f"192.0.2.{number}"})
        stranger.post("/login", data={"token": "onw_wrong"}, headers=PAGE)
    refused = stranger.post("/login", data={"token": "onw_wrong"}, headers=PAGE)
    assert (refused.status_code, "set-cookie" in refused.headers) == (429, False)
    let_in = stranger.post("/login", data={"token": tokens["read"]}, headers=PAGE)
    assert let_in.status_code == 303
    assert stranger.get("/jobs", headers=PAGE).status_code == 200


def test_a_session_that_has_ended_is_shown_where_to_sign_in(stranger: TestClient) -> None:
    """An open page asks again and again: that is no guess, and no reason to be told to wait."""
    for _ in range(30):
        answer = stranger.get("/jobs", headers={**PAGE, "cookie": "onward=ended"})
        assert answer.status_code == 401
        assert "Too many" not in answer.text


def test_guesses_of_one_who_was_wrong_too_often_take_one_thread() -> None:
    """They stand in a line; others do not wait for it."""

    class Slow:
        """Answers when it is told to, and counts who waits for it."""

        def __init__(self) -> None:
            self.inside = self.most = 0
            self.count = threading.Lock()
            self.go_on = threading.Event()

        def look_up(self, kind: str, text: str) -> None:
            with self.count:
                self.inside += 1
                self.most = max(self.most, self.inside)
            if text == "guess":
                self.go_on.wait(10)
            with self.count:
                self.inside -= 1

    slow, wrong = Slow(), WrongTokens()
    principals: Any = slow
    desk = Desk(principals, wrong)
    for _ in range(20):
        wrong.note("192.0.2.7")

    async def all_at_once() -> None:
        guesses = [
            asyncio.create_task(desk.look_up(from_("192.0.2.7"), "bearer", "guess"))
            for _ in range(20)
        ]
        for _ in range(3):
            await desk.look_up(from_("192.0.2.8"), "bearer", "other")
        assert not any(task.done() for task in guesses)
        slow.go_on.set()
        await asyncio.gather(*guesses)

    asyncio.run(all_at_once())
    assert slow.most <= 2
