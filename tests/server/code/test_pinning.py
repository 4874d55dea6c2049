"""Pinned code: stored once, never changed by who runs it, and copied whole or not at all."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from onward.engines.machine import ThisMachine
from onward.errors import Damaged, Missing, UsageError
from onward.server.app import Parts, make_app
from onward.server.code import Limits, Pinned, checked_tree, pin_archive, pin_code
from onward.server.code.pinning import clear_unfinished, tree_of
from onward.server.database import Database
from onward.server.database.tables import Code
from onward.server.problems import BadCode, NotFound
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from onward.server.spec import CodeSpec
from onward.stores import LocalStore, MemoryStore, Store
from tests.server.code.archived import tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "storage" / "code"
    (found / "lib").mkdir(parents=True)
    (found / "train.py").write_text("print(1)\n")
    (found / "lib" / "model.py").write_text("x = 1\n")
    return found


def nowhere(host: str, port: int) -> Sequence[str]:
    raise AssertionError(host)


def pin(settings: Settings, database: Database, store: Store, **code: str) -> Pinned:
    def open_at(location: str) -> Store:
        assert location.startswith("lab:")
        return store

    return pin_code(
        settings, database, CodeSpec(**code), by="me", open_at=open_at, addresses=nowhere
    )


def test_the_same_code_from_everywhere_is_stored_once(
    settings: Settings, database: Database, folder: Path
) -> None:
    """A folder, an object store and an archive of the same files are one tree and one row."""
    objects = MemoryStore()
    for key in ("train.py", "lib/model.py"):
        content = (folder / key).read_bytes()
        objects.put(key, [content], len(content))
    archive = tar(("train.py", b"print(1)\n"), ("lib/model.py", b"x = 1\n"))
    packed = MemoryStore()
    packed.put("code.tar.gz", [archive.getvalue()], len(archive.getvalue()))
    found = [
        pin(settings, database, LocalStore(folder), folder="lab:code"),
        pin(settings, database, objects, folder="lab:code"),
        pin(settings, database, packed, archive="lab:some/code.tar.gz"),
        pin_archive(settings, database, archive, by="me"),
    ]
    assert len({each.digest for each in found}) == 1
    assert [place.name for place in settings.code.iterdir()] == [found[0].digest]
    with database.read() as session:
        rows = session.query(Code).all()
    assert [(row.digest, row.files, row.size_bytes) for row in rows] == [(found[0].digest, 2, 15)]
    again = pin(settings, database, objects, digest=found[0].digest)
    assert again.code == CodeSpec(digest=found[0].digest, source="lab:code")


def test_what_changes_afterwards_is_other_code(
    settings: Settings, database: Database, folder: Path, tmp_path: Path
) -> None:
    """A job runs what was there when it was submitted."""
    before = pin(settings, database, LocalStore(folder), folder="lab:code")
    (folder / "train.py").write_text("print(2)\n")
    after = pin(settings, database, LocalStore(folder), folder="lab:code")
    assert after.digest != before.digest
    assert (checked_tree(settings, before.digest) / "train.py").read_text() == "print(1)\n"


@pytest.mark.parametrize("harm", ["change", "remove", "add", "mode", "all"])
def test_stored_code_that_was_changed_never_runs(
    settings: Settings, database: Database, folder: Path, tmp_path: Path, harm: str
) -> None:
    """It is checked whenever it is copied; pinning it again stores it anew."""
    pinned = pin(settings, database, LocalStore(folder), folder="lab:code")
    tree = tree_of(settings, pinned.digest)
    if harm == "change":
        (tree / "train.py").write_text("print(3)\n")
    elif harm == "remove":
        (tree / "train.py").unlink()
    elif harm == "add":
        (tree / "os.py").write_text("")
    elif harm == "mode":
        (tree / "train.py").chmod(0o755)
    else:
        shutil.rmtree(tree.parent)
    with pytest.raises(Damaged):
        checked_tree(settings, pinned.digest)
    pin(settings, database, LocalStore(folder), folder="lab:code")
    checked_tree(settings, pinned.digest)


def test_links_that_lead_out_of_a_folder_are_refused(
    settings: Settings, database: Database, folder: Path
) -> None:
    """Neither followed, which would read what is not theirs, nor silently left out."""
    (folder / "secret.txt").symlink_to("/etc/passwd")
    with pytest.raises(BadCode, match=r"secret\.txt"):
        pin(settings, database, LocalStore(folder), folder="lab:code")
    assert not [*settings.code.iterdir()]


def test_a_folder_of_data_is_refused_before_it_is_read(
    settings: Settings, database: Database
) -> None:
    """Its listing says that it is no code."""
    store = MemoryStore()
    for number in range(2 * Limits().files + 1):
        store.put(f"{number}", [], 0)
    with pytest.raises(BadCode, match="no code"):
        pin(settings, database, store, folder="lab:data")


def test_what_is_not_there(settings: Settings, database: Database, tmp_path: Path) -> None:
    """An empty folder, a missing archive and an unknown digest are said for what they are."""
    with pytest.raises(BadCode, match="no file"):
        pin(settings, database, LocalStore(tmp_path / "nothing"), folder="lab:nothing")
    with pytest.raises(Missing):
        pin(settings, database, MemoryStore(), archive="lab:x/code.zip")
    with pytest.raises(NotFound):
        pin(settings, database, MemoryStore(), digest="0" * 64)
    assert not [*settings.code.iterdir()]


def test_many_at_once_store_it_once(
    settings: Settings, database: Database, folder: Path, tmp_path: Path
) -> None:
    """Whoever comes second finds it there; nobody's error is shown to anybody."""
    errors: list[BaseException] = []

    def one() -> None:
        try:
            for _ in range(5):
                pin(settings, database, LocalStore(folder), folder="lab:code")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len([*settings.code.iterdir()]) == 1


def test_what_a_dead_server_left_is_cleared(
    settings: Settings, database: Database, folder: Path
) -> None:
    """What is half written has no digest for a name, and goes when the next server starts."""
    pinned = pin(settings, database, LocalStore(folder), folder="lab:code")
    (settings.code / "tmp-left" / "tree").mkdir(parents=True)
    clear_unfinished(settings)
    assert [place.name for place in settings.code.iterdir()] == [pinned.digest]


def test_an_archive_is_sent_and_found_again(
    client: TestClient, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """POST /api/v1/code answers with the digest that a job names; sent again, it is the same."""
    body = tar(("train.py", b"print(1)\n")).getvalue()
    place, key = "/api/v1/code?name=my.tgz", {"Idempotency-Key": "k"}
    first = client.post(place, content=body, headers=key)
    assert first.status_code == 201, first.text
    digest = first.json()["digest"]
    again = client.post(place, content=body, headers=key)
    assert again.json() == first.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    other = client.post(place, content=body + b"\0", headers=key)
    assert other.status_code == 422
    shown = client.get(f"/api/v1/code/{digest}").json()
    assert (shown["paths"], shown["source"]) == (["train.py"], "uploaded by admin-token: my.tgz")
    second = client.post("/api/v1/code", content=tar(("b.py", b"")).getvalue()).json()
    page = client.get("/api/v1/code?limit=1").json()
    assert [item["digest"] for item in page["items"]] == [second["digest"]]
    rest = client.get("/api/v1/code", params={"limit": 1, "cursor": page["next"]}).json()
    assert [item["digest"] for item in rest["items"]] == [digest]
    assert rest["next"] is None
    assert client.post("/api/v1/code", content=b"no archive").status_code == 422
    assert client.get("/api/v1/code/..%2f..").status_code == 404
    reader = {"authorization": f"Bearer {tokens['read']}"}
    monkeypatch.setattr("onward.server.api.code.TemporaryFile", None)  # it is refused unread
    assert client.post("/api/v1/code", content=body, headers=reader).status_code == 403


def test_code_that_somebody_removed_is_said(
    client: TestClient, settings: Settings, database: Database
) -> None:
    """By whoever shows it and by whoever submits a job with it."""
    pinned = pin_archive(settings, database, tar(("train.py", b"")), by="me")
    shutil.rmtree(settings.code / pinned.digest)
    answer = client.get(f"/api/v1/code/{pinned.digest}")
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:onward:error:Damaged")


def test_a_body_over_the_limit_is_not_read_to_its_end(tmp_path: Path, database: Database) -> None:
    """The limit is the administrator's."""
    settings = Settings(folder=tmp_path / "server", longest_upload=1000)
    with database.write() as session:
        _, token = make_token(session, "writer", "write", by="test")
    app = make_app(Parts(settings, database, ThisMachine()))
    headers = {"Authorization": f"Bearer {token}"}
    with TestClient(app, base_url="http://127.0.0.1:8420", headers=headers) as client:
        assert client.post("/api/v1/code", content=b"x" * 1001).status_code == 413


@pytest.mark.parametrize("harm", [{"folder": "lab:x", "git": "https://x/y"}, {}])
def test_a_source_is_exactly_one(harm: dict[str, str]) -> None:
    """Two sources could disagree."""
    with pytest.raises((ValueError, UsageError)):
        CodeSpec(**harm)
