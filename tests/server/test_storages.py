"""Storages: what may be registered, what a location names, and that nothing leads out of them."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from onward.errors import AlreadyExists, BadURL, Conflict, OnwardError, UsageError
from onward.server.app import Parts
from onward.server.browsing import browse
from onward.server.database.tables import Secret
from onward.server.jobs import requests
from onward.server.names import now_s
from onward.server.problems import NotFound
from onward.server.spec import JobRequest
from onward.server.storages import (
    checked_path,
    environment_of,
    normalise,
    normalise_request,
    open_location,
    register,
    remove,
    resolve,
)
from onward.stores import LocalStore
from tests.cli.outputs import Output
from tests.servers import S3Server

CANARY = "the-canary-that-no-answer-may-hold"
CASES = 10_000
FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
"""Every path is browsed, too; otherwise each tenth."""


@pytest.fixture
def shelf(tmp_path: Path, parts: Parts) -> Path:
    """A folder that is registered as `data`, with a little in it."""
    folder = tmp_path / "shelf"
    (folder / "images" / "train").mkdir(parents=True)
    (folder / "images" / "train" / "a.png").write_bytes(b"12345")
    (folder / "table.csv").write_text("x\n")
    with parts.database.write() as session:
        register(session, parts.settings, "data", str(folder), by="test")
    return folder


def request_for(**more: Any) -> JobRequest:
    document = {
        "name": "a job", "command": ["train.py"], "code": {"digest": "0" * 64},
        "output": {"location": "data:out"}, **more,
    }  # fmt: skip
    return JobRequest.model_validate(document)


class Registering:
    """Only real places, once, and never the server's own."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    def __call__(self, alias: str, url: str, **more: Any) -> str:
        with self.parts.database.write() as session:
            return register(session, self.parts.settings, alias, url, by="test", **more).url


def test_a_folder_must_exist_and_be_absolute(parts: Parts, tmp_path: Path) -> None:
    """A storage is a place that is there."""
    new = Registering(parts)
    for wrong in ("shelf", "./shelf", "~/shelf", str(tmp_path / "absent"), "C:\\data"):
        with pytest.raises(UsageError):
            new("data", wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError):
        new("data", str(tmp_path / "file"))


@pytest.mark.parametrize("alias", ["", "A", "s3", "file", "http", "a b", "-a", "a:b", "a\n", "é"])
def test_aliases_are_short_plain_names(parts: Parts, tmp_path: Path, alias: str) -> None:
    """An alias is never read as a URL, a path or an option."""
    with pytest.raises(UsageError):
        Registering(parts)(alias, str(tmp_path))


def test_the_servers_own_files_are_no_storage(parts: Parts, tmp_path: Path) -> None:
    """Neither around the server's folder, nor within it, nor by a link to it."""
    new = Registering(parts)
    (parts.settings.folder / "attempts").mkdir(parents=True, exist_ok=True)
    (tmp_path / "link").symlink_to(parts.settings.folder)
    for own in ("/", str(tmp_path), str(parts.settings.attempts), str(tmp_path / "link")):
        with pytest.raises(UsageError, match="cannot be a storage"):
            new("data", own)


def test_two_storages_never_hold_the_same_place(parts: Parts, shelf: Path, tmp_path: Path) -> None:
    """Otherwise one output could be trained by two jobs under two names."""
    new = Registering(parts)
    (tmp_path / "link").symlink_to(shelf)
    for same in (shelf, shelf / "images", tmp_path / "link"):
        with pytest.raises(Conflict):
            new("other", str(same))
    new("bucket", "s3://team/a?endpoint=https://one.example")
    new("beside", "s3://team/ab?endpoint=https://one.example")
    new("elsewhere", "s3://team/a?endpoint=https://two.example")
    with pytest.raises(Conflict):
        new("within", "s3://team/a/b?endpoint=https://one.example&region=x")
    with pytest.raises(AlreadyExists):
        new("data", "s3://another/one")


def test_keys_are_secrets_by_name(parts: Parts) -> None:
    """Only variables that stores read, and only secrets that exist; values stay in their files."""
    new = Registering(parts)
    for wrong in ("LD_PRELOAD", "AWS_", "PATH", "aws_key", "AWS_KEY\n"):
        with pytest.raises(UsageError):
            new("bucket", "s3://team/a", environment={wrong: "key"})
    with pytest.raises(UsageError, match="no secret"):
        new("bucket", "s3://team/a", environment={"AWS_ACCESS_KEY_ID": "key"})
    with pytest.raises(BadURL):
        new("bucket", "s3://id:secret@team/a")
    with parts.database.write() as session:
        session.add(Secret(name="key", created_at=now_s(), created_by="test"))
    parts.settings.secrets.mkdir(parents=True)
    (parts.settings.secrets / "key").write_text("the value")
    new("bucket", "s3://team/a", environment={"AWS_ACCESS_KEY_ID": "key"})
    with parts.database.read() as session:
        place = resolve(session, "bucket:x/y")
        assert (place.url, place.location) == ("s3://team/a/x/y", "bucket:x/y")
        assert "the value" not in repr(place)
        assert environment_of(parts.settings, place) == {"AWS_ACCESS_KEY_ID": "the value"}


def test_every_way_to_write_a_place_becomes_one(parts: Parts, shelf: Path) -> None:
    """An alias, a path, a URL, a link within the storage."""
    Registering(parts)("bucket", "s3://team/a?endpoint=https://one.example")
    (shelf / "pictures").symlink_to(shelf / "images")
    (shelf.parent / "way").symlink_to(shelf)
    same = [
        "data:images/train", "data:images/train/", "data:pictures/train", f"{shelf}/images/train",
        f"file://{shelf}/images/train", f"{shelf.parent}/way/images/train",
        f"{shelf}/images/../pictures/train",
    ]  # fmt: skip
    with parts.database.read() as session:
        assert {normalise(session, text) for text in same} == {"data:images/train"}
        assert normalise(session, "data:") == "data:"
        assert normalise(session, str(shelf)) == "data:"
        for text in ("s3://team/a/x", "s3://team/a/x?endpoint=https://one.example"):
            assert normalise(session, text) == "bucket:x"
        for text in (
            "s3://team/ab/x", "s3://other/a/x", "gs://team/a/x", f"{shelf}-other", "/etc",
            "s3://team/a/x?endpoint=http://169.254.169.254", "http://one.example/a", "images",
            "nobody:x", "data", "~", "",
        ):  # fmt: skip
            with pytest.raises(UsageError, match="train_url"):
                normalise(session, text, name="train_url")


def test_a_job_is_stored_with_its_locations_in_one_form(parts: Parts, shelf: Path) -> None:
    """Whoever submits it; what lies in no storage is refused, and the field is named."""
    request = request_for(
        output={"location": f"{shelf}/out"}, verb="branch", branch_from=f"{shelf}/first@v3",
        inputs={"data_url": {"location": f"{shelf}/images"}},
    )  # fmt: skip
    with parts.database.write() as session:
        job = requests.submit(session, request, by="test")
        assert job.output == job.spec["output"]["location"] == "data:out"
        assert job.spec["inputs"]["data_url"]["location"] == "data:images"
        assert job.spec["branch_from"] == "data:first@v3"
    with parts.database.read() as session:
        for field, wrong in (
            ("output.location", request_for(output={"location": "/etc"})),
            ("inputs.x.location", request_for(inputs={"x": {"location": "nobody:x"}})),
            ("branch_from", request_for(verb="branch", branch_from="s3://elsewhere/x@v1")),
            ("code.folder", request_for(code={"folder": "../secrets"})),
            ("output.location", request_for(inputs={"x": {"location": "data:"}})),
        ):
            with pytest.raises(UsageError, match=field):
                normalise_request(session, wrong)


def test_a_storage_in_use_stays(parts: Parts, shelf: Path) -> None:
    """Until the jobs that name it have ended."""
    with parts.database.write() as session:
        job = requests.submit(session, request_for(), by="test")
    with parts.database.write() as session, pytest.raises(Conflict, match=job.id):
        remove(session, "data")
    with parts.database.write() as session:
        requests.ask(session, requests.find_job(session, job.id), "cancel", by="test")
        remove(session, "data")
    with parts.database.read() as session, pytest.raises(NotFound):
        resolve(session, "data:out")


def test_a_folder_is_shown_by_pages(parts: Parts, shelf: Path) -> None:
    """All of it, in order, each once, with sizes; folders that are outputs are marked."""
    Output(shelf / "out")
    for number in range(25):
        (shelf / "many" / f"{number:02}").mkdir(parents=True)
    top = browse(parts.settings, parts.database, "data")
    assert [(each.name, each.kind, each.size_bytes, each.is_output) for each in top.items] == [
        ("images", "folder", None, False),
        ("many", "folder", None, False),
        ("out", "folder", None, True),
        ("table.csv", "file", 2, False),
    ]
    assert (top.above, top.next, top.items[0].location) == (None, None, "data:images")
    seen: list[str] = []
    cursor = ""
    while True:
        page = browse(parts.settings, parts.database, "data", "many", cursor=cursor, limit=10)
        assert len(page.items) <= 10
        seen += [each.location or "" for each in page.items]
        if page.next is None:
            break
        cursor = page.next
    assert seen == [f"data:many/{number:02}" for number in range(25)]
    assert browse(parts.settings, parts.database, "data", "out").is_output


def test_names_that_cannot_be_locations_are_shown_harmlessly(parts: Parts, shelf: Path) -> None:
    """A name with bytes that are no text, an escape or a reversed order is seen, not obeyed."""
    for name in (b"\xff", b"a\x1b[31m", "a\u202eb".encode(), b"100%", b"a;b", b"a\nb"):
        Path(os.fsdecode(bytes(os.fsencode(shelf)) + b"/images/" + name)).write_text("")
    page = browse(parts.settings, parts.database, "data", "images")
    assert len(page.items) == 7
    assert [each.name for each in page.items if each.location] == ["train"]
    assert all(each.name.isprintable() for each in page.items)


def test_links_do_not_lead_out(parts: Parts, shelf: Path, tmp_path: Path) -> None:
    """Not when a location is written, used, browsed, and not when a link comes later."""
    (tmp_path / "outside" / "deep").mkdir(parents=True)
    (tmp_path / "outside" / "canary").write_text(CANARY)
    links = {
        "out-link": tmp_path / "outside", "up": Path(".."), "root": Path("/"),
        "chain": Path("images/far"), "self": Path("self"),
    }  # fmt: skip
    for name, target in links.items():
        (shelf / name).symlink_to(target)
    (shelf / "images" / "far").symlink_to("../../outside")
    for name in ("out-link", "out-link/deep", "up", "up/outside", "root/etc", "chain", "chain/x"):
        for act in (resolve, normalise):
            with parts.database.read() as session, pytest.raises(UsageError):
                act(session, f"data:{name}")
        with pytest.raises(OnwardError):
            browse(parts.settings, parts.database, "data", name)
    kinds = {each.name: each for each in browse(parts.settings, parts.database, "data").items}
    assert all(kinds[name].kind == "other" for name in links)
    assert all(kinds[name].location is None for name in links)


def test_a_link_that_comes_between_check_and_use_is_not_followed(
    parts: Parts, shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way down is gone name by name, after the check."""
    from onward.server import browsing

    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "canary").write_text(CANARY)
    checked = browsing.resolve_in

    def then_swap(*arguments: Any) -> Any:
        place = checked(*arguments)
        (shelf / "images").rename(shelf / "moved")
        (shelf / "images").symlink_to(tmp_path / "outside")
        return place

    monkeypatch.setattr(browsing, "resolve_in", then_swap)
    with pytest.raises(OnwardError):
        browse(parts.settings, parts.database, "data", "images")


def attacks(seed: int) -> list[str]:
    """Paths that have led out of somebody's folder, and mixtures of their parts."""
    ups = ["..", "%2e%2e", "..%2f", "%252e%252e", "..;", "....", ".", "..\\", "..\x00", "．．",
           "..%c0%af", "..%5c", "\u2024\u2024", " ..", ".. ", "..\u200b", "~", "-"]  # fmt: skip
    seps = ["/", "//", "\\", "%2f", "%5c", "/./", ";/", "\u2215", "#/", "?/", "\x00/", "\r\n"]
    goals = ["outside/canary", "etc/passwd", "canary", "server/onward.db", "images", "out-link",
             "out-link/canary", "server/secrets/key", "proc/self/environ", ""]  # fmt: skip
    starts = ["", "/", "images/", "images/train/", "file://", "file:///", "data:", "images/far/",
              "C:\\", "\\\\host\\", "root/", "up/"]  # fmt: skip
    draw = random.Random(seed)
    made = [
        start + sep.join([up] * depth) + sep + goal
        for start, sep, up, depth, goal in itertools.product(starts, seps, ups, (1, 2, 4), goals)
    ]
    draw.shuffle(made)
    made = made[: CASES - 2000]
    for _ in range(2000):
        parts = [draw.choice(ups + goals + ["images", "train"]) for _ in range(draw.randint(1, 8))]
        made.append(draw.choice(starts) + "".join(p + draw.choice(seps) for p in parts))
    return made


def test_ten_thousand_paths_stay_inside(parts: Parts, shelf: Path, tmp_path: Path) -> None:
    """Each is refused by a typed error or names something within the folder."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text(CANARY)
    (shelf / "out-link").symlink_to(outside)
    (shelf / "up").symlink_to("..")
    (shelf / "root").symlink_to("/")
    (shelf / "images" / "far").symlink_to("../../outside")
    home = shelf.resolve()
    cases = attacks(seed=6)
    assert len(cases) == CASES
    passed = 0
    with parts.database.read() as session:
        for number, case in enumerate(cases):
            passed += _stays_inside(session, parts, case, home, look=FULL or number % 10 == 0)
    assert 0 < passed < CASES  # some name nothing bad, or the corpus would prove nothing


def _stays_inside(session: Session, parts: Parts, case: str, home: Path, *, look: bool) -> bool:
    good = False
    for text in (f"data:{case}", case):
        try:
            place = resolve(session, normalise(session, text))
        except OnwardError:
            continue
        good = True
        assert Path(place.url).resolve().is_relative_to(home), (text, place)
        store = open_location(session, parts.settings, place.location)
        assert isinstance(store, LocalStore)
        for key in ("canary", "outside/canary", "passwd"):
            try:
                assert CANARY.encode() not in store.read(key)
            except OnwardError:
                continue
    if look:
        try:
            page = browse(parts.settings, parts.database, "data", case)
        except OnwardError:
            return good
        assert "canary" not in {each.name for each in page.items}, case
    return good


@pytest.mark.parametrize("path", ["a", "a/b", "a.b/c-d_e", "数据/训练", "a b/c", "a+b=c,d"])
def test_ordinary_paths_are_fine(path: str) -> None:
    """In any script, with spaces within."""
    assert checked_path(path) == path == checked_path(path + "/")


def test_buckets_are_browsed_with_their_own_keys(
    parts: Parts, seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys come from secrets, not from the server's environment; outputs are marked."""
    from onward.repository import open_or_create

    prefix = f"browse-{tmp_path.name}"
    store = seaweedfs.store(prefix)
    for number in range(5):
        store.put(f"data/{number}.bin", [b"x" * number], number)
    store.put("a.txt", [b"1"], 1)
    open_or_create(seaweedfs.store(f"{prefix}/out"))
    parts.settings.secrets.mkdir(parents=True)
    environment = {}
    with parts.database.write() as session:
        for variable, value in seaweedfs.environment.items():
            name = variable.lower().replace("_", "-")
            (parts.settings.secrets / name).write_text(value)
            session.add(Secret(name=name, created_at=now_s(), created_by="test"))
            environment[variable] = name
        session.flush()
        register(
            session, parts.settings, "bucket", seaweedfs.url(prefix), by="test",
            environment=environment,
        )  # fmt: skip
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    top = browse(parts.settings, parts.database, "bucket")
    assert [(each.name, each.kind, each.is_output) for each in top.items] == [
        ("a.txt", "file", False), ("data", "folder", False), ("out", "folder", True),
    ]  # fmt: skip
    first = browse(parts.settings, parts.database, "bucket", "data", limit=3)
    rest = browse(
        parts.settings, parts.database, "bucket", "data", limit=3, cursor=first.next or ""
    )
    assert [each.size_bytes for each in (*first.items, *rest.items)] == [0, 1, 2, 3, 4]
    assert rest.next is None
    assert top.items[0].location == "bucket:a.txt"


def test_the_api_registers_lists_browses_and_removes(
    client: TestClient, tmp_path: Path, tokens: dict[str, str]
) -> None:
    """An administrator registers; everybody may look; problems have one shape."""
    folder = tmp_path / "shelf"
    folder.mkdir()
    (folder / "a").write_text("12")
    body = {"alias": "data", "url": str(folder)}
    for scope in ("read", "write"):
        headers = {"authorization": f"Bearer {tokens[scope]}"}
        assert client.post("/api/v1/storages", json=body, headers=headers).status_code == 403
        assert client.delete("/api/v1/storages/data", headers=headers).status_code == 403
    for _ in range(2):
        made = client.post("/api/v1/storages", json=body, headers={"idempotency-key": "k"})
        assert (made.status_code, made.json()["alias"]) == (201, "data")
    assert client.post("/api/v1/storages", json=body).status_code == 409
    reader = {"authorization": f"Bearer {tokens['read']}"}
    listed = client.get("/api/v1/storages", headers=reader).json()
    assert [each["alias"] for each in listed["items"]] == ["data"]
    page = client.get("/api/v1/storages/data/browse", headers=reader).json()
    assert page["items"][0] == {
        "name": "a", "kind": "file", "size_bytes": 2, "location": "data:a", "is_output": False,
    }  # fmt: skip
    for path in ("..", "a/../..", "%2e%2e", "a\x00", "absent", "a"):
        wrong = client.get("/api/v1/storages/data/browse", params={"path": path})
        assert wrong.status_code in (404, 422), wrong.text
        assert wrong.headers["content-type"] == "application/problem+json"
    assert client.delete("/api/v1/storages/data").status_code == 200
    assert client.get("/api/v1/storages/data").status_code == 404
