"""What a route knows of the request that called it, and how an effect happens once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Header, Request
from fastapi.responses import JSONResponse
from sqlalchemy import insert, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.orm import Session

from onward.server.database import Database, Overtaken
from onward.server.database.tables import Answer, Audit
from onward.server.names import now_s
from onward.server.problems import Busy, KeyReused, NotAllowed
from onward.server.security.tokens import Principal
from onward.server.settings import Settings

REPLAYED = "Idempotency-Replayed"
_TRIES = 5
_GIVE_WAY = frozenset({"40001", "40P01"})
"""PostgreSQL undid one of two transactions that waited for each other."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose sender is known."""

    principal: Principal
    database: Database
    settings: Settings
    key: str | None
    request_digest: str
    remote: str

    def need(self, scope: str) -> None:
        """Raises `NotAllowed` unless the token has this scope."""
        if not self.principal.may(scope):
            raise NotAllowed(
                f"the token {self.principal.name!r} may only {self.principal.scope}",
                why=f"this needs the scope {scope}",
                do="ask an administrator for a token that has it",
            )

    def once(
        self, effect: Callable[[Session], Any], *, action: str, status: int = 200,
        only_now: Callable[[], dict[str, Any]] | None = None, about: str = "",
    ) -> JSONResponse:  # fmt: skip
        """Runs `effect` in one transaction, with the audit entry and the answer that a repeated
        request gets. `effect` returns plain JSON values and touches nothing but the database.

        The same key with the same request is answered as before; with another one, `KeyReused`.
        `only_now` adds what is shown once and stored nowhere: a repeated request does not get it.
        `about` names the thing for the audit log where the answer does not.
        """
        for left in reversed(range(_TRIES)):
            try:
                answer = self._once(effect, action=action, status=status, about=about)
                if only_now is not None and REPLAYED not in answer.headers:
                    body = json.loads(bytes(answer.body))
                    return JSONResponse({**body, **only_now()}, status)
                return answer
            except Overtaken:
                # Somebody moved the same job in this very moment: decide again on how it is now.
                if not left:
                    raise
            except IntegrityError:
                # Somebody made the same thing in this very moment: decide again, beside it.
                if not left:
                    raise
            except OperationalError as error:
                if not left or getattr(error.orig, "sqlstate", "") not in _GIVE_WAY:
                    raise
        raise AssertionError("unreachable")

    def _once(
        self, effect: Callable[[Session], Any], *, action: str, status: int, about: str
    ) -> JSONResponse:
        if self.key is None:
            with self.database.write() as session:
                body = effect(session)
                self.note(session, action, body, about=about)
            return JSONResponse(body, status)
        place = {"token": self.principal.token, "key": self.key}
        try:
            with self.database.write() as session:
                before = session.get(Answer, (self.principal.token, self.key))
                if before is not None:
                    return self._again(before)
                # The key first: on PostgreSQL the same request at the same moment waits here, and
                # then finds the answer instead of doing it as well.
                session.execute(
                    insert(Answer).values(
                        **place, request=self.request_digest, status=0, body={},
                        created_at=now_s(),
                    )
                )  # fmt: skip
                body = effect(session)
                self.note(session, action, body, about=about)
                session.execute(
                    update(Answer)
                    .where(*(getattr(Answer, name) == value for name, value in place.items()))
                    .values(status=status, body={"answer": body})
                    .execution_options(synchronize_session=False)
                )
            return JSONResponse(body, status)
        except IntegrityError:
            with self.database.read() as session:
                before = session.get(Answer, (self.principal.token, self.key))
            if before is None:
                raise
            return self._again(before)

    def answered(self) -> JSONResponse | None:
        """What this very request was answered before, for routes that have much to do first."""
        if self.key is None:
            return None
        with self.database.read() as session:
            before = session.get(Answer, (self.principal.token, self.key))
        return self._again(before) if before is not None else None

    def note(self, session: Session, action: str, body: Any, *, about: str = "") -> None:
        """Adds an entry to the audit log, about what `body` names if nothing is said."""
        session.add(
            Audit(
                at=now_s(), by=self.principal.name, action=action, object=about or named_by(body),
                remote=self.remote, detail={},
            )
        )  # fmt: skip

    def check_same(self, before: Answer) -> None:
        """Raises `KeyReused` if the key of this request came with another one before."""
        if before.request != self.request_digest:
            raise KeyReused(
                "this Idempotency-Key was used for another request",
                do="draw a new key for each thing that you ask for",
            )

    def _again(self, before: Answer) -> JSONResponse:
        self.check_same(before)
        if before.status == 0:
            raise under_way()
        return JSONResponse(before.body["answer"], before.status, {REPLAYED: "true"})


def under_way() -> Busy:
    """The error of a request that came again before it was answered."""
    return Busy(
        "the same request is under way",
        why="it was sent before, and has no answer yet",
        do="send it again in a moment, with the same key",
    )


def named_by(body: Any) -> str:
    """What an answer or an intent is about: an id, or several, or what stands for one."""
    if not isinstance(body, dict):
        return ""
    if "results" in body:
        return " ".join(each["id"] for each in body["results"] if each["problem"] is None)
    if "jobs" in body:
        return " ".join(body["jobs"])
    return str(body.get("id") or body.get("digest") or body.get("name") or "")


IdempotencyKey = Annotated[
    str | None,
    Header(
        max_length=255, pattern=r"^[\x20-\x7e]+$", description="Repeating it repeats no effect."
    ),
]


def call_from(request: Request, key: str | None, digest: str) -> Call:
    """The call behind a request that the gatekeeper let in."""
    parts = request.app.state.parts
    return Call(
        request.state.principal, parts.database, parts.settings, key, digest,
        request.client.host if request.client else "",
    )  # fmt: skip


def begun_digest(request: Request) -> hashlib._Hash:
    """Of what comes before the body; the body is to be added."""
    begin = [request.method, request.url.path, request.url.query]
    return hashlib.sha256(json.dumps(begin).encode())


async def _call(request: Request, idempotency_key: IdempotencyKey = None) -> Call:
    digest = begun_digest(request)
    digest.update(await request.body())
    return call_from(request, idempotency_key, digest.hexdigest())


Caller = Annotated[Call, Depends(_call)]
