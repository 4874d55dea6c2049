"""How to reach a bucket: client settings from its location and the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from onward.errors import UsageError
from onward.stores.urls import Location, check_endpoint

_OBS_HOST = re.compile(r"obs\.([a-z0-9\-]+)\.myhuaweicloud\.(?:com|eu)")
_NUMERIC_HOST = re.compile(r"[0-9.]+|.*:.*|localhost")


@dataclass(frozen=True, slots=True)
class Keys:
    """Fixed credentials for S3 protocols. Never shown: not by `repr`, not in messages."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """What a client needs beside the bucket and prefix; `keys` is `None` where it finds its own."""

    config: dict[str, Any]
    client_options: dict[str, Any]
    retries: dict[str, Any]
    keys: Keys | None = None


def connection(
    location: Location, environment: Mapping[str, str], *, deadline_s: float = 60.0
) -> Connection:
    """Settings for `location`: its own options first, then environment variables, then defaults.

    A request that makes no progress for `deadline_s`, or keeps failing for as long, is given up.
    """
    if location.scheme == "obs":
        return _huawei_obs(location, environment, deadline_s)
    if location.scheme == "s3":
        return _amazon_s3(location, environment, deadline_s)
    # Google and Azure clients read their variables themselves, but only the process's own.
    prefix = "GOOGLE_" if location.scheme == "gs" else "AZURE_"
    config: dict[str, Any] = {}
    if environment is not os.environ:
        config = {
            name.lower(): value for name, value in environment.items() if name.startswith(prefix)
        }
    endpoint = location.options.get("endpoint")
    name = "base_url" if location.scheme == "gs" else "endpoint"
    return _connection(config | ({name: endpoint} if endpoint else {}), endpoint, deadline_s)


def _amazon_s3(location: Location, environment: Mapping[str, str], deadline_s: float) -> Connection:
    endpoint = location.options.get("endpoint") or _first(
        environment, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"
    )
    region = location.options.get("region") or _first(
        environment, "AWS_REGION", "AWS_DEFAULT_REGION"
    )
    style = location.options.get("virtual_hosted") or _first(
        environment, "AWS_VIRTUAL_HOSTED_STYLE_REQUEST"
    )
    return _s3_protocol(
        location,
        endpoint=endpoint,
        region=region or "us-east-1",
        virtual_hosted=(style or "false").lower() == "true",
        keys=_keys(environment, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"),
        deadline_s=deadline_s,
    )


def _huawei_obs(
    location: Location, environment: Mapping[str, str], deadline_s: float
) -> Connection:
    endpoint = location.options.get("endpoint") or _first(environment, "OBS_ENDPOINT")
    if endpoint is None:
        raise UsageError(
            f"{location.display} cannot be reached",
            why="nothing says where this OBS is",
            do="set OBS_ENDPOINT, for example to https://obs.cn-north-4.myhuaweicloud.com",
        )
    if "://" not in endpoint:  # as Huawei's own tools take it
        endpoint = f"https://{endpoint}"
    keys = _keys(environment, "OBS_ACCESS_KEY_ID", "OBS_SECRET_ACCESS_KEY", "OBS_SECURITY_TOKEN")
    keys = keys or _keys(
        environment, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"
    )
    if keys is None:
        raise UsageError(
            f"{location.display} cannot be reached",
            why="there are no keys for it",
            do="set OBS_ACCESS_KEY_ID and OBS_SECRET_ACCESS_KEY",
        )
    host = urlsplit(endpoint).hostname or ""
    known_host = _OBS_HOST.fullmatch(host)
    region = location.options.get("region") or _first(environment, "OBS_REGION")
    numeric = _NUMERIC_HOST.fullmatch(host) is not None
    style = location.options.get("virtual_hosted") or ("false" if numeric else "true")
    return _s3_protocol(
        location,
        endpoint=endpoint,
        region=region or (known_host.group(1) if known_host else "us-east-1"),
        virtual_hosted=style == "true",
        keys=keys,
        deadline_s=deadline_s,
    )


def _s3_protocol(
    location: Location,
    *,
    endpoint: str | None,
    region: str,
    virtual_hosted: bool,
    keys: Keys | None,
    deadline_s: float,
) -> Connection:
    config: dict[str, Any] = {
        "region": region,
        "virtual_hosted_style_request": virtual_hosted,
        # Signing the payload costs a SHA-256 of every byte; uploads are verified anyway.
        "unsigned_payload": True,
        # Not every store has the bulk request, and some demand a Content-MD5 with it.
        "disable_bulk_delete": True,
    }
    if endpoint is not None:
        endpoint = check_endpoint(endpoint).rstrip("/")
        parts = urlsplit(endpoint)
        if virtual_hosted and not parts.netloc.startswith(f"{location.bucket}."):
            endpoint = f"{parts.scheme}://{location.bucket}.{parts.netloc}{parts.path}"
        # Both names, or else the client lets AWS_ENDPOINT_URL_S3 overrule the URL's own option.
        config |= {"endpoint": endpoint, "aws_endpoint_url_s3": endpoint}
    return _connection(config, endpoint, deadline_s, keys)


def _connection(
    config: dict[str, Any], endpoint: str | None, deadline_s: float, keys: Keys | None = None
) -> Connection:
    return Connection(
        config=config,
        client_options={
            "allow_http": endpoint is not None and endpoint.startswith("http://"),
            "connect_timeout": timedelta(seconds=min(5.0, deadline_s)),
            # It limits silence, not the length of a big transfer; that gets a whole hour.
            "read_timeout": timedelta(seconds=deadline_s),
            "timeout": timedelta(hours=1),
        },
        retries={
            "max_retries": 100,  # the deadline is what ends them
            "retry_timeout": timedelta(seconds=deadline_s),
            "backoff": {
                # Less than the longest: the client panics where they are equal.
                "init_backoff": timedelta(seconds=min(0.1, deadline_s / 20)),
                "max_backoff": timedelta(seconds=min(5.0, deadline_s / 4)),
                "base": 2,
            },
        },
        keys=keys,
    )


def _keys(environment: Mapping[str, str], access: str, secret: str, token: str) -> Keys | None:
    access_key, secret_key = environment.get(access), environment.get(secret)
    if not access_key or not secret_key:
        return None
    return Keys(access_key, secret_key, environment.get(token) or None)


def _first(environment: Mapping[str, str], *names: str) -> str | None:
    return next((environment[name] for name in names if environment.get(name)), None)
