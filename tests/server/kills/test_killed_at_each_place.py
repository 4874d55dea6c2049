"""A server dies before and after each commit that its source has: none is forgotten.

The boundaries are found in the source. Each has a story here or a test beside this one that lets a
server die there, so that whoever adds a transaction is told to add what kills it.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import func, select
from structlog.testing import capture_logs

from onward.repository import open_repository
from onward.server.database import Database
from onward.server.database.tables import Audit, Checkpoint, Job, Model, Secret, Token
from onward.server.models import add_model
from onward.server.security.tokens import make_token
from onward.server.settings import Settings
from onward.server.storages import register
from onward.stores import LocalStore
from tests.cli.outputs import Output
from tests.server.api.house import SPEC, House
from tests.server.kills import stories
from tests.server.kills.boundaries import boundaries
from tests.server.kills.lives import Client, Ground, Lives, lives_of
from tests.server.kills.mortal import REBUILD, ROUTES, USE_IS_NOTED, WHOLE
from tests.server.scheduling.workshop import Workshop
from tests.server.webhooks.receiver import Receiver

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"

IN_REQUESTS = {
    "api/access.py put_secret", "api/call.py Call._once #2", "jobs/acting.py _tried",
    "api/outside.py _answered #2", "api/outside.py _keep", "code/pinning.py _enter",
}  # fmt: skip
"""Of routes that are asked with a key: test_killed_requests.py."""
IN_STARTS = {
    "database/migrating.py migrate", "security/first.py first_token",
    "security/first.py token_from_folder",
}  # fmt: skip
"""test_starting.py"""

ENGINE = {"engine start", "engine ask", "engine destroy"}

STORIES: dict[str, Callable[[stories.Stage, str], None]] = {
    **dict.fromkeys(
        (
            "scheduling/care.py Care._conclude", "scheduling/care.py Care.take",
            "scheduling/care.py Care._running #1", "scheduling/care.py Care._running #2",
            "scheduling/care.py Care._tell", "scheduling/care.py Care._read_rest",
            "scheduling/starting.py start_queued", "scheduling/starting.py _start",
            "scheduling/supervisor.py Supervisor._requeue", "webhooks/courier.py Courier.sweep",
            "webhooks/courier.py Courier._note", "engine start", "engine ask",
            "models/syncing.py sync_outputs", "models/syncing.py sync_from",
        ),
        stories.two_jobs,
    ),
    "engine destroy": stories.an_agent_is_killed,
    **dict.fromkeys(
        (
            "models/syncing.py sync_model", "scheduling/clock.py Clock._decide",
            "scheduling/clock.py Clock._note",
        ),
        stories.schedules,
    ),
    "models/verifying.py Verifier._note": stories.every_byte_is_read,
}  # fmt: skip
"""What passes a place. The first of two_jobs and one of schedules are the sample."""


def points(places: list[str], *, sample: int) -> list[str]:
    """Both sides of each in the full form; in the sample one in so many, the sides in turn."""
    if FULL:
        return [f"{side} {place}" for place in places for side in ("before", "after")]
    sides = (f"{('before', 'after')[n % 2]} {place}" for n, place in enumerate(places))
    return list(sides)[::sample]


def both(places: list[str], *, sample: int) -> Any:
    """The point at which a server dies, on both databases in the full form."""
    databases = ["sqlite", "postgresql"] if FULL else ["sqlite"]

    def decorate(test: Any) -> Any:
        test = pytest.mark.parametrize("database_url", databases, indirect=True)(test)
        return pytest.mark.parametrize("at", points(places, sample=sample))(test)

    return decorate


def test_every_boundary_in_the_source_has_a_server_that_dies_there() -> None:
    """Add yours to a story that passes it, or a request for its route."""
    found = {each.name for each in boundaries()} | ENGINE
    assert found == IN_REQUESTS | IN_STARTS | set(STORIES) | set(ROUTE_TESTS)
    assert not set(STORIES) & set(ROUTE_TESTS)


@both(list(STORIES), sample=17)
def test_a_story_ends_as_it_would_have(
    workshop: Workshop, ground: Ground, tmp_path: Path, at: str
) -> None:
    """Nothing lost, nothing doubled, every job at its end, every message received."""
    receiver = Receiver()
    with workshop.database.write() as session:
        token = make_token(session, "ada", "admin", by="test")[1]
    folder = workshop.settings.folder
    try:
        with lives_of(ground, WHOLE, folder, workshop.url, tmp_path / "home") as lives:
            stage = stories.Stage(workshop, lives, Client(lives, token), receiver)
            STORIES[at.partition(" ")[2]](stage, at)
            assert at in lives.deaths
    finally:
        receiver.close()


# What the threads of a whole server have no part in.


class Street:
    """A house with an output of four checkpoints, and servers that only answer."""

    def __init__(self, folder: Path, database: Database, lives: Lives) -> None:
        self.house = House(folder, database)
        self.database = database
        self.lives = lives
        self.token = self.house.headers["authorization"].removeprefix("Bearer ")
        self.client = Client(lives, self.token)
        self.output = Output(folder / "lab" / "out")
        self.commits = [commit.checkpoint for commit in self.output.chain(4)]
        with database.write() as session:
            register(session, self.house.settings, "lab", str(folder / "lab"), by="test")
            self.model = add_model(session, "lab:out").id

    def count(self, *what: Any) -> int:
        with self.database.read() as session:
            return session.scalar(select(func.count()).select_from(*what)) or 0

    def audited(self, action: str) -> int:
        with self.database.read() as session:
            found = select(func.count()).select_from(Audit).where(Audit.action == action)
            return session.scalar(found) or 0

    def history(self) -> Any:
        return open_repository(LocalStore(self.output.folder)).history


@pytest.fixture
def street(
    tmp_path: Path, database: Database, database_url: str, ground: Ground
) -> Iterator[Street]:
    with (
        capture_logs(),
        lives_of(ground, ROUTES, tmp_path / "server", database_url) as lives,
    ):
        yield Street(tmp_path, database, lives)


def without_a_key(street: Street, at: str) -> None:
    """Who sends none cannot know; but a job and its entry in the audit log are there together."""
    street.lives.begin(at)
    answer = street.client.ask("POST", "/api/v1/jobs", key=None, json=SPEC)
    assert answer.status_code == 201
    made = street.count(Job)
    assert made == (2 if at.startswith("after") else 1)
    assert street.audited("job.submit") == made


def outside_without_a_key(street: Street, at: str) -> None:
    """As often as it is asked, a pin is one."""
    path = f"/api/v1/models/{street.model}/checkpoints/v1/pin"
    street.lives.begin(at)
    assert street.client.ask("PUT", path, key=None).status_code == 200
    assert street.history().pins == {street.commits[0]}
    assert street.audited("model.pin") == (2 if at.startswith("after") else 1)


def refused_after_all(street: Street, at: str) -> None:
    """What turns out to be impossible is forgotten, and may be asked again with the same key."""
    path = f"/api/v1/models/{street.model}/checkpoints/{street.commits[0]}"
    street.lives.begin("after api/outside.py _keep")
    sent = {"headers": {**street.house.headers, "idempotency-key": "drop it"}}
    with pytest.raises(httpx2.TransportError):
        httpx2.delete(f"http://127.0.0.1:{street.lives.port}{path}", **sent)
    assert street.lives.wait() == -signal.SIGKILL
    street.output.repository.pin(street.commits[0])
    street.lives.begin(at)
    assert street.client.ask("DELETE", path, key="drop it").status_code == 422
    street.output.repository.unpin(street.commits[0])
    assert street.client.ask("DELETE", path, key="drop it").status_code == 200
    assert street.history().dropped == {street.commits[0]}


def a_token_is_used(street: Street, at: str) -> None:
    """It works, whether that was noted or not; and then it is noted."""
    street.lives.begin(at)
    assert street.client.ask("GET", "/api/v1/jobs").status_code == 200
    with street.database.read() as session:
        assert session.scalar(select(Token.used_at).where(Token.name == "the admin"))


def signing_in_and_out(street: Street, at: str) -> None:
    """Signed in is who got a cookie; out is out, whoever heard of it."""
    browser = Client(street.lives)
    as_page = {"accept": "text/html"}
    street.lives.begin(at)
    answer = browser.ask("POST", "/login", key=None, data={"token": street.token})
    assert answer.status_code == 303
    page = browser.ask("GET", "/jobs", headers=as_page)
    assert page.status_code == 200
    [csrf] = re.findall(r'data-csrf="([^"]+)"', page.text)
    assert browser.ask("POST", "/logout", key=None, data={"csrf": csrf}).status_code in (303, 401)
    assert browser.ask("GET", "/jobs", headers=as_page).status_code == 401
    assert street.audited("logout") == 1
    assert street.audited("login") >= 1


def a_secret_from_a_page(street: Street, at: str) -> None:
    """Written again it is what it is."""
    street.lives.begin(at)
    form = {"secret_name": "key", "secret_value": "a value\r\nof two lines"}
    answer = street.client.ask("POST", "/settings/secrets", data=form)
    assert answer.status_code == 303
    assert (street.house.settings.secrets / "key").read_text() == "a value\nof two lines"
    assert street.count(Secret) == 1
    assert [path.name for path in street.house.settings.secrets.iterdir()] == ["key"]


ROUTE_TESTS: dict[str, Callable[[Street, str], None] | None] = {
    "api/call.py Call._once #1": without_a_key,
    "api/outside.py once_outside": outside_without_a_key,
    "api/outside.py _answered #1": refused_after_all,
    USE_IS_NOTED: a_token_is_used,
    "security/login.py Login._open": signing_in_and_out,
    "security/login.py Login._close": signing_in_and_out,
    "console/pages/settings.py put_secret.<locals>.keep": a_secret_from_a_page,
    "models/rebuilding.py rebuild": None,
    "models/rebuilding.py _index": None,
}


@both([name for name, test in ROUTE_TESTS.items() if test is not None], sample=1)
def test_a_visit_ends_as_it_would_have(street: Street, at: str) -> None:
    """What people do, asked again where it was not answered."""
    test = ROUTE_TESTS[at.partition(" ")[2]]
    assert test is not None
    test(street, at)
    assert at in street.lives.deaths


@both([name for name, test in ROUTE_TESTS.items() if test is None], sample=1)
def test_an_index_is_made_anew_though_the_command_was_killed(
    database: Database, database_url: str, tmp_path: Path, ground: Ground, at: str
) -> None:
    """Said again, `onward server rebuild` brings what it would have."""
    commits = [commit.checkpoint for commit in Output(tmp_path / "lab" / "out").chain(2)]
    with database.write() as session:
        register(session, Settings(folder=tmp_path / "server"), "lab", str(tmp_path / "lab"), by="")
    with lives_of(ground, REBUILD, tmp_path / "server", database_url) as lives:
        lives.begin(at)
        assert lives.wait() == -signal.SIGKILL
        lives.begin()
        assert lives.wait() == 0, lives.log()
    with database.read() as session:
        [model] = session.scalars(select(Model))
        assert set(session.scalars(select(Checkpoint.checkpoint))) == set(commits)
    assert (model.location, model.latest, model.problem) == ("lab:out", commits[-1], "")
