"""The commands for what a server keeps beside jobs, against one: schedules, secrets, storages,
tokens, webhooks, and the length of logs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onward.client import Client, Login
from onward.errors import UsageError
from tests.server.api.conftest import Onward
from tests.server.api.house import House

SPEC = """
name = "nightly"
command = ["train.py"]
[inputs.data_url]
location = "here:data"
[output]
location = "here:out"
"""


def items(onward: Onward, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(onward(kind, "list", "--json").stdout)["items"]
    return found


@pytest.fixture
def spec() -> str:
    """A job, and its code beside it."""
    Path("nightly").mkdir()
    Path("nightly/train.py").write_text("print('hello')")
    Path("nightly/job.toml").write_text(SPEC)
    return "nightly/job.toml"


def test_a_schedule_is_made_changed_paused_run_and_removed(
    house: House, onward: Onward, spec: str
) -> None:
    """From a job's file, with options as `submit` has them, and with the code that goes with it."""
    said = onward("schedules", "add", spec, "--cron", "30 2 * * *", "--timezone", "Asia/Shanghai",
                  "--output", "here:other", "--", "--epochs", "3").stdout  # fmt: skip
    assert "nightly is on: 30 2 * * * (Asia/Shanghai); next at " in said
    (made,) = items(onward, "schedules")
    assert (made["kind"], made["job"]["command"]) == ("cron", ["train.py", "--epochs", "3"])
    assert made["job"]["output"]["location"] == "here:other"
    digest = made["job"]["code"]["digest"]
    assert house.client.get(f"/api/v1/code/{digest}").json()["paths"] == ["job.toml", "train.py"]

    assert "is paused" in onward("schedules", "pause", made["id"]).stdout
    assert "paused" in onward("schedules", "list").stdout
    Path("nightly/train.py").write_text("print('other')")
    changed = onward("schedules", "change", made["id"], spec, "--watch", "--name", "arrivals")
    assert "arrivals is paused: when data changes" in changed.stdout
    (now,) = items(onward, "schedules")
    assert (now["kind"], now["cron"], now["enabled"]) == ("watch", "", False)
    assert now["job"]["code"]["digest"] != digest, "the code is sent anew"
    assert "is on" in onward("schedules", "resume", made["id"]).stdout

    job = json.loads(onward("schedules", "run", made["id"], "--json").stdout)
    assert house.client.get(f"/api/v1/jobs/{job['id']}").json()["name"] == "arrivals"
    assert "is still going" in onward("schedules", "run", made["id"], code=1).stderr
    assert "is forgotten" in onward("schedules", "remove", made["id"]).stdout
    assert "there are none" in onward("schedules", "list").stdout
    assert "there is no schedule" in onward("schedules", "remove", made["id"], code=2).stderr


def test_a_schedule_is_by_the_clock_or_watches(onward: Onward, spec: str) -> None:
    """Neither, both, and a line that no clock understands are mistakes; nothing is made."""
    for times in ([], ["--watch", "--cron", "@daily"]):
        assert "either --cron" in onward("schedules", "add", spec, *times, code=2).stderr
    assert onward("schedules", "add", spec, "--cron", "61 * * * *", code=2).stderr
    assert items(onward, "schedules") == []


def test_a_secret_is_set_from_input_or_a_file_and_never_shown(house: House, onward: Onward) -> None:
    """Input loses its last line end, a file stays as it is; there is no argument for a value."""
    kept = house.settings.secrets
    assert "token is kept" in onward("secrets", "set", "token", input="s3cret \n").stdout
    assert (kept / "token").read_bytes() == b"s3cret "
    Path("key").write_bytes(b"line\nline\n")
    onward("secrets", "set", "token", "key")
    assert (kept / "token").read_bytes() == b"line\nline\n"
    assert [each["name"] for each in items(onward, "secrets")] == ["token"]
    for shown in (onward("secrets", "list"), onward("secrets", "list", "--json")):
        assert "token" in shown.stdout
        assert "line" not in shown.stdout
    for empty in ("", "\n"):
        assert "would be empty" in onward("secrets", "set", "other", input=empty, code=2).stderr
    assert "no text" in onward("secrets", "set", "other", input=b"\xff\xfe", code=2).stderr
    assert "token is forgotten" in onward("secrets", "remove", "token").stdout
    assert not (kept / "token").exists()


def test_a_storage_is_added_and_removed(house: House, onward: Onward, tmp_path: Path) -> None:
    """With the secrets that its client gets; what is in it stays."""
    place = tmp_path / "place"
    place.mkdir()
    onward("storages", "add", "place", place, "--single-writer")
    onward("secrets", "set", "team-key", input="k")
    onward("storages", "add", "bucket", "s3://bucket/models?endpoint=https://s3.example.com",
           "--secret", "AWS_SECRET_ACCESS_KEY=team-key")  # fmt: skip
    found = {each["alias"]: each for each in items(onward, "storages")}
    assert found["place"]["single_writer"]
    assert found["bucket"]["environment"] == {"AWS_SECRET_ACCESS_KEY": "team-key"}
    assert str(place) in onward("storages", "list").stdout
    wrong = onward("storages", "add", "x", place, "--secret", "AWS_SECRET_ACCESS_KEY", code=2)
    assert "--secret VARIABLE=NAME" in wrong.stderr
    onward("storages", "remove", "place")
    assert "place" not in {each["alias"] for each in items(onward, "storages")}
    assert place.is_dir()


def test_a_token_is_added_listed_and_revoked(house: House, onward: Onward) -> None:
    """Its text is shown once, is good for its scope, and for nothing once it is revoked."""
    text = onward("tokens", "add", "a robot", "--days", "2").stdout.strip()
    reads = {"authorization": f"Bearer {text}"}
    assert house.client.get("/api/v1/jobs", headers=reads).status_code == 200
    assert house.client.get("/api/v1/tokens", headers=reads).status_code == 403
    robot = next(each for each in items(onward, "tokens") if each["name"] == "a robot")
    listed = onward("tokens", "list").stdout
    assert "good until" in listed
    assert text not in listed
    assert "a robot is revoked" in onward("tokens", "revoke", robot["id"]).stdout
    assert house.client.get("/api/v1/jobs", headers=reads).status_code == 401
    assert "revoked" in onward("tokens", "list").stdout


def test_a_webhook_is_added_tested_and_removed(onward: Onward) -> None:
    """What was sent to it, and what waits, can be listed."""
    onward("secrets", "set", "signing", input="0123456789abcdef0123456789abcdef")
    url = "http://127.0.0.1:9/hook"
    added = ("webhooks", "add", "team", url, "--secret", "signing")
    assert onward(*added, code=2).stderr, "this machine is private"
    onward(*added, "--allow-private")
    assert url in onward("webhooks", "list").stdout
    sent = json.loads(onward("webhooks", "test", "team", "--json").stdout)
    listed = onward("webhooks", "deliveries", "team").stdout
    assert sent["id"] in listed
    assert "webhook.test" in listed
    onward("webhooks", "remove", "team")
    assert items(onward, "webhooks") == []


def test_a_log_is_cut_to_its_newest_end(house: House, onward: Onward) -> None:
    """The space of the rest is free; the places in it stay; the attempt may be chosen."""
    job = house.job()
    attempt = house.attempt(job)
    attempt.prints("".join(f"line {n:04}\n" for n in range(10_000)))
    before = (attempt.folder / "log").stat()
    said = onward("logs", job, "--cut", "10kB").stdout
    after = (attempt.folder / "log").stat()
    assert said == f"the log of attempt 1 of {job} begins at byte 86,016\n"
    assert after.st_size == before.st_size
    assert after.st_blocks < before.st_blocks
    lines = onward("logs", job).stdout.splitlines()
    assert lines[-1] == "line 9999"
    assert "line 0000" not in lines
    cut = json.loads(onward("logs", job, "--cut", "0", "--attempt", "1", "--json").stdout)
    assert cut["begin"] == 98_304
    assert "shows nothing" in onward("logs", job, "--cut", "0", "-f", code=2).stderr
    assert "is not a size" in onward("logs", job, "--cut", "much", code=2).stderr
    assert "no attempt 7" in onward("logs", job, "--cut", "0", "--attempt", "7", code=2).stderr


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../jobs", "a?b", "a#b", "a%2fb", "ä"])
def test_what_is_no_name_reaches_nothing_of_another_name(name: str) -> None:
    """It is refused before anything is sent."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        raise AssertionError(request.url)

    login = Login("http://127.0.0.1:1", "onw_secret")
    with Client(login, transport=httpx2.MockTransport(answer)) as client:
        with pytest.raises(UsageError, match="is no name"):
            client.remove("secrets", name)
        with pytest.raises(UsageError, match="is no name"):
            client.put("secrets", name, {})


def test_a_token_whose_text_was_lost_is_said_to_be(
    onward: Onward, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer was lost and the repeated request shows no text: there is one to revoke."""
    monkeypatch.setattr(Client, "add", lambda *_: {"id": "tok-1", "token": None})
    assert "onward tokens revoke tok-1" in onward("tokens", "add", "robot", code=1).stderr
