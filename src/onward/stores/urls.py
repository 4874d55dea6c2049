"""Where bytes are: paths and object-store URLs, understood, refused politely, and shown safely."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from onward.errors import BadURL
from onward.stores.base import checked_key

SCHEMES = {
    "s3": "Amazon S3 and everything that speaks its protocol",
    "obs": "Huawei OBS",
    "gs": "Google Cloud Storage",
    "az": "Azure Blob Storage",
    "file": "a folder",
}
_S3_OPTIONS = ("endpoint", "region", "virtual_hosted")
OPTIONS = {"s3": _S3_OPTIONS, "obs": _S3_OPTIONS, "gs": ("endpoint",), "az": ("endpoint",)}

_HAS_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
_MISTYPED = re.compile(r"(s3a?|obs|gs|gcs|az|file)(:/?|//)(?!/)", re.IGNORECASE)
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._\-]{2,254}")
_OTHER_NAMES = {"s3a": "s3", "s3n": "s3", "gcs": "gs", "azure": "az", "abfs": "az", "abfss": "az"}


@dataclass(frozen=True, slots=True)
class Location:
    """A place for objects: a folder (`scheme` is `file`), or a prefix in a bucket.

    `prefix` has no slash at either end. For a folder it is the absolute path, `bucket` is empty.
    """

    scheme: str
    bucket: str
    prefix: str
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}), hash=False)

    @property
    def is_local(self) -> bool:
        return self.scheme == "file"

    @property
    def display(self) -> str:
        """For messages and lists: without options, and there is nowhere to put credentials."""
        if self.is_local:
            return self.prefix
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    @property
    def url(self) -> str:
        """The one way to write this location, which `parse` reads back equal."""
        query = "&".join(f"{name}={quote(self.options[name], safe=':/')}" for name in self.options)
        return self.display + (f"?{query}" if query else "")


def parse(url: str | os.PathLike[str]) -> Location:
    """Understand a path or URL, or raise `BadURL` with what was probably meant.

    Object stores: `s3://bucket/prefix`, `obs://`, `gs://`, `az://`, optionally followed by
    `?endpoint=https://host&region=name&virtual_hosted=true`. Everything without a scheme is a
    path, made absolute; `~` is the home folder.
    """
    text = os.fspath(url)
    _refuse_unprintable(text)
    match = _HAS_SCHEME.match(text)
    if match is None:
        _refuse_mistyped(text)
        return _folder(Path(text))
    scheme = match.group(1)
    if scheme not in SCHEMES:
        raise _unknown_scheme(text, scheme)
    rest = text[match.end() :]
    return _from_file_url(text) if scheme == "file" else _in_bucket(scheme, rest)


def is_local(url: str | os.PathLike[str]) -> bool:
    """Whether `url` is a folder on this machine."""
    return parse(url).is_local


def display(url: str | os.PathLike[str]) -> str:
    """`url` as messages show it: normalised, without options or credentials."""
    return parse(url).display


def join(url: str | os.PathLike[str], *parts: str) -> str:
    """The URL of `parts` below `url`, its options kept. Parts are keys, as `checked_key` says."""
    location = parse(url)
    for part in parts:
        checked_key(part)
    prefix = "/".join([*([location.prefix.rstrip("/")] if location.prefix else []), *parts])
    return Location(location.scheme, location.bucket, prefix, location.options).url


def _folder(path: Path) -> Location:
    return Location("file", "", os.path.abspath(path.expanduser()))


def _from_file_url(text: str) -> Location:
    parts = urlsplit(text)
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise _bad(text, "a file URL needs an absolute path", f"file:///{parts.netloc}{parts.path}")
    path = unquote(parts.path)
    _refuse_unprintable(path)
    if parts.query or parts.fragment:
        raise _bad(text, "a file URL has no options", path)
    return _folder(Path(path))


def _in_bucket(scheme: str, rest: str) -> Location:
    path, _, query = rest.partition("?")
    bucket, _, prefix = path.partition("/")
    shown = f"{scheme}://{bucket.rpartition('@')[2]}/{prefix}".rstrip("/")
    if "@" in bucket:
        raise _bad(shown, "credentials do not belong in a URL", shown, "put them in environment")
    if not bucket:
        raise _bad(f"{scheme}://{path}", "it names no bucket", f"{scheme}://BUCKET/{prefix}")
    if not _BUCKET.fullmatch(bucket):
        why = f"{bucket!r} cannot be a bucket: three or more letters, digits, '.', '-' or '_'"
        raise _bad(shown, why, "")
    prefix = prefix.rstrip("/")
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts) or "\\" in prefix:
        kept = [part for part in parts if part not in ("", ".", "..") and "\\" not in part]
        suggestion = "/".join([f"{scheme}://{bucket}", *kept])
        raise _bad(shown, "its path has empty parts, '.', '..' or a backslash", suggestion)
    return Location(scheme, bucket, prefix, MappingProxyType(_options(scheme, shown, query)))


def _options(scheme: str, shown: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - set(OPTIONS[scheme]))
    if unknown:
        # Their values may be secrets, so that only their names are shown.
        raise BadURL(
            f"{shown} has unknown options: {', '.join(unknown)}",
            why=f"known ones are {', '.join(OPTIONS[scheme])}",
            do="keep credentials in environment variables, not in URLs",
        )
    if options.get("virtual_hosted", "true") not in ("true", "false"):
        raise BadURL(f"{shown}: virtual_hosted is neither true nor false")
    if "endpoint" in options:
        check_endpoint(options["endpoint"])
    return {name: options[name] for name in OPTIONS[scheme] if name in options}


def check_endpoint(endpoint: str) -> str:
    """`endpoint` itself if it is `http(s)://host[:port]` and nothing more, else `BadURL`."""
    parts = urlsplit(endpoint)
    if parts.username or parts.password:
        raise BadURL("an endpoint has credentials in it", do="put them in environment variables")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadURL(f"{endpoint!r} is no endpoint", do="write it like https://s3.example.com:9000")
    if parts.query or parts.fragment:
        raise BadURL(f"{endpoint!r} is no endpoint", do="write it without '?' and '#'")
    return endpoint


def _refuse_unprintable(text: str) -> None:
    if not text.strip():
        raise BadURL("a location is empty", do="write a path or a URL such as s3://bucket/prefix")
    if any(ord(char) < 32 or ord(char) == 127 for char in text):
        raise BadURL("a location has control characters in it", why="it looks like a paste error")
    if text != text.strip():
        raise BadURL("a location begins or ends with a space", do="write it without")


def _refuse_mistyped(text: str) -> None:
    match = _MISTYPED.match(text)
    if match is not None:
        scheme = match.group(1).lower()
        scheme = _OTHER_NAMES.get(scheme, scheme)
        rest = text[match.end() :].lstrip("/").partition("?")[0].rpartition("@")[2]
        root = "/" if scheme == "file" else ""
        mistyped = text.partition("?")[0] if "@" not in text else match.group(0) + "..."
        reason = f"a URL begins with {scheme}://"
        other = "" if ":" in match.group(2) else f", or ./{mistyped} if it is a folder"
        raise _bad(mistyped, reason, f"{scheme}://{root}{rest}", other)


def _unknown_scheme(text: str, scheme: str) -> BadURL:
    shown = text.partition("?")[0]
    rest = shown[len(scheme) + 3 :].rpartition("@")[2]
    if scheme.lower() in ("http", "https"):
        host, _, path = rest.partition("/")
        suggestion = f"s3://{path or 'BUCKET'}?endpoint={scheme.lower()}://{host}"
        return _bad(f"{scheme}://{rest}", "a web address is not an output", suggestion)
    known = _OTHER_NAMES.get(scheme.lower(), scheme.lower())
    nearest = get_close_matches(known, SCHEMES, n=1, cutoff=0.3)
    suggestion = f"{nearest[0]}://{rest}" if nearest else ""
    return _bad(f"{scheme}://{rest}", f"known kinds are {', '.join(SCHEMES)}", suggestion)


def _bad(shown: str, why: str, suggestion: str, other: str = "") -> BadURL:
    did_you_mean = f"did you mean {suggestion}" if suggestion else ""
    return BadURL(f"{shown!r} is no location", why=why, do=did_you_mean + (other and f"{other}"))
