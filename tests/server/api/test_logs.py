"""What attempts print, over the API."""

from __future__ import annotations

import os

import pytest

from onward.engines.base import LOG_CUT
from tests.server.api.house import House


def test_a_job_without_an_attempt_has_an_empty_log(house: House) -> None:
    """It is no error: there is nothing yet."""
    job = house.job()
    answer = house.client.get(f"/api/v1/jobs/{job}/log").json()
    assert (answer["attempt"], answer["lines"], answer["ended"]) == (None, [], False)
    assert house.client.get(f"/api/v1/jobs/{job}/log/search?q=x").json()["hits"] == []
    assert house.client.get(f"/api/v1/jobs/{job}/log/raw").status_code == 404
    assert house.client.get("/api/v1/jobs/job-none/log").status_code == 404
    assert house.client.get(f"/api/v1/jobs/{job}/log?attempt=1").status_code == 404


def test_ranges_tails_and_earlier_lines(house: House) -> None:
    """The newest attempt by default; any other by its number."""
    job = house.job()
    first = house.attempt(job)
    first.prints("of the first\n")
    first.ends()
    second = house.attempt(job)
    second.prints("".join(f"line {n}\n" for n in range(1000)))
    log = f"/api/v1/jobs/{job}/log"
    old = house.client.get(log, params={"attempt": 1}).json()
    assert (old["ended"], [line["text"] for line in old["lines"]]) == (True, ["of the first"])
    page = house.client.get(log, params={"limit": 100}).json()
    more = house.client.get(log, params={"offset": page["next"], "limit": 100}).json()
    texts = [line["text"] for line in page["lines"] + more["lines"]]
    assert texts == [f"line {n}" for n in range(len(texts))]
    tail = house.client.get(log, params={"tail": 2}).json()
    assert [line["text"] for line in tail["lines"]] == ["line 998", "line 999"]
    assert tail["next"] == tail["size"]
    before = house.client.get(log, params={"before": tail["offset"], "limit": 30}).json()
    assert before["lines"][-1]["text"] == "line 997"
    assert before["next"] == tail["offset"]


def test_the_raw_log_is_a_file_to_be_saved(house: House) -> None:
    """Never to be shown by a browser; what was given back is said in its place."""
    attempt = house.attempt(house.job())
    attempt.prints(b"<script>alert(1)</script>\n" + b"\0" * 4070 + b"\x1b[31mend\n")
    (attempt.folder / LOG_CUT).write_text('{"from": 26, "to": 4096}')
    answer = house.client.get(f"/api/v1/jobs/{attempt.job}/log/raw")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.content == (
        b"<script>alert(1)</script>\n[onward: 4,070 bytes were given back]\n\x1b[31mend\n"
    )


def test_a_cut_log_keeps_its_places(house: House) -> None:
    """The answer says where what is left begins; a range that asks for more gets that."""
    attempt = house.attempt(house.job())
    attempt.prints("".join(f"line {n:06d}\n" for n in range(10_000)))
    log = f"/api/v1/jobs/{attempt.job}/log"
    answer = house.client.post(f"{log}/cut", json={"keep_bytes": 1000})
    assert answer.status_code == 200
    begin = answer.json()["begin"]
    page = house.client.get(log).json()
    assert page["cuts"] == [[0, begin]]
    assert page["lines"][0]["at"] == begin
    assert page["lines"][-1]["text"] == "line 009999"


def test_events_and_metrics_are_read_by_range(house: House) -> None:
    """Events of one attempt; metrics of all, on one axis: steps trained again replace the old."""
    job = house.job()
    first = house.attempt(job)
    first.tells({"at": 1.0, "kind": "begin", "verb": "fresh"})
    first.trains(*range(1, 11), loss=lambda step: 100.0)
    first.ends()
    second = house.attempt(job)
    second.trains(*range(6, 21), loss=lambda step: float("nan") if step == 8 else 1.0)
    with (second.folder / "events.jsonl").open("ab") as file:
        file.write(b'not json\n{"at": 30, "kind": "training", "st')
    events = house.client.get(f"/api/v1/jobs/{job}/events", params={"attempt": 1}).json()
    assert [e["kind"] for e in events["items"]] == ["begin"] + ["training"] * 10
    part = house.client.get(f"/api/v1/jobs/{job}/events", params={"limit": 100}).json()
    rest = house.client.get(f"/api/v1/jobs/{job}/events", params={"offset": part["next"]}).json()
    kinds = [e["kind"] for e in part["items"] + rest["items"]]
    assert kinds == ["training"] * 15 + ["unreadable"]
    url = f"/api/v1/jobs/{job}/metrics"
    (series,) = house.client.get(url).json()["series"]
    assert series["name"] == "loss"
    assert series["points"] == [
        [step, 100.0 if step < 6 else None if step == 8 else 1.0] for step in range(1, 21)
    ]
    second.trains()
    with (second.folder / "events.jsonl").open("ab") as file:
        file.write(b'ep": 21, "metrics": {"loss": 2.0}}\n')
    (series,) = house.client.get(url, params={"first": 20}).json()["series"]
    assert series["points"] == [[20, 1.0], [21, 2.0]], "what grew is heard"
    assert house.client.get(url, params={"name": "accuracy"}).json()["series"] == []


def test_few_points_keep_the_peaks(house: House) -> None:
    """Of a hundred thousand points a few hundred are shown, and the one spike is among them."""
    attempt = house.attempt(house.job())
    attempt.trains(*range(1, 100_001), loss=lambda step: 50.0 if step == 31_415 else 1.0)
    url = f"/api/v1/jobs/{attempt.job}/metrics"
    (series,) = house.client.get(url, params={"points": 300}).json()["series"]
    assert len(series["points"]) <= 300
    assert [31_415, 50.0] in series["points"]
    assert series["points"][0] == [1, 1.0]
    assert series["points"][-1] == [100_000, 1.0]
    steps = [step for step, _ in series["points"]]
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("kind", ["link", "pipe", "folder", "cut"])
def test_what_a_script_puts_in_place_of_its_files_harms_nobody(house: House, kind: str) -> None:
    """No link is followed, no pipe is waited for, and no nonsense is believed."""
    attempt = house.attempt(house.job())
    secret = house.settings.folder / "secret"
    secret.write_text("a secret of the server\n")
    for name in ("log", "events.jsonl"):
        path = attempt.folder / name
        if kind == "link":
            path.symlink_to(secret)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
    if kind == "cut":
        attempt.prints("one\n")
        for text in ('{"from": -5, "to": 3}', '{"from": true, "to": 2}', "[" * 10_000, "{}"):
            (attempt.folder / LOG_CUT).write_text(text)
            assert house.client.get(f"/api/v1/jobs/{attempt.job}/log").json()["cuts"] == []
        os.unlink(attempt.folder / LOG_CUT)
        os.mkfifo(attempt.folder / LOG_CUT)
        assert house.client.get(f"/api/v1/jobs/{attempt.job}/log").json()["cuts"] == []
        return
    for path in ("log", "log/raw", "log/search?q=secret", "events", "metrics"):
        answer = house.client.get(f"/api/v1/jobs/{attempt.job}/{path}")
        assert answer.status_code == 409, path
        assert "a secret" not in answer.text
    cut = house.client.post(f"/api/v1/jobs/{attempt.job}/log/cut", json={"keep_bytes": 0})
    assert cut.status_code == 409
    assert secret.read_text() == "a secret of the server\n"
