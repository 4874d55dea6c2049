"""The first token, without which nobody could make any."""

from __future__ import annotations

from sqlalchemy import func, select

from onward.server.database import Database
from onward.server.database.tables import Token
from onward.server.security.tokens import make_token


def first_token(database: Database) -> str | None:
    """An administrator's token where there never was any; None where there was."""
    with database.write() as session:
        if session.scalar(select(func.count()).select_from(Token)):
            return None
        return make_token(session, "first", "admin", by="onward serve")[1]
