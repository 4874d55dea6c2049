"""Bearer tokens: drawn once, shown once, kept as digests; scoped, expiring, revocable."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.server.database.tables import Token
from onward.server.names import new_id, now_s
from onward.server.problems import IllegalMove, NotFound

SCOPES = ("read", "write", "admin")
_PREFIX = "onw_"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `name` is the token's, for the audit log."""

    token: str
    name: str
    scope: str

    def may(self, scope: str) -> bool:
        """Whether this scope is included in the token's."""
        return SCOPES.index(self.scope) >= SCOPES.index(scope)


def make_token(
    session: Session, name: str, scope: str, *, by: str, lifetime_s: float | None = None
) -> tuple[Token, str]:
    """A new token: its row, and the text that nobody will see again."""
    text = _PREFIX + secrets.token_urlsafe(32)
    now = now_s()
    row = Token(
        id=new_id("tok"), name=name, digest=digest_of(text), scope=scope, created_at=now,
        created_by=by, expires_at=now + lifetime_s if lifetime_s is not None else None,
    )  # fmt: skip
    session.add(row)
    return row, text


def find_principal(session: Session, text: str) -> Principal | None:
    """Who shows this token; None if it is unknown, expired or revoked."""
    # The digest is looked up, so that how long it takes tells nothing about any token.
    row = session.scalar(select(Token).where(Token.digest == digest_of(text)))
    if row is None or not is_valid(row, now_s()):
        return None
    return Principal(row.id, row.name, row.scope)


def list_tokens(session: Session) -> list[Token]:
    """All there ever were, newest first."""
    return list(session.scalars(select(Token).order_by(Token.created_at.desc(), Token.id)))


def revoke_token(session: Session, token_id: str) -> Token:
    """From the next request on nobody may use it. Raises `NotFound`, or `IllegalMove` for the last
    administrator's. Afterwards call `Principals.forget`."""
    # All of them, locked in one order: two revocations at once must not leave none.
    rows = list(session.scalars(select(Token).order_by(Token.id).with_for_update()))
    found = next((row for row in rows if row.id == token_id), None)
    if found is None:
        raise NotFound(f"there is no token {token_id!r}", do="`GET /api/v1/tokens` lists them")
    now = now_s()
    lasting = [
        row
        for row in rows
        if row.scope == "admin" and row.expires_at is None and is_valid(row, now)
    ]
    if lasting == [found]:
        raise IllegalMove(
            f"{found.name!r} is the last administrator's token that does not expire",
            why="nobody could make another one",
            do="make a new one first, then revoke this one",
        )
    if found.revoked_at is None:
        found.revoked_at = now
    return found


def is_valid(token: Token, now: float) -> bool:
    return token.revoked_at is None and (token.expires_at is None or now < token.expires_at)


def digest_of(text: str) -> str:
    """SHA-256 is enough for 256 random bits: there is nothing to guess."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
