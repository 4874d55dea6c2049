"""The socket that the server listens on, and when it may be one that others reach."""

from __future__ import annotations

import errno
import ipaddress
import socket

from onward.errors import UsageError
from onward.server.settings import Settings


def check_exposure(settings: Settings) -> None:
    """Raises `UsageError` where tokens would cross a network in clear text, unless asked for."""
    if (settings.tls_certificate is None) != (settings.tls_key is None):
        raise UsageError(
            "TLS needs a certificate and its key", do="give --tls-certificate and --tls-key"
        )
    for path in (settings.tls_certificate, settings.tls_key):
        if path is not None and not path.is_file():
            raise UsageError(f"there is no file {str(path)!r}", do="give a PEM file")
    if is_loopback(settings.host) or settings.tls_certificate or settings.insecure_without_tls:
        return
    raise UsageError(
        f"{settings.host} can be reached from other machines",
        why="without TLS everybody on the way can read tokens, and use them",
        do="give --tls-certificate and --tls-key; or, where something before it speaks TLS, "
        "--insecure-without-tls",
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(settings: Settings) -> socket.socket:
    """A bound socket. Raises `UsageError` where the address is taken or is not this machine's."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(settings.connections)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        raise UsageError(
            f"the server cannot listen on {settings.host} port {settings.port}",
            why="something listens there already" if taken else str(error),
            do="give another --port" if taken else "give an address of this machine as --host",
        ) from error
    found.set_inheritable(False)
    return found
