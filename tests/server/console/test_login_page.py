"""What a browser sees that nobody knows."""

from __future__ import annotations

import base64
import hashlib

from tests.server.console.conftest import Browser


def test_the_login_page_brings_its_style_and_nothing_else_is_allowed(browser: Browser) -> None:
    """Static files need a session, so the page is complete in itself; the policy pins its style."""
    browser.headers = {}
    page = browser.get("/jobs?q=a&language=zh")
    assert page.status == 401
    assert page.one("html").attributes["lang"] == "zh"
    assert page.one("input", name="next").attributes["value"] == "/jobs?q=a"
    style = "".join(str(child) for child in page.one("style").children)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in page.answer.headers["content-security-policy"]
    assert not page.all("script")
    assert not page.all("link", rel="stylesheet")
    assert "language=zh" in page.answer.headers["set-cookie"]


def test_programs_get_a_problem_instead(browser: Browser) -> None:
    """The API's 401 stays JSON, whatever a browser accepts."""
    browser.headers = {}
    assert browser.get("/api/v1/jobs/x").answer.json()["status"] == 401
    assert browser.get("/jobs", accept="application/json").answer.json()["status"] == 401


def test_language_and_theme_are_kept_and_lead_back_within_the_server(browser: Browser) -> None:
    """The switch sets a cookie; it is no way to somewhere else."""
    page = browser.post("/look", {"theme": "dark", "back": "/jobs?q=x"})
    assert page.location == "/jobs?q=x"
    assert "theme=dark" in page.answer.headers["set-cookie"]
    for elsewhere in ("https://evil.example/", "//evil.example", "/\\evil.example", "/a\r\nb: c"):
        assert browser.post("/look", {"language": "zh", "back": elsewhere}).location == "/"
    assert browser.get("/jobs", cookie="theme=dark").one("html").attributes["data-theme"] == "dark"
    assert browser.get("/jobs", cookie='theme="><x').one("html").attributes["data-theme"] == "auto"
