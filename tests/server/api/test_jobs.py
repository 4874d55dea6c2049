"""Finding jobs and asking things of them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from onward.server.api.documents import JobDocument, job_document
from onward.server.database.tables import Job
from onward.server.jobs.glancing import _passed_on
from onward.server.jobs.moves import tell_job
from tests.server.api.house import SPEC, House


def ids(house: House, **query: Any) -> list[str]:
    """All pages of a list, one after the other."""
    found: list[str] = []
    cursor = ""
    while True:
        page = house.client.get("/api/v1/jobs", params={**query, "cursor": cursor})
        assert page.status_code == 200, page.text
        found += [item["id"] for item in page.json()["items"]]
        cursor = page.json()["next"]
        if cursor is None:
            return found


def test_pages_hold_every_job_once_also_where_times_are_equal(house: House) -> None:
    """Whatever the size of a page and the order: nothing twice, nothing left out."""
    jobs = [house.job() for _ in range(23)]
    with house.database.write() as session:
        for number, job in enumerate(jobs):
            session.get_one(Job, job).created_at = float(number // 5)
    newest = ids(house, limit=4)
    assert sorted(newest) == sorted(jobs)
    assert len(newest) == 23
    assert ids(house, limit=7, order="oldest") == newest[::-1]
    assert ids(house, limit=4, since=1.0, until=3.0) == [j for j in newest if j in jobs[5:15]]


def test_a_page_stays_where_it_was_while_jobs_are_submitted(house: House) -> None:
    """A cursor names a job, not a count: what comes in front moves nothing behind."""
    for _ in range(4):
        house.job()
    first = house.client.get("/api/v1/jobs?limit=2").json()
    house.job()
    second = house.client.get(f"/api/v1/jobs?limit=2&cursor={first['next']}").json()
    assert not {i["id"] for i in first["items"]} & {i["id"] for i in second["items"]}
    assert len(second["items"]) == 2


def test_filters_say_which_jobs(house: House) -> None:
    """Each alone, and together; % and _ are letters like others."""
    one = house.job(name="Digits 100%", output={"location": "here:team/a"})
    two = house.job(name="digits 1000", output={"location": "here:team_b"})
    house.end(two, "cancelled")
    assert ids(house, name="digits") == [two, one]
    assert ids(house, name="100%") == [one]
    assert ids(house, state=["cancelled", "failed"]) == [two]
    assert ids(house, state=["queued", "cancelled"]) == [two, one]
    assert ids(house, output="here:team_b") == [two]
    assert ids(house, output="here:team/*") == [one]
    assert ids(house, output="here:team_*") == [two]
    assert ids(house, created_by="test", state="queued") == [one]
    assert ids(house, created_by="nobody") == []
    assert house.client.get("/api/v1/jobs?state=sleeping").status_code == 422


@pytest.mark.parametrize("cursor", ["x", "bm90IGEgY3Vyc29y", "MS4wCmEA", "MS4w"])
def test_a_cursor_of_somebodys_own_is_refused(house: House, cursor: str) -> None:
    """It is said, and no page is invented."""
    answer = house.client.get(f"/api/v1/jobs?cursor={cursor}")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_job_tells_its_attempts_and_moves(house: House) -> None:
    """Attempts newest first, moves oldest first, both in pages."""
    job = house.job()
    house.attempt(job).ends()
    second = house.attempt(job)
    page = house.client.get(f"/api/v1/jobs/{job}/attempts?limit=1").json()
    assert [a["id"] for a in page["items"]] == [second.id]
    page = house.client.get(f"/api/v1/jobs/{job}/attempts?cursor={page['next']}").json()
    assert [(a["number"], a["state"]) for a in page["items"]] == [(1, "exited")]
    moves = house.client.get(f"/api/v1/jobs/{job}/moves?limit=100").json()["items"]
    told = [m["after"] for m in moves if m["attempt"] is None]
    assert told == ["running", "backoff", "queued", "running"]
    assert house.client.get("/api/v1/jobs/job-none/moves").status_code == 404


def test_what_runs_is_asked_and_what_waits_is_moved(house: House) -> None:
    """A wish for a running job is the scheduler's to fulfil; one that waits is moved at once."""
    waiting, running = house.job(), house.job()
    house.attempt(running)
    post = house.client.post
    assert post(f"/api/v1/jobs/{waiting}/pause").json()["state"] == "paused"
    assert post(f"/api/v1/jobs/{waiting}/resume").json()["state"] == "queued"
    assert post(f"/api/v1/jobs/{waiting}/stop").json()["state"] == "cancelled"
    answer = post(f"/api/v1/jobs/{running}/pause").json()
    assert (answer["state"], answer["wanted"]) == ("running", "pause")
    assert post(f"/api/v1/jobs/{running}/cancel").json()["wanted"] == "cancel"
    refused = post(f"/api/v1/jobs/{waiting}/pause")
    assert refused.status_code == 409
    assert refused.json()["do"]


def test_what_has_ended_goes_on_as_another_job(house: House) -> None:
    """`retry` does the same again; `continue` goes on, with what is different."""
    job = house.job(output={"location": "here:digits", "predownload": "no"})
    assert house.client.post(f"/api/v1/jobs/{job}/retry").status_code == 409
    house.end(job)
    again = house.client.post(f"/api/v1/jobs/{job}/retry")
    assert again.status_code == 201
    assert again.json()["parent"] == job
    before = house.client.get(f"/api/v1/jobs/{job}").json()["spec"]
    assert again.json()["spec"] == before
    further = house.client.post(
        f"/api/v1/jobs/{job}/continue",
        json={"name": "more digits", "inputs": {"data_url": {"location": "here:more"}}},
    )
    assert further.status_code == 201, further.text
    spec = further.json()["spec"]
    assert spec["output"] == {"location": "here:digits"}, "it goes on from the newest checkpoint"
    assert spec["name"] == "more digits"
    assert spec["inputs"]["data_url"]["location"] == "here:more"
    assert spec["command"] == before["command"]


def test_a_branch_that_committed_is_not_branched_again(house: House) -> None:
    """Its retry goes on from its own checkpoint, whatever was insisted on at first."""
    job = house.job(verb="branch", branch_from="here:other@latest")
    house.end(job, "failed")
    assert house.client.post(f"/api/v1/jobs/{job}/retry").json()["spec"]["verb"] == "branch"
    with house.database.write() as session:
        session.get_one(Job, job).committed = True
    assert "verb" not in house.client.post(f"/api/v1/jobs/{job}/retry").json()["spec"]


def test_of_many_each_has_its_own_result(house: House) -> None:
    """One that cannot does not keep the others from it."""
    one, done, two = house.job(), house.job(), house.job()
    house.end(done)
    answer = house.client.post(
        "/api/v1/jobs/bulk", json={"action": "pause", "jobs": [one, done, "job-none", two, one]}
    )
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [r["id"] for r in results] == [one, done, "job-none", two]
    assert [r["job"] and r["job"]["state"] for r in results] == ["paused", None, None, "paused"]
    assert [r["problem"] and r["problem"]["status"] for r in results] == [None, 409, 404, None]
    assert house.client.get(f"/api/v1/jobs/{done}").json()["state"] == "succeeded"


def test_a_reader_may_look_and_nothing_else(house: House) -> None:
    """Every request that changes something needs the scope `write`."""
    job = house.job()
    headers = {"authorization": f"Bearer {house.token('read')}"}
    get, post = house.client.get, house.client.post
    for path in ("", "/attempts", "/moves", "/log", "/events", "/metrics", "/log/search?q=x"):
        assert get(f"/api/v1/jobs/{job}{path}", headers=headers).status_code == 200, path
    assert get("/api/v1/jobs", headers=headers).status_code == 200
    for path, body in (
        ("", SPEC), ("/bulk", {"action": "stop", "jobs": [job]}), (f"/{job}/stop", None),
        (f"/{job}/cancel", None), (f"/{job}/pause", None), (f"/{job}/resume", None),
        (f"/{job}/retry", None), (f"/{job}/continue", {}), (f"/{job}/log/cut", {"keep_bytes": 0}),
    ):  # fmt: skip
        answer = post(f"/api/v1/jobs{path}", json=body, headers=headers)
        assert answer.status_code == 403, path


def test_the_quick_answer_is_the_one_that_is_described(house: House) -> None:
    """Two ways to one job's status tell the same, of every column; what is no id is refused."""
    job = house.job()
    attempt = house.attempt(job)
    with house.database.write() as session:
        tell_job(session, job, progress={"step": 3, "metrics": {"loss": 0.5, "name": "é\n"}})
    quick = house.client.get(f"/api/v1/jobs/{job}")
    assert quick.headers["content-type"] == "application/json"
    with house.database.read() as session:
        assert quick.json() == job_document(session.get_one(Job, job))
    JobDocument.model_validate(quick.json(), strict=True)
    assert house.client.get("/api/v1/jobs/no_id!").status_code == 422
    missing = house.client.get("/api/v1/jobs/job-none")
    assert (missing.status_code, missing.headers["content-type"]) == (
        404, "application/problem+json"
    )  # fmt: skip
    assert house.client.head(f"/api/v1/jobs/{job}").status_code == 405
    attempt.ends()


def test_many_who_ask_at_once_each_see_what_they_did(house: House) -> None:
    """Answers are shared between those who wait, but never from before somebody asked."""
    jobs = [house.job() for _ in range(8)]

    def rounds(job: str) -> None:
        for action, state in (("pause", "paused"), ("resume", "queued")) * 5:
            client.post(f"/api/v1/jobs/{job}/{action}").raise_for_status()
            assert client.get(f"/api/v1/jobs/{job}").json()["state"] == state

    with house.served() as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(rounds, jobs))


def test_numbers_that_json_has_not_are_null() -> None:
    """What a script told as NaN makes no answer that cannot be read."""
    assert _passed_on('{"a": NaN, "b": [Infinity, 1]}') == {"a": None, "b": [None, 1]}
