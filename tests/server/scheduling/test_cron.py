"""When cron expressions are due: on the wall's clock, through the two odd nights of a year."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from onward.errors import UsageError
from onward.server.scheduling.cron import checked_cron, next_tick, zone_of

BERLIN = ZoneInfo("Europe/Berlin")


def ticks(expression: str, start: str, count: int) -> list[str]:
    moment = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
    found = []
    for _ in range(count):
        moment = next_tick(expression, BERLIN, moment)
        found.append(datetime.fromtimestamp(moment, BERLIN).isoformat()[:22])
    return found


def test_an_hour_that_does_not_exist_is_the_one_after_it() -> None:
    """A nightly job runs that night too, once."""
    assert ticks("30 2 * * *", "2026-03-28T00:00", 3) == [
        "2026-03-28T02:30:00+01", "2026-03-29T03:30:00+02", "2026-03-30T02:30:00+02",
    ]  # fmt: skip


def test_an_hour_that_comes_twice_counts_once() -> None:
    """A nightly job runs once, although 02:30 comes twice."""
    assert ticks("30 2 * * *", "2026-10-24T00:00", 3) == [
        "2026-10-24T02:30:00+02", "2026-10-25T02:30:00+02", "2026-10-26T02:30:00+01",
    ]  # fmt: skip


def test_what_is_every_half_hour_stays_so() -> None:
    """In truth, not on the wall: no gap of an hour and no tick twice."""
    for start in ("2026-03-28T23:00", "2026-10-24T23:00"):
        moment = first = datetime.fromisoformat(start).replace(tzinfo=UTC).timestamp()
        for number in range(1, 13):
            moment = next_tick("*/30 * * * *", BERLIN, moment)
            assert moment == first + 1800 * number


def test_a_zone_is_followed_and_short_forms_are_known() -> None:
    """Midnight in Shanghai is four in the afternoon before, in UTC."""
    moment = next_tick(checked_cron("@daily"), zone_of("Asia/Shanghai"), 0.0)
    assert datetime.fromtimestamp(moment, UTC).isoformat() == "1970-01-01T16:00:00+00:00"
    assert checked_cron("0  4 *   * Mon-Fri") == "0 4 * * Mon-Fri"
    assert next_tick("0 0 29 2 *", UTC, 1_900_000_000.0) > 1_900_000_000.0


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "H * * * *", "R * * * *", "a b c d e",
     "0 0 * * fri#2", "@reboot", "0 0 0 * *", "*/0 * * * *", "1-0 * * * * ; rm"],
)  # fmt: skip
def test_what_is_no_expression_is_refused(text: str) -> None:
    """Also what other programs take, but is drawn by lot or has seconds."""
    with pytest.raises(UsageError):
        checked_cron(text)


def test_a_date_that_never_comes_is_refused() -> None:
    """Rather than waited for."""
    with pytest.raises(UsageError, match="never due"):
        next_tick(checked_cron("0 0 30 2 *"), UTC, 0.0)


@pytest.mark.parametrize("name", ["", "Nowhere", "../../etc/passwd", "/etc/passwd", "America"])
def test_zones_that_are_none_are_refused(name: str) -> None:
    """No file of another kind is read for one."""
    with pytest.raises(UsageError):
        zone_of(name)
