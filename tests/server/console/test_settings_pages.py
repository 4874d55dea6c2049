"""The settings page: what it changes, what it shows once, and what it never shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from onward.server.database.tables import Answer, Audit, Delivery, Secret, Storage
from onward.server.security.tokens import find_principal, make_token
from tests.server.console.conftest import Browser
from tests.server.places import name_storage

HOSTILE = '<script>alert(1)</script>"><img src=x onerror=alert(2)>'
CANARY = "canary-4fzK1-of-a-secret"


def audited(browser: Browser) -> list[tuple[str, str]]:
    with browser.database.read() as session:
        rows = session.scalars(select(Audit).order_by(Audit.id))
        return [(row.action, row.object) for row in rows]


def signed_in(browser: Browser, scope: str) -> None:
    with browser.database.write() as session:
        _, text = make_token(session, f"{scope}-er", scope, by="test")
    browser.headers = {"authorization": f"Bearer {text}"}


@pytest.mark.parametrize("code", ["en", "zh"])
def test_a_newcomer_is_told_to_begin_with_a_storage(browser: Browser, code: str) -> None:
    """The form is open already."""
    page = browser.get("/settings", cookie=f"language={code}")
    assert page.status == 200
    told = "从这里开始" if code == "zh" else "Begin here"
    assert told in page.one("section", id="storages").text
    form = page.one("form", action="/settings/storages#storages")
    opened = [e for e in page.all("details") if form in e.walk() and "open" in e.attributes]
    assert opened


def test_a_storage_is_registered_and_removed(browser: Browser, tmp_path: Path) -> None:
    """Sent twice, it is registered once; in use or unknown, the reason is on the page."""
    (tmp_path / "lab").mkdir()
    page = browser.get("/settings")
    sent = {
        **page.form("/settings/storages"), "storage_alias": "lab",
        "storage_url": str(tmp_path / "lab"),
    }  # fmt: skip
    for _ in range(2):
        answer = browser.post("/settings/storages", sent)
        assert (answer.status, answer.location) == (303, "/settings?done=storages#storages")
    page = browser.get("/settings?done=storages")
    assert str(tmp_path / "lab") in page.one("section", id="storages").text
    assert "Done." in page.text
    assert browser.submit(page, "/settings/storages/lab/remove").status == 303
    with browser.database.read() as session:
        assert session.get(Storage, "lab") is None
    assert browser.submit(page, "/settings/storages/lab/remove").status == 303  # the same key
    assert audited(browser) == [("storage.register", "lab"), ("storage.remove", "lab")]


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, {"storage_alias", "storage_url"}),
        ({"storage_alias": "Lab!", "storage_url": "/tmp"}, {"storage_alias"}),
        ({"storage_alias": "s3", "storage_url": "/tmp"}, {"storage_alias"}),
        ({"storage_alias": "lab", "storage_url": "/not/there"}, {"storage_url"}),
        ({"storage_alias": "lab", "storage_url": "s3://bucket", "storage_environment": "X"},
         {"storage_environment"}),
        ({"storage_alias": "lab", "storage_url": "s3://bucket", "storage_environment": "LD_X=a"},
         {"storage_environment"}),
        ({"storage_alias": "lab", "storage_url": "s3://bucket",
          "storage_environment": "AWS_KEY=none"}, {"storage_environment"}),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_storage_stands_beside_its_field(
    browser: Browser, fields: dict[str, str], wrong: set[str]
) -> None:
    """What was typed stays."""
    page = browser.get("/settings")
    again = browser.submit(page, "/settings/storages", **fields)
    assert again.status == 422
    found = {e.attributes["name"] for e in again.elements if e.attributes.get("aria-invalid")}
    assert found == wrong
    for name in wrong:
        assert again.one("p", id=f"s-{name}").text
    for name, value in fields.items():
        assert again.form("/settings/storages")[name] == value
    assert audited(browser) == []


def test_a_new_token_is_shown_once(browser: Browser) -> None:
    """It works until it is revoked; nothing stored or sent again holds its text."""
    page = browser.get("/settings")
    sent = {
        **page.form("/settings/tokens"), "token_name": HOSTILE, "token_scope": "read",
        "token_lifetime_s": "7",
    }  # fmt: skip
    made = browser.post("/settings/tokens", sent)
    text = made.one("pre", id="new-token").text
    assert text.startswith("onw_")
    assert not made.all("img")
    again = browser.post("/settings/tokens", sent)
    assert (again.status, again.all("pre", id="new-token")) == (200, [])
    assert text not in again.answer.text
    with browser.database.read() as session:
        principal = find_principal(session, text)
        assert principal is not None
        assert principal.scope == "read"
        kept = json.dumps([row.body for row in session.scalars(select(Answer))])
    assert text not in kept
    assert browser.submit(made, f"/settings/tokens/{principal.token}/revoke").status == 303
    with browser.database.read() as session:
        assert find_principal(session, text) is None
    assert [action for action, _ in audited(browser)] == ["token.make", "token.revoke"]


def test_a_revoked_token_is_refused_at_once(browser: Browser) -> None:
    """What the server remembers of it is forgotten, too."""
    page = browser.get("/settings")
    made = browser.submit(page, "/settings/tokens", token_name="guest", token_scope="read")
    text = made.one("pre", id="new-token").text
    bearer = {"authorization": f"Bearer {text}"}
    assert browser.get("/settings", **bearer).status == 200
    with browser.database.read() as session:
        principal = find_principal(session, text)
    assert principal is not None
    browser.submit(made, f"/settings/tokens/{principal.token}/revoke")
    assert browser.get("/settings", **bearer).status == 401


def test_the_last_administrators_token_stays(browser: Browser) -> None:
    """The reason is in the section."""
    page = browser.get("/settings")
    form = next(
        each.attributes["action"].partition("#")[0] for each in page.all("form")
        if "/revoke" in each.attributes.get("action", "")
    )  # fmt: skip
    refused = browser.submit(page, form)
    assert refused.status == 409
    assert "last administrator" in refused.one("section", id="tokens").text
    assert browser.get("/settings").status == 200


def test_a_secrets_value_goes_into_its_file_and_nowhere_else(browser: Browser) -> None:
    """Neither the page nor the database has it, in any form."""
    page = browser.get("/settings")
    sent = {
        **page.form("/settings/secrets"), "secret_name": "key",
        "secret_value": f"{CANARY}\r\nsecond line\r\n",
    }  # fmt: skip
    assert browser.post("/settings/secrets", sent).status == 303
    assert (browser.settings.secrets / "key").read_text() == f"{CANARY}\nsecond line"
    page = browser.get("/settings")
    assert "key" in page.one("section", id="secrets").text
    wrong = browser.post("/settings/secrets", {**sent, "secret_name": "Bad Name"})
    assert wrong.status == 422
    assert wrong.one("input", name="secret_name").attributes["value"] == "Bad Name"
    assert CANARY not in page.answer.text + wrong.answer.text
    database = browser.settings.folder / "onward.db"
    stored = b"".join(path.read_bytes() for path in database.parent.glob("onward.db*"))
    assert b"storage" in stored
    assert CANARY.encode() not in stored
    with browser.database.read() as session:
        assert session.scalars(select(Answer)).all() == []  # no digest of the value, either
    assert browser.submit(page, "/settings/secrets/key/delete").status == 303
    with browser.database.read() as session:
        assert session.get(Secret, "key") is None
    assert audited(browser) == [("secret.put", "key"), ("secret.delete", "key")]


def test_a_webhook_is_registered_tested_and_removed(browser: Browser) -> None:
    """What is wrong stands at its field; messages and how they went are beneath the webhook."""
    page = browser.get("/settings")
    asked = {"webhook_name": "team", "webhook_url": "http://10.0.0.1/h", "webhook_secret": "sig"}
    unknown = browser.submit(page, "/settings/webhooks", **asked, webhook_allow_private="on")
    assert unknown.one("p", id="s-webhook_secret").attributes["class"] == "wrong"
    browser.submit(page, "/settings/secrets", secret_name="sig", secret_value="x")
    private = browser.submit(page, "/settings/webhooks", **asked)
    assert private.status == 422
    assert private.one("p", id="s-webhook_url").attributes["class"] == "wrong"
    sent = {**private.form("/settings/webhooks"), "webhook_allow_private": "on"}
    assert browser.post("/settings/webhooks", sent).status == 303
    page = browser.get("/settings")
    assert browser.submit(page, "/settings/webhooks/team/test").status == 303
    with browser.database.read() as session:
        assert [row.webhook for row in session.scalars(select(Delivery))] == ["team"]
    assert "webhook.test" in browser.get("/settings").one("section", id="webhooks").text
    assert browser.submit(page, "/settings/webhooks/team/remove").status == 303
    assert browser.submit(page, "/settings/webhooks/team/remove", key="new").status == 404
    actions = [action for action, _ in audited(browser)]
    assert actions == ["secret.put", "webhook.register", "webhook.test", "webhook.remove"]


UNSAFE: dict[str, dict[str, Any]] = {
    "/settings/storages": {"storage_alias": "x", "storage_url": "/tmp"},
    "/settings/storages/lab/remove": {}, "/settings/tokens": {"token_name": "x"},
    "/settings/tokens/tok-x/revoke": {},
    "/settings/secrets": {"secret_name": "x", "secret_value": "y"},
    "/settings/secrets/x/delete": {}, "/settings/webhooks": {"webhook_name": "x"},
    "/settings/webhooks/x/test": {}, "/settings/webhooks/x/remove": {},
}  # fmt: skip


@pytest.mark.parametrize("scope", ["read", "write"])
def test_others_are_told_what_is_for_administrators(browser: Browser, scope: str) -> None:
    """Neither shown nor done, whatever form is sent."""
    name_storage(browser.database, "lab")
    signed_in(browser, scope)
    page = browser.get("/settings")
    assert page.status == 200
    for section in ("tokens", "webhooks", "audit"):
        assert "Only administrators" in page.one("section", id=section).text
    assert "ada" not in page.one("section", id="tokens").text
    offered = {e.attributes.get("action", "") for e in page.all("form")}
    steering = {a for a in offered if a.startswith("/settings")}
    assert not steering
    for address, fields in UNSAFE.items():
        assert browser.post(address, fields).status == 403, address
    assert audited(browser) == []


def test_the_audit_log_is_paged(browser: Browser) -> None:
    """Newest first, every entry on one page."""
    page = browser.get("/settings")
    for n in range(30):
        browser.submit(page, "/settings/secrets", secret_name=f"s{n}", secret_value="x")
    first = browser.get("/settings")
    older = first.one("a", rel="next").attributes["href"]
    second = browser.get(older.partition("#")[0])

    def shown(page: Any) -> list[str]:
        cells = [e for e in page.one("section", id="audit").walk() if e.tag == "td"]
        return [e.text for e in cells if e.attributes.get("data-label") == "Object"]

    assert [*shown(first), *shown(second)] == [f"s{n}" for n in range(29, -1, -1)]
