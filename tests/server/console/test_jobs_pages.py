"""The list of jobs and the page of one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from onward.server.database.tables import Attempt, Job
from onward.server.jobs import requests
from onward.server.jobs.moves import move_job
from onward.server.names import now_s
from onward.server.spec import JobRequest
from tests.server.console.conftest import Browser
from tests.server.places import name_storage

HOSTILE = '<script>alert(1)</script><img src=x onerror=alert(2)>" onload="alert(3)'


def submit(browser: Browser, name: str = "digits", **more: Any) -> str:
    request = JobRequest.model_validate(
        {
            "name": name, "command": ["train.py", "--epochs", "2"], "code": {"folder": "lab:code"},
            "output": {"location": "lab:out"}, **more,
        }
    )  # fmt: skip
    name_storage(browser.database, "lab")
    with browser.database.write() as session:
        return requests.submit(session, request, by="ada").id


@pytest.mark.parametrize("code", ["en", "zh"])
def test_an_empty_list_tells_a_newcomer_what_to_do_first(browser: Browser, code: str) -> None:
    """Register a storage, then create a job."""
    page = browser.get("/jobs", cookie=f"language={code}")
    assert page.status == 200
    assert page.one("html").attributes["lang"] == code
    assert "/settings#storages" in page.links()
    assert ("还没有作业" if code == "zh" else "No job yet") in page.text


def test_jobs_are_filtered_paged_and_listed_newest_first(browser: Browser) -> None:
    """Every job is on exactly one page."""
    ids = [submit(browser, f"job {n}") for n in range(60)]
    with browser.database.write() as session:
        move_job(session, requests.find_job(session, ids[0]), "cancelled", by="ada")
    first = browser.get("/jobs")
    older = first.one("a", rel="next").attributes["href"]
    second = browser.get(older)

    def shown(page: Any) -> list[str]:
        return [e.attributes["value"] for e in page.all("input", name="job")]

    assert [*shown(first), *shown(second)] == ids[::-1]
    assert shown(browser.get("/jobs?state=cancelled")) == [ids[0]]
    assert ids[0] not in shown(browser.get(f"/jobs?state=active&q={ids[0]}"))
    assert shown(browser.get("/jobs?q=JOB+59")) == [ids[59]]
    assert "No job is like that" in browser.get("/jobs?q=100%25").text


def test_htmx_gets_the_list_alone(browser: Browser) -> None:
    """The live part is asked for again and again: without the page around it."""
    page = browser.get("/jobs", hx_request="true")
    assert not page.all("html")
    assert page.one("section", id="jobs")


def test_text_of_users_is_only_ever_text(browser: Browser) -> None:
    """Names, paths, arguments, reasons, events: nothing of them becomes markup."""
    job_id = submit(browser, HOSTILE, command=["a.py", HOSTILE])
    with browser.database.write() as session:
        job = requests.find_job(session, job_id)
        job.output = f"lab:{HOSTILE}"
        job.progress = {"step": 3, "metrics": {HOSTILE: 0.5}}
        session.add(
            Attempt(
                id="att-1", job=job_id, number=1, state="running", engine="machine", host=HOSTILE,
                created_at=now_s(), reason=HOSTILE, verb=HOSTILE, checkpoint=HOSTILE,
            )
        )  # fmt: skip
        move_job(session, job, "running", by=HOSTILE, reason=HOSTILE)
    folder = browser.settings.attempts / "att-1"
    folder.mkdir(parents=True)
    events = [
        {"at": now_s(), "kind": "begin", "verb": HOSTILE, "why": HOSTILE},
        {"at": now_s(), "kind": "transfer", "title": HOSTILE, "direction": "fetch", "done": 1,
         "total": 2},
        {"at": now_s(), "kind": "end", "exit_code": 1, "message": HOSTILE},
        {"at": "x", "kind": 3}, [], 7,
    ]  # fmt: skip
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events) + "{torn")
    for address in ("/jobs", f"/jobs/{job_id}", f"/jobs?q={HOSTILE}"):
        page = browser.get(address)
        assert page.status == 200
        assert HOSTILE in page.text or address.startswith("/jobs?")
        assert not page.all("img")
        assert all("src" in each.attributes for each in page.all("script"))
        assert not [e for e in page.elements if any(a.startswith("on") for a in e.attributes)]


def test_a_transfer_is_shown_with_its_bytes(browser: Browser) -> None:
    """Predownload and push are part of the timeline, with how far they are."""
    job_id = submit(browser)
    with browser.database.write() as session:
        session.add(
            Attempt(id="att-2", job=job_id, number=1, state="running", engine="machine",
                    created_at=now_s())
        )  # fmt: skip
    folder = browser.settings.attempts / "att-2"
    folder.mkdir(parents=True)
    event = {"at": now_s(), "kind": "transfer", "title": "v3", "direction": "fetch",
             "done": 1_500_000, "total": 6_000_000}  # fmt: skip
    (folder / "events.jsonl").write_text(json.dumps(event) + "\n")
    page = browser.get(f"/jobs/{job_id}")
    assert "1.5 MB of 6 MB" in page.text
    assert page.one("progress").attributes["value"] == "1500000"


def test_a_wish_sent_twice_has_one_effect(browser: Browser) -> None:
    """The form's key makes a double click harmless."""
    job_id = submit(browser)
    page = browser.get(f"/jobs/{job_id}")
    sent = page.form(f"/jobs/{job_id}/pause")
    assert browser.post(f"/jobs/{job_id}/pause", sent).status == 303
    assert browser.post(f"/jobs/{job_id}/pause", sent).location == f"/jobs/{job_id}"
    with browser.database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        assert (job.state, job.version) == ("paused", 2)


def test_a_wish_that_is_impossible_is_a_page_that_says_why(browser: Browser) -> None:
    """What has ended stays ended."""
    job_id = submit(browser)
    page = browser.get(f"/jobs/{job_id}")
    assert browser.submit(page, f"/jobs/{job_id}/cancel").status == 303
    refused = browser.submit(page, f"/jobs/{job_id}/pause")
    assert refused.status == 409
    assert "cancelled" in refused.one("h1").text
    assert browser.get("/jobs/job-none").status == 404


def test_several_jobs_are_asked_at_once(browser: Browser) -> None:
    """Those that cannot are passed over and counted out."""
    ids = [submit(browser, f"job {n}") for n in range(3)]
    page = browser.get("/jobs")
    sent = {**page.form("/jobs/many"), "job": [*ids, "job-none"], "action": "cancel"}
    assert browser.post("/jobs/many", sent).location == "/jobs?done=3"
    assert "3 jobs were asked." in browser.get("/jobs?done=3").text
    with browser.database.read() as session:
        assert {requests.find_job(session, i).state for i in ids} == {"cancelled"}


def test_every_page_allows_nothing_inline(browser: Browser) -> None:
    """No script, style or handler within a page; the policy says so to the browser."""
    job_id = submit(browser)
    for address in ("/jobs", f"/jobs/{job_id}", "/jobs/none"):
        page = browser.get(address)
        policy = page.answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
        assert "style-src 'self';" in policy
        assert "unsafe" not in policy
        assert not page.all("style")
        assert not [each for each in page.elements if "style" in each.attributes]
