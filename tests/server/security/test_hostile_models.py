"""Hostile text within a model, and in all that programs read: it opens nothing, anywhere.

Two servers hold the same model, one with harmless words for every name that a script, its data or
its author chooses, one with hostile ones, a different one at each place. Pages must have the same
elements; JSON, events, metrics, pictures, headers and the server's own log must hold text as text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import pytest
from prometheus_client.parser import text_string_to_metric_families
from structlog.testing import capture_logs

from onward.data.ledger import Ledger
from onward.server.database import open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Delivery, Schedule, Verification
from onward.server.models import add_model
from onward.server.storages import register
from tests.cli.outputs import facts, floats
from tests.cli.scored import Scored, answers, with_leaves
from tests.data.ledgers import keyed, state_with
from tests.server.api.house import SPEC, Attempted, House, events_of
from tests.server.console.pages import Page
from tests.server.security.test_hostile_text import ADDRESSES, HOSTILE, elements, fill
from tests.server.security.test_routes import routes

CONTROLS = (
    "x\r\nevent: end\r\ndata: {}\r\n\r\nSet-Cookie: a=b",
    "\x1b]8;;http://evil.example\x07here\x1b[2J", "\u202egnp.exe\u2066\u200b",
    "\u2028</script>\u2029", "a\"}\njobs 1\n# HELP x\n{b=\"", "%0d%0aSet-Cookie: a=b",
)  # fmt: skip
TEXTS = (*HOSTILE, *CONTROLS)
FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
SHIFTS = range(len(TEXTS)) if FULL else (0,)
ACTIVE = re.compile(rb"<(script>|img|iframe|base|form action=//|div hx-get=//)")


class Words:
    """A text for each place: the hostile ones in turn, from one of them on; or a harmless one."""

    def __init__(self, shift: int | None) -> None:
        self._shift = shift
        self._count = 0

    def __call__(self) -> str:
        self._count += 1
        if self._shift is None:
            return f"harmless {self._count}"
        # No two alike: names of one place must differ.
        return f"{TEXTS[(self._shift + self._count) % len(TEXTS)]}{self._count}"

    def seen(self) -> str:
        """One of what can be seen: names of holdouts are that, or no script can freeze them."""
        return "".join(char for char in self() if char.isprintable())


@dataclass
class Told:
    """A server over a hostile model, and where everything of it is."""

    house: House
    model: str
    checkpoint: str
    item: str
    attempted: Attempted
    holdout: str

    @property
    def job(self) -> str:
        return self.attempted.job


def told(folder: Path, word: Words) -> Iterator[Told]:
    database = open_database(f"sqlite:///{folder / 'onward.db'}")
    migrate(database)
    house = House(folder, database)
    (folder / "lab").mkdir()
    with database.write() as session:
        register(session, house.settings, "lab", str(folder / "lab"), by="test")
    output = Scored(folder / "lab" / "digits")
    output.writer = output.repository.claim(word())
    first, second, item = word.seen(), word.seen(), word()
    output.freeze(first, 1)
    output.freeze(second, 1)
    about = {
        "host": word(), "command": ["train.py", word(), "--seed", word()], "seed": word(),
        "config": {word(): word(), "deep": {word(): [word()]}},
        "code": {"digest": word(), "source": word()}, word(): word(),
    }  # fmt: skip
    ledger, parent = Ledger(), None
    rounds = [{item: 1, word(): 2, word(): 3}, {item: 9, word(): 4, word(): 5}]
    loader, tensor, metric = word(), word(), word()
    for number, data in enumerate(rounds, 1):
        ledger.pin(keyed(data))
        output.holdouts.begin()
        for name in (first, second):
            output.holdouts.record(name, answers(lost=200 * (number - 1)), when="after")
        ledger.learn_pinned()
        tree = state_with(**{loader: ledger.state_dict()})
        tree["onward"] |= with_leaves({"learning": {"holdouts": output.holdouts.state_dict()}})
        state = {"model": {tensor: floats(number), "w": {word(): floats(number)}}, **tree}
        verdict = f"regression: {word()}" if number > 1 else ""
        parent = output.writer.commit(state, facts(
            step=10 * number, increment=number, finished=True, about=about, reason=word(),
            verb=word(), framework=word(), framework_version=word(), parent=parent,
            metrics={metric: 0.5, word(): 1.0}, scores=output.holdouts.row(verdict),
        )).checkpoint  # fmt: skip
    attempted = house.attempt(house.job())
    attempted.prints("\n".join(word() for _ in range(2 * len(TEXTS))) + "\n")
    attempted.tells(
        {"at": 1.0, "kind": "begin", "verb": word(), "why": word(), "checkpoint": word()},
        {"at": 2.0, "kind": "say", "text": word()},
        *({"at": float(step), "kind": "training", "step": step, "metrics": {metric: 0.5}}
          for step in (1, 2)),
        {"at": 4.0, "kind": word(), word(): word()},
    )  # fmt: skip
    with database.write() as session:
        model = add_model(session, "lab:digits").id
        session.add(Delivery(
            id="msg-1", webhook="hook", body={"type": "job", "of": "job"}, tries=1, next_at=0.0,
            done_at=None, problem="it",
        ))  # fmt: skip
        session.add(Schedule(
            id="sch-1", name="nightly", kind="cron", cron="@daily", timezone="UTC", spec=SPEC,
            enabled=True, version=1, created_at=0.0, created_by="test", next_at=1.0, seen="",
            pending="", reason="because",
        ))  # fmt: skip
        session.add(Verification(
            id="ver-1", model=model, checkpoint=parent, state="failed", created_at=0.0,
            created_by="test", started_at=0.0, ended_at=0.0, read_bytes=1, all_bytes=2, findings={},
            problem={"what": word(), "why": word(), "do": word()},
        ))  # fmt: skip
    yield Told(house, model, str(parent), item, attempted, first)
    database.close()


def pages(at: Told) -> Iterator[tuple[str, Page]]:
    """Every page of the model, and of whom it concerns."""
    here = f"/models/{at.model}"
    item = quote(at.item, safe="")
    for path in (
        "/models", here, f"{here}/checkpoints/v1", f"{here}/checkpoints/v2",
        f"{here}/checkpoints/v2?tensors=all", f"{here}/learning", f"{here}/data",
        f"{here}/data?first=v1&second=v2", f"{here}/data?item={item}", f"{here}/savings",
        "/savings", f"/jobs/{at.job}", "/jobs", "/settings", "/jobs/new?continue=lab:digits",
        "/browse?location=lab:digits",
    ):  # fmt: skip
        for more in ({}, {"hx-request": "true"}, {"cookie": "language=zh"}):
            answer = at.house.client.get(path, headers={"accept": "text/html", **more})
            place = path.replace(at.model, "MODEL").replace(item, "ITEM").replace(at.job, "JOB")
            yield f"{place} {sorted(more)}", Page(answer)


def program_answers(at: Told) -> Iterator[tuple[str, Any]]:
    """Every route of the API that reads, with real ids, but for the streams."""
    item = quote(at.item, safe="")
    ids = {
        "model_id": at.model, "checkpoint": "v2", "verification": "ver-1", "job_id": at.job,
        "alias": "lab", "schedule_id": "sch-1", "name": "hook", "digest": SPEC["code"]["digest"],
    }  # fmt: skip
    queries = {
        "data/diff": "?first=v1&second=v2", "data/seen": f"?item={item}",
        "log/search": "?q=evil", "/wait": "?timeout_s=0", "/browse": "?path=digits",
    }  # fmt: skip
    for path, methods in routes(at.house.app):
        if "GET" not in methods or not path.startswith("/api/") or path.endswith("/follow"):
            continue
        path = re.sub(r"\{(\w+)(:\w+)?\}", lambda found: ids[found[1]], path)
        query = next((text for end, text in queries.items() if path.endswith(end)), "")
        yield path, at.house.client.get(path + query, headers={"accept": "text/html,*/*"})


@pytest.fixture(scope="module")
def harmless(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Page]:
    with capture_logs():
        for at in told(tmp_path_factory.mktemp("harmless"), Words(None)):
            return dict(pages(at))
    raise AssertionError


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_model_of_hostile_names_shows_them_as_text(
    harmless: dict[str, Page], tmp_path: Path, shift: int
) -> None:
    """On every page: the elements of harmless names, none that runs or leads elsewhere."""
    with capture_logs():
        for at in told(tmp_path, Words(shift)):
            found = dict(pages(at))
            shown = found["/models/MODEL/checkpoints/v2 []"].text
            assert " ".join(at.holdout.split()) in found["/models/MODEL/learning []"].text
    assert found.keys() == harmless.keys()
    assert shown.count("evil.example") + shown.count("alert(1)") > 5
    for place, page in found.items():
        assert page.status == harmless[place].status == 200, (place, page.answer.text[:500])
        assert elements(page) == elements(harmless[place]), place
        for each in page.elements:
            for name, value in each.attributes.items():
                assert not name.startswith("on"), (place, name)
                if name in ADDRESSES:
                    assert re.match(r"/(?![/\\])|\?|#|data:,$|$", value), (place, name, value)
        assert_headers(page.answer)


@pytest.mark.parametrize("shift", SHIFTS if FULL else (8,))
def test_programs_read_hostile_names_as_data(tmp_path: Path, shift: int) -> None:
    """JSON that no browser takes for a page, events that stay one, a picture of text, labels that
    nobody chose, names of downloads that are ours."""
    for at in told(tmp_path, Words(shift)):
        with capture_logs():
            asked = dict(program_answers(at))
        kinds = set()
        for path, answer in asked.items():
            assert answer.status_code == 200, (path, answer.text[:300])
            assert_headers(answer)
            kind = answer.headers["content-type"].partition(";")[0]
            kinds.add(kind)
            if kind == "application/json":
                answer.json()
            elif kind == "image/svg+xml":
                picture = ElementTree.fromstring(answer.content)
                tags = {each.tag.rpartition("}")[2] for each in picture.iter()}
                assert tags <= {"svg", "g", "rect", "text", "line", "title", "path", "style"}, tags
                assert not [n for e in picture.iter() for n in e.attrib if n.startswith("on")]
                assert "sandbox" in answer.headers["content-security-policy"]
            else:
                assert kind in ("text/plain", "application/octet-stream"), (path, kind)
        assert {"application/json", "image/svg+xml"} <= kinds
        assert len(asked) > 30
        measured = at.house.client.get("/metrics").text
        names = {family.name for family in text_string_to_metric_families(measured)}
        assert all(name.startswith("onward_") for name in names), names
        assert not ACTIVE.search(measured.encode())
        download = at.house.client.get(f"/api/v1/jobs/{at.job}/log/raw")
        assert re.fullmatch(
            r'attachment; filename="[a-z0-9.-]+"', download.headers["content-disposition"]
        )
        at.attempted.ends()
        at.house.end(at.job)
        with at.house.served() as client:
            for stream in ("log", "events", "metrics"):
                path = f"/api/v1/jobs/{at.job}/{stream}/follow?attempt=1"
                with client.stream("GET", path) as live:
                    got = list(bounded(events_of(live.iter_lines())))
                assert {kind for _, kind, _ in got} <= {"lines", "events", "points"}, stream
                assert got


def test_hostile_rows_are_data_for_programs_too(tmp_path: Path) -> None:
    """Names of schedules, deliveries, tokens, storages, secrets and webhooks, in every column."""
    for text in ('"><img src=x onerror=alert(1)>', CONTROLS[0]):
        folder = tmp_path / str(len(text))
        folder.mkdir()
        with capture_logs():
            for at in told(folder, Words(None)):
                fill(at.house, text)
                for path, answer in program_answers(at):
                    assert answer.status_code < 500, (path, answer.text[:300])
                    assert_headers(answer)
                    if answer.headers["content-type"].startswith("application/"):
                        json.loads(answer.content)
                for path in ("/settings", "/jobs", "/models", "/schedules"):
                    page = at.house.client.get(path, headers={"accept": "text/html"})
                    assert page.status_code in (200, 404), path
                    assert not ACTIVE.search(page.content), path
                    assert_headers(page)


def bounded(events: Iterator[Any]) -> Iterator[Any]:
    """Those before a stream's end."""
    for event in events:
        if event[1] in ("attempt-ended", "end"):
            return
        yield event


def assert_headers(answer: Any) -> None:
    """Names and values are ours, and a browser sniffs nothing."""
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers
    for name, value in answer.headers.items():
        assert value.isprintable(), name
        assert "alert(1)" not in value, name
        assert "evil.example" not in value, name
