"""Text that would be HTML, script or a template: in every field, on every page, it stays text.

Two servers hold the same rows, one with harmless words in every field and one with a hostile text.
Pages that show rows must have the same elements with the same attributes; those that judge what was
typed, and say different things of it, only elements that some page has without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from sqlalchemy import JSON, String, select, update
from structlog.testing import capture_logs

from onward.server.console import assets
from onward.server.database import Base, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Secret, Storage, Webhook
from tests.server.api.house import DIGEST, SPEC, House
from tests.server.console.pages import Page
from tests.server.security.test_routes import routes

HARMLESS = ("harmless", "a/b: c's {d}", "/harmless")
HOSTILE = (
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)>",
    "' onfocus='alert(1)' autofocus='",
    "</textarea></pre></title></style></option><svg onload=alert(1)>",
    "javascript:alert(1)//<a href=javascript:alert(1)>x</a>",
    "{{ 7 * 7 }}{% include 'job.html' %}{0.__class__}{state}%(x)s",
    "<!--<iframe srcdoc='<b>'>--><base href=//evil.example>",
    "&lt;b&gt;&#60;i&#62;\x3cscript\x3e",
    "//evil.example/\\evil.example",
    "]]><?xml?><form action=//evil.example><button>",
    "<div hx-get=//evil.example hx-trigger=load data-refresh=1>",
)  # fmt: skip
SAME = (
    "/jobs []", "/jobs ['hx-request']", "/jobs/JOB []", "/jobs/JOB ['hx-request']",
    "/jobs/new []", "/jobs/new?like=JOB []", "/browse []", "nobody /TEXT", "nobody signs in",
)  # fmt: skip
"""Where nothing is judged."""
KEPT = {"state", "wanted", "scope", "kind", "digest", "before", "after", "engine"}
"""Columns that hold one of a few known words."""
ADDRESSES = {"href", "src", "action", "formaction", "hx-get", "hx-post", "data-charts"}
WORDS_AS_KEYS = {"inputs", "environment", "secrets", "metrics"}


def poisoned(value: Any, text: str, *, keys: bool = False) -> Any:
    """Every text within a JSON value, and the names that people and scripts choose."""
    if isinstance(value, str):
        return text
    if isinstance(value, list):
        return [poisoned(each, text) for each in value]
    if isinstance(value, dict):
        return {
            text if keys else name: poisoned(each, text, keys=name in WORDS_AS_KEYS)
            for name, each in value.items()
        }
    return value


def fill(house: House, text: str) -> None:
    """Puts the text into every column of every row that can hold one."""
    with house.database.write() as session:
        names = {"created_at": 0.0, "created_by": text}
        session.add(Storage(alias=text[:64], url=text, environment={}, **names))
        session.add(Secret(name=text[:64], **names))
        session.add(Webhook(name=text[:64], url=text, secret=text[:64], **names))
        session.flush()
        for table in Base.metadata.sorted_tables:
            for column in table.columns:
                if column.primary_key or column.foreign_keys or column.name in KEPT:
                    continue
                if column.name in ("parent", "attempt", "job", "last_job", "schedule"):
                    continue  # ids of other rows
                if isinstance(column.type, String):
                    session.execute(update(table).values({column: text[: column.type.length]}))
                elif isinstance(column.type, JSON):
                    place = list(table.primary_key.columns)
                    for row in session.execute(select(column, *place)).all():
                        here = [key == found for key, found in zip(place, row[1:], strict=True)]
                        value = poisoned(row[0], text)
                        session.execute(update(table).where(*here).values({column: value}))


def pages(folder: Path, text: str) -> Iterator[tuple[str, Page]]:
    """Every page of a server whose every field holds the text, and what is asked of it."""
    database = open_database(f"sqlite:///{folder / 'onward.db'}")
    migrate(database)
    house = House(folder, database)
    first = house.job()
    attempted = house.attempt(first)
    with database.write() as session:
        for table in Base.metadata.sorted_tables:
            if table.name == "jobs":
                progress = {"step": 3, "epoch": 1, "metrics": {"loss": 0.5}, "checkpoint": "c"}
                session.execute(update(table).values(progress=progress))
    attempted.tells(
        {"at": 1.0, "kind": "begin", "verb": text, "why": text, "checkpoint": text},
        {"at": 2.0, "kind": "say", "text": text},
        {"at": 3.0, "kind": "transfer", "title": text, "direction": "fetch", "done": 1, "total": 2},
        {"at": 4.0, "kind": "saved", "checkpoint": text, "step": text, "reason": text},
        {"at": 5.0, "kind": "end", "exit_code": text, "message": text},
        {"at": 6.0, "kind": text}, {"at": text, "kind": "say"}, {"at": 1e999, "kind": "begin"},
    )  # fmt: skip
    failed = house.job(output={"location": "here:other"}, inputs={}, environment={"A": "b"})
    house.move(failed, "running")
    house.move(failed, "failed")
    fill(house, text)
    html = {"accept": "text/html"}
    typed = quote(text, safe="")
    ids = {"job_id": first}

    def get(path: str, **headers: str) -> tuple[str, Page]:
        answer = house.client.get(path, headers={**html, **headers})
        place = re.sub(r"job-[a-z0-9]+", "JOB", path).replace(typed, "TEXT")
        return f"{place} {sorted(headers)}", Page(answer)

    listed = [
        path for path, methods in routes(house.app)
        if "GET" in methods and not path.startswith(("/api/", "/static/", "/metrics"))
    ]  # fmt: skip
    assert {"/jobs", "/jobs/{job_id}", "/jobs/new"} <= set(listed)
    for path in listed:
        for name, id_ in ids.items():
            path = path.replace("{" + name + "}", id_)
        path = re.sub(r"\{[^}]+\}", typed, path)
        yield get(path)
        yield get(path, **{"hx-request": "true"})
        asked = ("q", "state", "cursor", "done", "location", "name", "output", "data", "code")
        yield get(path + "?" + "&".join(f"{name}={typed}" for name in asked))
        yield get(path, cookie=f"theme={typed}; language={typed}", **{"accept-language": text})
    for path in (
        f"/jobs/{failed}", f"/jobs/new?like={first}", f"/jobs/new?like={failed}", f"/jobs/{typed}",
        f"/jobs/new?like={typed}", f"/{typed}", f"/{typed}/{typed}", f"/browse?location={typed}:",
        f"/browse?location=here:{typed}",
    ):  # fmt: skip
        yield get(path)
    every = (
        "name", "code_kind", "code", "revision", "script", "arguments", "output_location",
        "output_name", "input_location_1", "input_name_1", "input_location_3", "predownload",
        "predownload_checkpoint", "verb", "branch_from", "strategy", "budget", "margin",
        "environment", "secrets", "notify", "memory_gib", "grace_s", "parent", "back", "action",
    )  # fmt: skip
    form = dict.fromkeys(every, text)
    like = {
        "name": text, "code_kind": "digest", "code": DIGEST, "script": "train.py",
        "arguments": "--note", "output_location": "here:new", "environment": f"A={text}",
    }  # fmt: skip
    for path, fields in (
        ("/jobs/new", form), ("/jobs/new/plan", form), ("/jobs/new/plan", like),
        ("/jobs/many", form), (f"/jobs/{first}/{typed}", form),
    ):  # fmt: skip
        answer = house.client.post(path, data=fields, headers=html, follow_redirects=False)
        yield (
            f"POST {path} {len(fields)}".replace(first, "JOB").replace(typed, "TEXT"),
            Page(answer),
        )
    for path in (f"/jobs?q={typed}", f"/{typed}", f"/login?next={typed}&language={typed}"):
        answer = house.client.get(path, headers={**html, "authorization": "Bearer no"})
        yield f"nobody {path}".replace(typed, "TEXT"), Page(answer)
    answer = house.client.post("/login", data={"token": text, "next": text}, headers=html)
    yield "nobody signs in", Page(answer)
    database.close()


def elements(page: Page) -> list[tuple[str, list[str]]]:
    if not page.answer.headers.get("content-type", "").startswith("text/html"):
        return []
    return [(each.tag, sorted(each.attributes)) for each in page.elements]


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Page]]:
    with capture_logs():
        return [dict(pages(tmp_path_factory.mktemp("harmless"), text)) for text in HARMLESS]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_makes_no_element_and_no_attribute(
    harmless: list[dict[str, Page]], tmp_path: Path, text: str
) -> None:
    """Every page, its pieces, its errors and its forms; nothing leads elsewhere, nothing fails."""
    known = {repr(each) for found in harmless for page in found.values() for each in elements(page)}
    with capture_logs():
        found = dict(pages(tmp_path, text))
    assert found.keys() == harmless[0].keys()
    assert len(found) > 30
    assert set(SAME) <= found.keys()
    for place, page in found.items():
        assert page.status < 500, place
        made = {repr(each) for each in elements(page)} - known
        assert not made, (place, made)
        if place in SAME:
            assert elements(page) == elements(harmless[0][place]), place
        for each in page.elements:
            if each.tag == "script":
                assert each.attributes["src"].startswith("/static/"), place
                assert each.text == "", place
            for name, value in each.attributes.items():
                assert not name.startswith("on"), (place, name)
                if name in ADDRESSES:
                    assert re.match(r"/(?![/\\])|\?|#|data:,$|$", value), (place, name, value)
    shown = " ".join(text.split())
    for place in ("/jobs []", "/jobs/JOB []"):
        assert shown in found[place].text, place
    values = [
        each.attributes.get("value") for each in found["/jobs/new?like=JOB []"].all("input")
    ]  # fmt: skip
    assert text in values


def test_scripts_of_the_console_make_no_elements_of_text() -> None:
    """What comes from the server goes into pages as text there as well."""
    folder = Path(assets.__file__).parent / "static"
    own = [path for path in folder.glob("*.js") if ".min." not in path.name]
    assert len(own) > 5
    ways = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc"
    assert not [path.name for path in own if re.search(ways, path.read_text(encoding="utf-8"))]


def test_the_fields_are_really_filled(tmp_path: Path) -> None:
    """The job of these tests holds the text where its pages look."""
    with capture_logs():
        page = dict(pages(tmp_path, "planted"))["/jobs/JOB []"]
    assert page.text.count("planted") > 15
    assert SPEC["name"] not in page.one("h1").text
