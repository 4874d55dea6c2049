"""When a cron expression is due, also on the two days a year when clocks are changed.

Expressions are about the clock on the wall. An hour that does not exist is the one after it; one
that comes twice counts once, unless the expression is about every hour: then each of them does.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter
from croniter.croniter import CroniterError

from onward.errors import UsageError

_NAMES = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|sun|mon|tue|wed|thu|fri|sat"
_FIELD = rf"(?:[0-9*/,\-]|\b(?:{_NAMES})\b)+"
_CRON = re.compile(rf"{_FIELD}(?: {_FIELD}){{4}}", re.IGNORECASE)
_SHORT = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
_LONGEST_CHANGE = timedelta(hours=3)
"""No clock was ever changed by more at once, but for a country that skipped a day."""


def checked_cron(text: str) -> str:
    """The expression in its one form. Raises `UsageError` for what is none, or is never due."""
    expression = _SHORT.get(text.strip().lower(), " ".join(text.split()))
    if not _CRON.fullmatch(expression) or not croniter.is_valid(expression):
        raise UsageError(
            f"{text[:100]!r} is no cron expression",
            do="write minute, hour, day, month and weekday, such as '30 2 * * mon-fri', or @daily",
        )
    return expression


def zone_of(name: str) -> tzinfo:
    """Raises `UsageError` for a time zone that is not known."""
    if name == "UTC":
        return UTC  # also where no data about zones is installed
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UsageError(
            f"there is no time zone {name[:64]!r}",
            do="write one such as Asia/Shanghai or Europe/Berlin; where none is known at all, "
            "`pip install tzdata` on the server",
        ) from error


def next_tick(expression: str, zone: tzinfo, after: float) -> float:
    """The first moment after `after` at which it is due. Raises `UsageError` if there is none."""
    start = datetime.fromtimestamp(after, zone).replace(tzinfo=None) - _LONGEST_CHANGE
    every_hour = expression.split()[1].startswith("*")
    ticks = croniter(expression, start)
    found: float | None = None
    until: datetime | None = None
    while True:
        try:
            wall: datetime = ticks.get_next(datetime)
        except CroniterError as error:
            if found is not None:
                return found
            raise UsageError(
                f"the cron expression {expression!r} is never due", do="give a date that exists"
            ) from error
        if until is not None and wall > until:
            assert found is not None
            return found
        for moment in _moments(wall, zone, twice=every_hour):
            if moment > after and (found is None or moment < found):
                found = moment
        if found is not None and until is None:
            # What comes later on the wall may be earlier in truth, while clocks are changed.
            until = wall + _LONGEST_CHANGE


def next_ticks(expression: str, zone: tzinfo, after: float, count: int) -> list[float]:
    """The first `count` moments after `after`. Raises as `next_tick` does."""
    found: list[float] = []
    for _ in range(count):
        after = next_tick(expression, zone, after)
        found.append(after)
    return found


def _moments(wall: datetime, zone: tzinfo, *, twice: bool) -> list[float]:
    first = wall.replace(tzinfo=zone, fold=0).timestamp()
    second = wall.replace(tzinfo=zone, fold=1).timestamp()
    # Where the wall's time does not exist, the second is an hour early.
    return [first, second] if twice and second > first else [first]
