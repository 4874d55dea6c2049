"""Tokens that nobody's token made: the first one, and one for when all are lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import func, select

from onward.errors import UsageError
from onward.server.database import Database, open_database
from onward.server.database.migrating import migrate
from onward.server.database.tables import Audit, Token
from onward.server.names import now_s
from onward.server.security.tokens import make_token
from onward.server.settings import Settings

_LONGEST_NAME = 200


@contextmanager
def first_token(database: Database) -> Iterator[str | None]:
    """An administrator's token where there never was any; None where there was.

    The block shows it, and then it is kept. A server that dies between the two has shown a token
    that is none, and the next one shows another; the other way round it would be known to nobody.
    """
    with database.write() as session:
        if session.scalar(select(func.count()).select_from(Token)):
            yield None
        else:
            yield make_token(session, "first", "admin", by="onward serve")[1]


def token_from_folder(
    settings: Settings, name: str, scope: str, *, lifetime_s: float | None = None
) -> str:
    """A new token, made by whoever can write the database. A server may be using it.

    Raises `UsageError` where there is no server's database, or for a name that is none.
    """
    if not name.isprintable() or not 0 < len(name) <= _LONGEST_NAME:
        raise UsageError("that is no name of a token", do="use up to 200 characters that are seen")
    if not settings.database and not (settings.folder / "onward.db").is_file():
        raise UsageError(
            f"there is no server in {settings.folder}", do="give its --folder and --database"
        )
    database = open_database(settings.database_url)
    try:
        migrate(database)
        with database.write() as session:
            row, text = make_token(
                session, name, scope, by="onward server token", lifetime_s=lifetime_s
            )
            detail = {"name": name, "scope": scope}
            session.add(
                Audit(
                    at=now_s(), by="onward server token", action="token.make", object=row.id,
                    remote="", detail=detail,
                )
            )  # fmt: skip
        return text
    finally:
        database.close()
