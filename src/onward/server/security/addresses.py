"""Which hosts the server may talk to for others: public ones, by the addresses that were looked at.

A name may mean other addresses a moment later (DNS rebinding), so that whoever connects must use
those that are returned here, and follow no redirect.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from onward.errors import UsageError

Resolve = Callable[[str, int], Iterable[str]]

_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
_IPV4_COMPATIBLE = ipaddress.ip_network("::/96")
_CREDENTIALS = frozenset(
    ipaddress.ip_address(text)
    for text in (
        "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16", "192.0.0.192",
    )
)  # fmt: skip
"""Metadata services of clouds that are not link-local: some are private, some look public."""
_DEFAULT_PORTS = {"http": 80, "https": 443}


class NotPublic(UsageError):
    """A host that the server must not be sent to."""


def public_addresses(
    host: str, port: int, *, allow_private: bool = False, resolve: Resolve | None = None
) -> list[str]:
    """The addresses of a host, each of them public (or, if an administrator said so, private).

    Raises `NotPublic` if any is loopback, link-local (the metadata service of clouds), private,
    multicast or reserved, however it is written; also where the name is unknown.
    """
    try:
        found = list(dict.fromkeys((resolve or _resolve)(host, port)))
    except (OSError, UnicodeError) as error:
        raise NotPublic(
            f"the host {host!r} is unknown", why=str(error), do="look at the name"
        ) from (error)
    if not found:
        raise NotPublic(f"the host {host!r} has no address", do="look at the name")
    for address in found:
        why = _why_not(address, allow_private=allow_private)
        if why:
            raise NotPublic(
                f"{host!r} is not a public host",
                why=f"its address {address} is {why}",
                do="give a public one, or let an administrator register it",
            )
    return found


def check_url(
    url: str, *, schemes: tuple[str, ...] = ("https",), allow_private: bool = False,
    resolve: Resolve | None = None,
) -> list[str]:  # fmt: skip
    """As `public_addresses`, of a URL without credentials."""
    try:
        parts = urlsplit(url)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError as error:
        raise UsageError(
            "that is no URL", why=str(error), do=f"write {schemes[0]}://HOST/"
        ) from error
    if parts.scheme not in schemes or not parts.hostname:
        raise UsageError("that is no URL for this", do=f"begin it with {' or '.join(schemes)}://")
    if parts.username is not None or parts.password is not None:
        raise UsageError("the URL has credentials in it", do="register a secret instead")
    return public_addresses(parts.hostname, port, allow_private=allow_private, resolve=resolve)


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]


def _why_not(text: str, *, allow_private: bool) -> str:
    address = ipaddress.ip_address(text.partition("%")[0])
    for inner in _within(address):
        if inner.is_link_local:
            return "link-local"  # for nobody: it is where clouds keep a machine's credentials
        if inner in _CREDENTIALS:
            return "a metadata service"
        if inner in _LOCAL_NAT64:
            return "translated by this network"  # to an IPv4 address at a place we do not know
        if inner.is_multicast or inner.is_unspecified:
            return "no address of a host"
        if not allow_private and (not inner.is_global or _is_site_local(inner)):
            return "loopback" if inner.is_loopback else "private or reserved"
    return ""


def _within(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address itself, and the IPv4 addresses that it may stand for."""
    found: list[ipaddress.IPv4Address | ipaddress.IPv6Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        found += [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
        if address.teredo is not None:
            found += list(address.teredo)
        if address in _NAT64 or (address in _IPV4_COMPATIBLE and int(address) > 0xFFFF):
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if address.ipv4_mapped is not None:
            found = found[1:]  # in itself it is neither public nor private
    return found


def _is_site_local(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local
