"""Effects outside of the database, once: an intent is kept before, an answer after.

Between the two a server may die. The same request, sent again with its key, then finds the intent
and carries it out again, which by its nature is the same as once. While it is under way here, the
same request is told so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from fastapi.responses import JSONResponse
from sqlalchemy import delete, insert, update
from sqlalchemy.exc import IntegrityError

from onward.errors import Indeterminate, OnwardError, Unreachable
from onward.server.api.call import REPLAYED, Call, under_way
from onward.server.database.tables import Answer
from onward.server.names import now_s

Intent = dict[str, Any]

_under_way: set[tuple[str, str]] = set()
_looking = threading.Lock()


def once_outside(
    call: Call, *, decide: Callable[[], Intent], carry_out: Callable[[Intent], Any], action: str,
) -> JSONResponse:  # fmt: skip
    """Decides, keeps the intent and the audit entry in one transaction, carries it out, answers.

    What is refused is forgotten, so that it may be asked again with the same key; where nobody
    knows how it ended, the intent stays.
    """
    if call.key is None:
        intent = decide()
        with call.database.write() as session:
            call.note(session, action, intent)
        return JSONResponse(carry_out(intent))
    place = (call.principal.token, call.key)
    with _looking:
        if place in _under_way:
            raise under_way()
        _under_way.add(place)
    try:
        return _answered(call, place, decide, carry_out, action)
    finally:
        with _looking:
            _under_way.discard(place)


def _answered(
    call: Call, place: tuple[str, str], decide: Callable[[], Intent],
    carry_out: Callable[[Intent], Any], action: str,
) -> JSONResponse:  # fmt: skip
    with call.database.read() as session:
        before = session.get(Answer, place)
    if before is not None:
        call.check_same(before)
    if before is not None and before.status:
        return JSONResponse(before.body["answer"], before.status, {REPLAYED: "true"})
    if before is None:
        intent = decide()
        _keep(call, place, intent, action)
    else:
        intent = before.body["intent"]
    ours = (Answer.token == place[0], Answer.key == place[1])
    try:
        body = carry_out(intent)
    except (Indeterminate, Unreachable):
        raise  # it may have happened
    except OnwardError:
        with call.database.write() as session:
            session.execute(delete(Answer).where(*ours))
        raise
    with call.database.write() as session:
        session.execute(
            update(Answer)
            .where(*ours)
            .values(status=200, body={"answer": body})
            .execution_options(synchronize_session=False)
        )
    return JSONResponse(body)


def _keep(call: Call, place: tuple[str, str], intent: Intent, action: str) -> None:
    try:
        with call.database.write() as session:
            session.execute(
                insert(Answer).values(
                    token=place[0], key=place[1], request=call.request_digest, status=0,
                    body={"intent": intent}, created_at=now_s(),
                )
            )  # fmt: skip
            call.note(session, action, intent)
    except IntegrityError as error:
        raise under_way() from error
