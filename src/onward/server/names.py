"""Ids and times: random ids that say what they name, times as seconds since 1970 in UTC."""

from __future__ import annotations

import secrets
import time

_LETTERS = "23456789abcdefghjkmnpqrstuvwxyz"
_LENGTH = 14


def new_id(kind: str) -> str:
    """Such as `job-7k2m9q…`: 69 random bits, no letters that look alike."""
    return f"{kind}-" + "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))


def now_s() -> float:
    """Seconds since 1970. Only shown and compared with itself: nothing is decided by clocks of
    different machines."""
    return time.time()
