"""Errors of the server, and the one shape in which every error leaves it (RFC 9457).

Beside the errors that the rest of Onward raises, a server has:

OnwardError
├── NotFound         nothing has this id, or you may not see it        404
├── NotAllowed       your token may not do this                        403
├── IllegalMove      a job in this state cannot do that                409
├── Busy             the same request is under way                     409
├── KeyReused        an Idempotency-Key came back with another body    422
├── TooLarge         a body over the limit                             413
├── UsageError
│   └── BadCode      code that cannot be pinned as it is               422
└── TooMany          more requests than the limit allows               429
"""

from __future__ import annotations

from typing import Any

from onward.errors import (
    AlreadyExists,
    Conflict,
    Damaged,
    DataError,
    Dropped,
    Fenced,
    GateRefused,
    Indeterminate,
    JobError,
    Missing,
    NotAnOutput,
    OnwardError,
    StoreError,
    UnknownCheckpoint,
    UsageError,
)
from onward.server.database import Overtaken


class NotFound(OnwardError):
    """Nothing has this id, or the caller may not see it."""


class NotAllowed(OnwardError):
    """The token may not do this."""


class IllegalMove(OnwardError):
    """A job in this state cannot do that."""


class Busy(OnwardError):
    """The same request is under way, or nobody knows how it ended."""


class KeyReused(OnwardError):
    """An Idempotency-Key came back with another request."""


class TooLarge(OnwardError):
    """A body over the limit."""


class BadCode(UsageError):
    """Code that cannot be pinned as it is."""


class TooMany(OnwardError):
    """More requests than the limit allows."""


_STATUS: tuple[tuple[type[OnwardError], int], ...] = (
    (NotFound, 404), (NotAllowed, 403), (IllegalMove, 409), (Overtaken, 409), (Busy, 409),
    (KeyReused, 422), (TooLarge, 413), (TooMany, 429), (UnknownCheckpoint, 404),
    (NotAnOutput, 404), (UsageError, 422), (GateRefused, 409), (Missing, 404),
    (AlreadyExists, 409), (Fenced, 409), (Conflict, 409), (Dropped, 409), (DataError, 409),
    (Damaged, 409), (Indeterminate, 503), (StoreError, 503), (JobError, 409),
)  # fmt: skip
"""The first that fits."""


def status_of(error: OnwardError) -> int:
    """The HTTP status that an error leaves the server with."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem(status: int, kind: str, what: str, *, why: str = "", do: str = "") -> dict[str, Any]:
    """A problem document: RFC 9457's members, and Onward's what, why, do."""
    return {
        "type": f"urn:onward:error:{kind}",
        "title": what,
        "status": status,
        "detail": why,
        "what": what,
        "why": why,
        "do": do,
    }


def problem_of(error: OnwardError) -> dict[str, Any]:
    """The document for an error of ours."""
    return problem(status_of(error), type(error).__name__, error.what, why=error.why, do=error.do)
