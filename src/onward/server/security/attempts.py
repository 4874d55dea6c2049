"""Wrong tokens, by who sent them: guessing is slow, and who knows a token is never kept out.

Several people may come from one address (a NAT, a proxy). So what an address sends is always
looked at, however often it was wrong; but then one after the other, so that no flood of guesses
takes more than one of the threads that others are served by.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict, deque
from collections.abc import Callable

import anyio
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from onward.server.security.principals import Principals, Visitor

_WINDOW_S = 60.0
_ALLOWED = 20
_SENDERS = 10_000


class WrongTokens:
    """Counts those of the last minute. Of more than 10,000 senders, whoever was wrong longest ago
    is forgotten."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def note(self, sender: str) -> None:
        times = self._wrong.setdefault(sender, deque(maxlen=_ALLOWED))
        times.append(self._clock())
        self._wrong.move_to_end(sender)
        if len(self._wrong) > _SENDERS:
            self._wrong.popitem(last=False)

    def wait_s(self, sender: str) -> int:
        """How long this sender has to wait; 0 if it was not wrong too often."""
        times = self._wrong.get(sender)
        if times is None or len(times) < _ALLOWED:
            return 0
        return max(0, math.ceil(times[0] + _WINDOW_S - self._clock()))


class Desk:
    """Where tokens and cookies are shown."""

    def __init__(self, principals: Principals, wrong: WrongTokens) -> None:
        self._principals = principals
        self._wrong = wrong
        self._line = anyio.Lock()

    async def look_up(self, request: Request, kind: str, text: str) -> Visitor | None:
        """Who shows this; None, and one more wrong one of its sender, if it is nobody's."""
        sender = sender_of(request)
        if self._wrong.wait_s(sender):
            async with self._line:
                found = await run_in_threadpool(self._principals.look_up, kind, text)
        else:
            found = await run_in_threadpool(self._principals.look_up, kind, text)
        if found is None:
            self._wrong.note(sender)
        return found

    def wait_s(self, request: Request) -> int:
        """How long whoever asks has to wait before it is wrong again."""
        return self._wrong.wait_s(sender_of(request))


def sender_of(request: Request) -> str:
    """The address of whoever is connected. Of IPv6 its first half: the rest is free to choose."""
    text = request.client.host if request.client else ""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:64]
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))
