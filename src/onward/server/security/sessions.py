"""Sessions of browsers: a cookie for whoever showed a token, and a second secret for its forms."""

from __future__ import annotations

import secrets

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from onward.server.database.tables import ConsoleSession, Token
from onward.server.names import now_s
from onward.server.security.tokens import Principal, digest_of, is_valid


def open_session(session: Session, token: str, *, lifetime_s: float) -> tuple[str, str]:
    """The texts of the cookie and of the CSRF token, for the holder of this token's row."""
    now = now_s()
    cookie, csrf = secrets.token_urlsafe(32), secrets.token_urlsafe(32)
    session.execute(delete(ConsoleSession).where(ConsoleSession.expires_at < now))
    session.add(
        ConsoleSession(
            digest=digest_of(cookie), token=token, csrf=csrf, created_at=now,
            expires_at=now + lifetime_s,
        )
    )  # fmt: skip
    return cookie, csrf


def find_session(session: Session, cookie: str) -> tuple[Principal, str] | None:
    """Who shows this cookie, and what their forms must hold. It ends with its token."""
    found = session.execute(
        select(ConsoleSession, Token)
        .join(Token, Token.id == ConsoleSession.token)
        .where(ConsoleSession.digest == digest_of(cookie))
    ).first()
    now = now_s()
    if found is None or found[0].expires_at <= now or not is_valid(found[1], now):
        return None
    return Principal(found[1].id, found[1].name, found[1].scope), found[0].csrf


def close_session(session: Session, cookie: str) -> None:
    session.execute(delete(ConsoleSession).where(ConsoleSession.digest == digest_of(cookie)))
