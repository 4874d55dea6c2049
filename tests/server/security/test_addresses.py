"""Where the server lets itself be sent: to public hosts, by the addresses that were looked at."""

from __future__ import annotations

import pytest

from onward.errors import UsageError
from onward.server.security.addresses import NotPublic, check_url, public_addresses

PRIVATE = [
    "127.0.0.1", "127.255.255.254", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
    "169.254.169.254", "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
    "ff02::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a9fe:a9fe::",
    "2001:0:7f00:1::", "2001:db8::1", "::127.0.0.1", "::a9fe:a9fe", "::a00:1", "fec0::1",
    "64:ff9b:1::a9fe:a9fe",
]  # fmt: skip


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    """Also where one of several is, and however IPv4 hides in IPv6."""
    with pytest.raises(NotPublic):
        public_addresses("a.example", 443, resolve=lambda host, port: [address])
    with pytest.raises(NotPublic):
        public_addresses("a.example", 443, resolve=lambda host, port: ["8.8.8.8", address])


CREDENTIALS = [
    "169.254.169.254", "::ffff:169.254.169.254", "::169.254.169.254", "fe80::1", "fd00:ec2::254",
    "fd20:ce::254", "100.100.100.200", "::ffff:100.100.100.200", "168.63.129.16", "192.0.0.192",
    "64:ff9b:1::a9fe:a9fe",
]  # fmt: skip


@pytest.mark.parametrize("address", CREDENTIALS)
def test_metadata_services_are_refused_even_where_private_is_allowed(address: str) -> None:
    """Clouds keep the credentials of a machine there: link-local mostly, but not always."""
    with pytest.raises(NotPublic, match="not a public host"):
        public_addresses("a", 80, allow_private=True, resolve=lambda host, port: [address])


def test_private_addresses_are_good_where_an_administrator_said_so() -> None:
    """And public ones always; each once."""
    found = public_addresses("a", 80, allow_private=True, resolve=lambda host, port: ["10.0.0.1"])
    assert found == ["10.0.0.1"]
    twice = ["8.8.8.8", "8.8.8.8", "2606:4700::1111"]
    assert public_addresses("a", 80, resolve=lambda host, port: twice) == twice[1:]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost", "[::1]"]
)
def test_other_ways_to_write_loopback_are_seen_through(host: str) -> None:
    """What counts is what the system would connect to, or else the URL is refused."""
    with pytest.raises(UsageError):
        check_url(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "http://a.example", "ftp://a.example", "file:///etc/passwd", "gopher://a.example", "//a",
        "https://", "https://user:key@a.example", "https://a.example:99999", "https://[::1", "",
        "https://user@127.0.0.1", "https://no.such.host.invalid/",
    ],
)  # fmt: skip
def test_what_is_no_plain_url_of_a_public_host_is_refused(url: str) -> None:
    """Typed, and without the credentials that it holds."""
    with pytest.raises(UsageError) as caught:
        check_url(url)
    assert "key" not in str(caught.value)
