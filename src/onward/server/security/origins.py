"""Requests that a page elsewhere makes a browser send: by another name, or to another site."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.requests import Request

from onward.server.problems import problem

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Origins:
    """Knows the names of this server. Others may resolve to it as well (DNS rebinding)."""

    def __init__(self, host: str, names: Iterable[str]) -> None:
        own = () if host in ("0.0.0.0", "::", "") else (host,)
        self.names = frozenset(name.lower().rstrip(".") for name in (*_LOOPBACK, *own, *names))

    def refusal(self, request: Request) -> dict[str, object] | None:
        """A problem document, or None if the request may go on."""
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or host_name(hosts[0]) not in self.names:
            return problem(
                421, "WrongHost", "this server does not go by that name",
                why="a page elsewhere may have made a browser believe so",
                do="ask by an address that it listens on, or allow the name: --allow-host NAME",
            )  # fmt: skip
        if request.method in _SAFE:
            return None
        origin = request.headers.get("origin")
        site = request.headers.get("sec-fetch-site", "")
        if (origin is not None and not self._is_own(origin, hosts[0])) or site in (
            "cross-site",
            "same-site",
        ):
            return problem(
                403, "WrongOrigin", "this request comes from another site",
                why="only the console's own pages, and programs, may change something",
                do="open the console itself",
            )  # fmt: skip
        return None

    def _is_own(self, origin: str, host: str) -> bool:
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def host_name(host: str) -> str | None:
    """The name in a Host header, without its port; None for what cannot be one."""
    if any(char in host for char in "/@\\?#, \t"):
        return None
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    return (parts.hostname or "").lower().rstrip(".") or None
