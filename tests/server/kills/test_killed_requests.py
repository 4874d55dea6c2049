"""A server dies in a request, at every boundary of every route; the client asks again.

The routes are those of the router, and the boundaries those that the request passes. What is there
in the end is what a request leaves that nothing happened to: counted in every table, in the log of
the output and among the files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session
from structlog.testing import capture_logs

from onward.repository import open_repository
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Base
from onward.stores import LocalStore
from tests.server.api.house import House
from tests.server.kills.boundaries import here
from tests.server.kills.lives import Client, Ground, lives_of
from tests.server.kills.mortal import ROUTES, USE_IS_NOTED
from tests.server.security.test_audit import KEEPS_NO_ANSWER, all_of_them

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
MOST_POINTS = 6
Counts = dict[str, Any]


def counts(house: House, folder: Path) -> Counts:
    """How much there is of everything that a request can leave."""
    with house.database.read() as session:
        found: Counts = {
            table.name: session.scalar(select(func.count()).select_from(table))
            for table in Base.metadata.sorted_tables
        }
    found["log"] = open_repository(LocalStore(folder / "lab" / "digits")).history.seq
    for name in ("code", "secrets", "attempts"):
        found[name] = sum(1 for _ in (house.settings.folder / name).rglob("*"))
    return found


def difference(before: Counts, after: Counts) -> Counts:
    return {name: after[name] - before[name] for name in after if after[name] != before[name]}


class Unharmed:
    """What each request leaves that nothing happens to, and how many points it passes."""

    def __init__(self, folder: Path) -> None:
        self.left: dict[tuple[str, str], Counts] = {}
        self.points: dict[tuple[str, str], int] = {}
        database = open_database(f"sqlite:///{folder / 'onward.db'}")
        migrate(database)
        house = House(folder, database)
        passed: list[str] = []

        def point(*_: Any) -> None:
            passed.extend(place for place in [here()] if place != USE_IS_NOTED)

        for route, make in all_of_them(house, folder).items():
            method, path, sent, _, _ = make()
            before = counts(house, folder)
            passed.clear()
            for name in ("before_commit", "after_commit"):
                event.listen(Session, name, point)
            answer = house.client.request(
                method, path, headers={"idempotency-key": " ".join(route)}, **sent
            )
            for name in ("before_commit", "after_commit"):
                event.remove(Session, name, point)
            assert answer.is_success, answer.text
            self.left[route] = difference(before, counts(house, folder))
            self.points[route] = len(passed)
        database.close()


@pytest.fixture(scope="module")
def unharmed(tmp_path_factory: pytest.TempPathFactory) -> Unharmed:
    with capture_logs():
        return Unharmed(tmp_path_factory.mktemp("unharmed"))


@pytest.fixture
def house(tmp_path: Path, database: Database) -> Iterator[House]:
    with capture_logs():
        yield House(tmp_path, database)


@pytest.mark.parametrize(
    "database_url", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True
)
@pytest.mark.parametrize("number", range(1, MOST_POINTS + 1) if FULL else [0])
def test_a_request_of_every_route_is_done_once_wherever_the_server_dies(
    house: House, database_url: str, tmp_path: Path, ground: Ground, number: int, unharmed: Unharmed
) -> None:
    """The server dies at the point of this number, if the request passes so many: before or after
    a commit. In the sample, each route has its turn at one of its points."""
    died: dict[tuple[str, str], str] = {}
    chosen = {
        route: number or 1 + order % points
        for order, (route, points) in enumerate(unharmed.points.items())
        if points >= number
    }
    with lives_of(ground, ROUTES, house.settings.folder, database_url) as lives:
        client = Client(lives, house.headers["authorization"].removeprefix("Bearer "))
        for route, make in all_of_them(house, tmp_path).items():
            method, path, sent, _, _ = make()
            before, deaths = counts(house, tmp_path), len(lives.deaths)
            if route in chosen:
                lives.begin("request", chosen[route])
            answer = client.ask(method, path, key=" ".join(route), **sent)
            assert answer.is_success, (route, answer.text)
            left = difference(before, counts(house, tmp_path))
            if lives.deaths[deaths:]:
                [died[route]] = lives.deaths[deaths:]
                if (
                    route[0] == "PUT"
                    and route[1] in KEEPS_NO_ANSWER
                    and died[route].startswith("after")
                ):
                    left["audit"] -= 1  # of each request: there is no key
            assert left == unharmed.left[route], (route, died.get(route))
            lives.kill()
    print("\n".join(f"{died.get(route)}: {' '.join(route)}" for route in chosen))
    assert died.keys() == chosen.keys(), "each of these requests lost its server"


def test_no_request_passes_more_points(unharmed: Unharmed) -> None:
    """Or some of them are never tried; and none passes no point."""
    assert max(unharmed.points.values()) == MOST_POINTS
    assert min(unharmed.points.values()) >= 2
