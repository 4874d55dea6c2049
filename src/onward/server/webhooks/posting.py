"""One POST to a place that somebody else chose: checked, bounded, and nothing of its answer read.

No redirect is followed, no proxy asked, and the connection goes to the addresses that were looked
at. What a receiver says but for its status is never read: it could not be trusted, nor shown.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit

from onward.errors import UsageError
from onward.server.security.addresses import public_addresses

_CONNECT_S = 5.0


def checked_url(url: str, *, allow_private: bool) -> SplitResult:
    """Raises `UsageError` for what no message may be sent to."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - it is read to find out whether it is one
    except ValueError as error:
        raise UsageError("the address cannot be read", why=str(error), do=_DO) from error
    schemes = ("https", "http") if allow_private else ("https",)
    if parts.scheme not in schemes or not parts.hostname:
        raise UsageError(
            "the address of a webhook begins with https://",
            why="http is only for private addresses, which need allow_private",
            do=_DO,
        )
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError("the address of a webhook has neither a user nor '#' in it", do=_DO)
    if not url.isascii() or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        raise UsageError("the address of a webhook is plain ASCII without spaces", do=_DO)
    return parts


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow_private: bool, timeout_s: float
) -> int:
    """The status of the answer.

    Raises `UsageError` for an address that may not be talked to, and `OSError` or
    `http.client.HTTPException` if no answer came within `timeout_s`.
    """
    parts = checked_url(url, allow_private=allow_private)
    assert parts.hostname is not None
    port = parts.port or (443 if parts.scheme == "https" else 80)
    numbers = public_addresses(parts.hostname, port, allow_private=allow_private)
    connection = _Pinned(parts, port, numbers)
    # A receiver that sends a byte now and then is within every timeout of a socket.
    watch = threading.Timer(timeout_s, connection.abort)
    watch.daemon = True
    watch.start()
    try:
        path = parts.path or "/"
        connection.request(
            "POST", f"{path}?{parts.query}" if parts.query else path, body=body,
            headers={"Content-Type": "application/json", "Connection": "close", **headers},
        )  # fmt: skip
        return connection.getresponse().status
    except (ValueError, AttributeError) as error:
        if connection.aborted:  # the socket went away while the library used it
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        raise
    except (OSError, http.client.HTTPException) as error:
        if connection.aborted:
            raise TimeoutError(f"no answer within {timeout_s:g} s") from error
        raise
    finally:
        watch.cancel()
        connection.close()


class _Pinned(http.client.HTTPConnection):
    """A connection to given addresses of a host; the certificate must be the host's."""

    def __init__(self, parts: SplitResult, port: int, numbers: list[str]) -> None:
        super().__init__(str(parts.hostname), port, timeout=_CONNECT_S)
        self._numbers = numbers
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._raw: socket.socket | None = None
        self.aborted = False

    def connect(self) -> None:
        failure: OSError | None = None
        for number in self._numbers:
            try:
                self._raw = socket.create_connection((number, self.port), _CONNECT_S)
                break
            except OSError as error:
                failure = error
        if self._raw is None:
            assert failure is not None
            raise failure
        self._raw.settimeout(None)  # the watch ends it
        self.sock = self._raw
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(self._raw, server_hostname=self.host)
            self._raw = self.sock
        if self.aborted:
            raise TimeoutError("no connection in time")

    def abort(self) -> None:
        """From another thread: whatever it waits for ends now."""
        self.aborted = True
        raw = self._raw
        if raw is not None:
            try:
                raw.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already


_DO = "write https://HOST/PATH"
