"""A server dies in its first seconds: the next one starts, and somebody can sign in."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from onward.server.database import Database, open_database
from onward.server.database.tables import Audit, Token
from onward.server.security.tokens import digest_of
from tests.postgresql import PostgreSQL
from tests.server.kills.lives import Ground, lives_of
from tests.server.kills.mortal import START, TOKEN

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
STATEMENT = "before a statement of the migrations"
SIDES = ("before", "after")
ENDS = [
    f"{side} {place}"
    for side in SIDES
    for place in ("database/migrating.py migrate", "security/first.py first_token")
]


@dataclass
class Place:
    """Where first starts are tried, each in an empty folder and an empty database."""

    folder: Path
    ground: Ground
    new_database: Callable[[Path], str]
    tried: int = 0

    def start_dying(self, at: str, nth: int = 1) -> bool:
        """Whether a first start comes by the point. The start after it must bring everything."""
        self.tried += 1
        folder = self.folder / str(self.tried)
        url = self.new_database(folder)
        with lives_of(self.ground, START, folder, url) as lives:
            lives.begin(at, nth)
            died = lives.wait() == -signal.SIGKILL
            if died:
                lives.begin()
                assert lives.wait() == 0, lives.log()
            shown = {digest_of(text) for text in re.findall(r"\bonw_[\w-]+", lives.log())}
        database = open_database(url)
        with database.read() as session:
            [token] = session.scalars(select(Token))
        database.close()
        assert token.digest in shown, "or nobody could ever sign in"
        return died


@pytest.fixture(params=["sqlite", "postgresql"] if FULL else ["sqlite"])
def place(tmp_path: Path, ground: Ground, request: pytest.FixtureRequest) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path, ground, lambda folder: f"sqlite:///{folder / 'onward.db'}")
    cluster: PostgreSQL = request.getfixturevalue("postgresql_cluster")
    return Place(tmp_path, ground, lambda folder: cluster.new_database())


@pytest.mark.parametrize("at", ENDS)
def test_a_first_start_is_made_up_for(place: Place, at: str) -> None:
    """Before and after its transactions; a token that is valid was shown."""
    assert place.start_dying(at)


def test_half_of_the_tables_are_none(place: Place) -> None:
    """Whichever statement of the migrations was the last."""
    number = next(n for n in count(1, 1 if FULL else 9) if not place.start_dying(STATEMENT, n))
    assert number > 20


@pytest.mark.parametrize(
    "database_url", ["sqlite", "postgresql"] if FULL else ["sqlite"], indirect=True
)
@pytest.mark.parametrize("side", SIDES)
def test_a_token_made_on_the_command_line_is_shown_or_made_again(
    ground: Ground, database: Database, database_url: str, tmp_path: Path, side: str
) -> None:
    """Said again, the command shows one that is good; each that there is has its entry."""
    with lives_of(ground, TOKEN, tmp_path / "server", database_url) as lives:
        lives.begin(f"{side} security/first.py token_from_folder")
        assert lives.wait() == -signal.SIGKILL
        lives.begin()
        assert lives.wait() == 0, lives.log()
        [shown] = re.findall(r"\bonw_[\w-]+", lives.log())
    with database.read() as session:
        kept = list(session.scalars(select(Token.digest)))
        assert digest_of(shown) in kept
        assert len(list(session.scalars(select(Audit)))) == len(kept) == 1 + (side == "after")
