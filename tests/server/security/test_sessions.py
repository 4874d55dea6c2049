"""Signing in: a cookie that no script reads, and forms that prove where they are from."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from onward.server.app import Parts, make_app
from onward.server.database.tables import ConsoleSession, Token
from onward.server.names import now_s
from onward.server.security.login import local_path

PAGE = {"accept": "text/html"}


@pytest.fixture
def browser(parts: Parts, tokens: dict[str, str]) -> Iterator[TestClient]:
    """Has no token, keeps cookies."""
    with TestClient(
        make_app(parts), base_url="http://127.0.0.1:8420", headers=PAGE, follow_redirects=False
    ) as found:
        yield found


def sign_in(browser: TestClient, token: str, to: str = "/jobs") -> None:
    answer = browser.post("/login", data={"token": token, "next": to})
    assert (answer.status_code, answer.headers["location"]) == (303, to)


def csrf(browser: TestClient) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', browser.get("/jobs").text)
    assert found
    return found.group(1)


def test_a_browser_without_a_session_gets_the_page_to_sign_in(browser: TestClient) -> None:
    """As the body of a 401, wherever it goes."""
    for path in ("/", "/jobs", "/static/onward.css", "/nowhere"):
        answer = browser.get(path)
        assert answer.status_code == 401
        assert 'action="/login"' in answer.text


def test_a_token_opens_a_session_and_logging_out_ends_it(
    browser: TestClient, tokens: dict[str, str], parts: Parts
) -> None:
    """The cookie is HttpOnly and SameSite=Strict; only its digest is kept; out is out."""
    answer = browser.post("/login", data={"token": tokens["read"], "next": "/jobs"})
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert browser.get("/jobs").status_code == 200
    stolen = browser.cookies["onward"]
    with parts.database.read() as session:
        assert [row.digest == stolen for row in session.query(ConsoleSession)] == [False]
    out = browser.post("/logout", data={"csrf": csrf(browser)})
    assert out.status_code == 303
    browser.cookies.set("onward", stolen)
    assert browser.get("/jobs").status_code == 401


@pytest.mark.parametrize("token", ["", "onw_wrong", "x" * 5000, "\udcff"])
def test_a_wrong_token_opens_nothing(browser: TestClient, token: str) -> None:
    """401, no cookie, and the page again."""
    data = f"next=/&token={token}".encode("utf-8", "surrogateescape")
    answer = browser.post(
        "/login", content=data, headers={"content-type": "application/x-www-form-urlencoded"}
    )
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_revoked_or_expired_token_ends_its_sessions(
    browser: TestClient, tokens: dict[str, str], parts: Parts
) -> None:
    """A session is not worth more than the token that opened it."""
    sign_in(browser, tokens["write"])
    assert browser.get("/jobs").status_code == 200
    with parts.database.write() as session:
        row = session.query(Token).filter_by(name="write-token").one()
        row.revoked_at = now_s()
    browser.app.state.principals.forget()  # type: ignore[attr-defined]
    assert browser.get("/jobs").status_code == 401


def test_a_cookie_from_elsewhere_neither_replaces_a_session_nor_ends_it(
    browser: TestClient, tokens: dict[str, str]
) -> None:
    """Another port of this host may set cookies of our name: a stranger's session beside one's own
    is neither, and what is of nobody is passed over."""
    sessions = []
    for scope in ("read", "admin"):
        sign_in(browser, tokens[scope])
        sessions.append(browser.cookies["onward"])
        browser.cookies.clear()
    theirs, own = sessions

    def asked(*cookies: str) -> int:
        header = "; ".join(f"onward={cookie}" for cookie in cookies)
        return browser.get("/jobs", headers={"cookie": header}).status_code

    assert asked(own) == asked(theirs) == 200
    assert asked("junk", own) == asked(own, "junk") == asked(own, own) == asked("", own) == 200
    assert asked(theirs, own) == asked(own, theirs) == 401
    assert asked(*["junk"] * 4, own) == 401


@pytest.mark.parametrize("shown", [None, "", "wrong", "header:wrong", "json"])
def test_a_form_without_the_sessions_secret_changes_nothing(
    browser: TestClient, tokens: dict[str, str], shown: str | None
) -> None:
    """With a cookie, every unsafe method needs the CSRF token, whatever the body is."""
    sign_in(browser, tokens["admin"])
    headers = {"x-csrf-token": "wrong"} if shown == "header:wrong" else {}
    if shown == "json":
        answer = browser.post("/api/v1/jobs/bulk", json={"action": "stop", "jobs": ["job-1"]})
    else:
        data = {} if shown in (None, "header:wrong") else {"csrf": shown}
        answer = browser.post("/logout", data=data, headers=headers)
    assert answer.status_code == 403
    assert browser.get("/jobs").status_code == 200


def test_the_secret_may_come_as_a_header(browser: TestClient, tokens: dict[str, str]) -> None:
    """As scripts of the console send it; the body then goes on to the route as it was."""
    sign_in(browser, tokens["admin"])
    answer = browser.post(
        "/api/v1/jobs/bulk", json={"action": "stop", "jobs": ["job-1"]},
        headers={"x-csrf-token": csrf(browser)},
    )  # fmt: skip
    assert answer.status_code == 200
    assert answer.json()["results"][0]["problem"]["status"] == 404


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:8420.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_another_site_can_change_nothing_even_with_a_token(
    client: TestClient, headers: dict[str, str]
) -> None:
    """An unsafe method from another origin is refused before anybody looks at who asks."""
    answer = client.post(
        "/api/v1/jobs/bulk", json={"action": "stop", "jobs": ["x"]}, headers=headers
    )
    assert answer.status_code == 403
    own = client.post(
        "/api/v1/jobs/bulk", json={"action": "stop", "jobs": ["x"]},
        headers={"origin": "http://127.0.0.1:8420", "sec-fetch-site": "same-origin"},
    )  # fmt: skip
    assert own.status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8420", "evil@127.0.0.1",
        "127.0.0.1/x", "127.0.0.1#", "", "[::1", "127.0.0.1:8420@evil.example", "0x7f.1",
        "2130706433", "127.1",
    ],
)  # fmt: skip
def test_a_name_that_is_not_the_servers_is_refused(client: TestClient, host: str) -> None:
    """DNS rebinding: a page's own name resolves to us, and the browser sends that name."""
    assert client.get("/api/v1/health", headers={"host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8420", "localhost", "LOCALHOST:1", "[::1]:8420", "localhost."]
)
def test_the_servers_own_names_are_good(client: TestClient, host: str) -> None:
    """Whatever the port: something may stand before the server."""
    assert client.get("/api/v1/health", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "to", ["//evil.example", "https://evil.example", "/\\evil.example", "/a\r\nx: y", "jobs", ""]
)
def test_a_login_sends_nobody_elsewhere(to: str) -> None:
    """Only to a path of this server."""
    assert local_path(to) == "/"
