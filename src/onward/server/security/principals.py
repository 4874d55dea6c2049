"""Who asks, remembered for a moment: a request should not cost a query for that."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from sqlalchemy import update

from onward.server.database import Database
from onward.server.database.tables import Token
from onward.server.names import now_s
from onward.server.security.sessions import find_session
from onward.server.security.tokens import Principal, digest_of, find_principal

_REMEMBERED_S = 5.0
_REMEMBERED = 10_000
_USED_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class Visitor:
    """A principal, and for browsers what their forms must hold."""

    principal: Principal
    csrf: str
    until_s: float


class Principals:
    """Looks tokens and cookies up. Whoever revokes one calls `forget`, and it is gone at once.

    One server has a database to itself (`alone.py`), so that nobody else revokes.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Visitor] = {}
        self._used: dict[str, float] = {}
        self._forgotten = 0

    def remembered(self, kind: str, text: str) -> Visitor | None:
        """From memory alone: quick enough for the event loop."""
        found = self._known.get((kind, digest_of(text)))
        return found if found is not None and time.monotonic() < found.until_s else None

    def look_up(self, kind: str, text: str) -> Visitor | None:
        """`kind` is bearer or cookie. Asks the database."""
        forgotten = self._forgotten
        with self._database.read() as session:
            if kind == "bearer":
                principal, csrf = find_principal(session, text), ""
            else:
                found = find_session(session, text)
                principal, csrf = found if found is not None else (None, "")
        if principal is None:
            return None
        visitor = Visitor(principal, csrf, time.monotonic() + _REMEMBERED_S)
        with self._lock:
            if forgotten == self._forgotten:
                if len(self._known) >= _REMEMBERED:
                    self._known.clear()
                self._known[kind, digest_of(text)] = visitor
        self._note_use(principal.token)
        return visitor

    def forget(self) -> None:
        """A token or a session is not what it was."""
        with self._lock:
            self._forgotten += 1
            self._known.clear()

    def _note_use(self, token: str) -> None:
        now = now_s()
        if now - self._used.get(token, 0.0) < _USED_EVERY_S:
            return
        self._used[token] = now
        with self._database.write() as session:
            session.execute(update(Token).where(Token.id == token).values(used_at=now))
