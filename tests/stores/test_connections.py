"""Settings of object-store clients: which endpoint, region and keys win."""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from onward.errors import BadURL, UsageError
from onward.stores import parse
from onward.stores.connections import Keys, connection

AWS = {"AWS_ACCESS_KEY_ID": "aws-key", "AWS_SECRET_ACCESS_KEY": "aws-secret"}
OBS = {"OBS_ACCESS_KEY_ID": "obs-key", "OBS_SECRET_ACCESS_KEY": "obs-secret"}
CLOUD = "https://obs.cn-north-4.myhuaweicloud.com"


@pytest.mark.parametrize(
    ("url", "environment", "endpoint", "region", "virtual_hosted"),
    [
        ("s3://bucket", {}, None, "us-east-1", False),
        ("s3://bucket", {"AWS_REGION": "eu", "AWS_DEFAULT_REGION": "us"}, None, "eu", False),
        ("s3://bucket", {"AWS_DEFAULT_REGION": "us"}, None, "us", False),
        ("s3://bucket?region=ap", {"AWS_REGION": "eu"}, None, "ap", False),
        ("s3://bucket", {"AWS_ENDPOINT_URL": "http://a:1"}, "http://a:1", "us-east-1", False),
        (
            "s3://bucket",
            {"AWS_ENDPOINT_URL": "http://a:1", "AWS_ENDPOINT_URL_S3": "http://b:2/"},
            "http://b:2",
            "us-east-1",
            False,
        ),
        (
            "s3://bucket?endpoint=https://c:3",
            {"AWS_ENDPOINT_URL_S3": "http://b:2"},
            "https://c:3",
            "us-east-1",
            False,
        ),
        (
            "s3://bucket?endpoint=https://c:3&virtual_hosted=true",
            {},
            "https://bucket.c:3",
            "us-east-1",
            True,
        ),
        (
            "obs://bucket",
            {"OBS_ENDPOINT": CLOUD, **OBS},
            "https://bucket.obs.cn-north-4.myhuaweicloud.com",
            "cn-north-4",
            True,
        ),
        (
            "obs://bucket",
            {"OBS_ENDPOINT": "obs.cn-north-4.myhuaweicloud.com", **OBS},
            "https://bucket.obs.cn-north-4.myhuaweicloud.com",
            "cn-north-4",
            True,
        ),
        (
            "obs://bucket",
            {"OBS_ENDPOINT": "https://bucket.obs.cn-north-4.myhuaweicloud.com", **OBS},
            "https://bucket.obs.cn-north-4.myhuaweicloud.com",
            "us-east-1",
            True,
        ),
        (
            f"obs://bucket?endpoint={CLOUD}&region=r&virtual_hosted=false",
            {"OBS_ENDPOINT": "https://elsewhere", "OBS_REGION": "x", **OBS},
            CLOUD,
            "r",
            False,
        ),
        ("obs://bucket?endpoint=http://127.0.0.1:9", OBS, "http://127.0.0.1:9", "us-east-1", False),
    ],
)
def test_s3_protocol(
    url: str,
    environment: dict[str, str],
    endpoint: str | None,
    region: str,
    virtual_hosted: bool,
) -> None:
    """The URL's own option wins, then the most specific variable, then the default."""
    config = connection(parse(url), environment).config
    assert config.get("endpoint") == endpoint
    assert config.get("aws_endpoint_url_s3") == endpoint
    assert config["region"] == region
    assert config["virtual_hosted_style_request"] is virtual_hosted


@pytest.mark.parametrize(
    ("url", "environment", "keys"),
    [
        ("s3://bucket", {}, None),
        ("s3://bucket", AWS, Keys("aws-key", "aws-secret")),
        ("s3://bucket", {"AWS_SESSION_TOKEN": "t", **AWS}, Keys("aws-key", "aws-secret", "t")),
        ("s3://bucket", {"AWS_ACCESS_KEY_ID": "alone"}, None),
        (
            f"obs://bucket?endpoint={CLOUD}",
            {"AWS_SESSION_TOKEN": "t", **AWS, **OBS},
            Keys("obs-key", "obs-secret"),
        ),
        (f"obs://bucket?endpoint={CLOUD}", AWS, Keys("aws-key", "aws-secret")),
    ],
)
def test_keys(url: str, environment: dict[str, str], keys: Keys | None) -> None:
    """OBS has its own variables and falls back to Amazon's, but the two are never mixed."""
    assert connection(parse(url), environment).keys == keys


def test_keys_are_not_shown() -> None:
    """Not even by `repr`, in a traceback or a debugger."""
    assert "aws" not in repr(connection(parse("s3://bucket"), AWS))


@pytest.mark.parametrize(
    ("environment", "missing"),
    [(OBS, "OBS_ENDPOINT"), ({"OBS_ENDPOINT": CLOUD}, "OBS_ACCESS_KEY_ID")],
)
def test_obs_without_what_it_needs(environment: dict[str, str], missing: str) -> None:
    """The message names the variable to set."""
    with pytest.raises(UsageError, match=missing):
        connection(parse("obs://bucket"), environment)


@pytest.mark.parametrize("endpoint", ["host:9000", "ftp://host", "http://", "http://h/?a=b"])
def test_endpoint_variable_that_is_no_endpoint(endpoint: str) -> None:
    """A mistyped variable is refused like a mistyped URL."""
    with pytest.raises(BadURL):
        connection(parse("s3://bucket"), {"AWS_ENDPOINT_URL": endpoint})


def test_plain_http() -> None:
    """HTTP without TLS only where the endpoint says so itself."""
    assert connection(parse("s3://bucket"), {}).client_options["allow_http"] is False
    options = connection(parse("s3://bucket?endpoint=http://a:1"), {}).client_options
    assert options["allow_http"] is True
    options = connection(parse("s3://bucket?endpoint=https://a:1"), {}).client_options
    assert options["allow_http"] is False


@pytest.mark.parametrize(
    ("url", "name"), [("gs://bucket", "base_url"), ("az://bucket", "endpoint")]
)
def test_google_and_azure(url: str, name: str) -> None:
    """They read their own variables; only an endpoint can be given."""
    assert connection(parse(url), AWS).config == {}
    given = connection(parse(f"{url}?endpoint=http://127.0.0.1:1"), {})
    assert given.config == {name: "http://127.0.0.1:1"}
    assert given.client_options["allow_http"] is True


def test_deadline() -> None:
    """One number sets the limits of silence and of repeating."""
    limits = connection(parse("s3://bucket"), {}, deadline_s=2)
    assert limits.client_options["read_timeout"] == timedelta(seconds=2)
    assert limits.client_options["connect_timeout"] == timedelta(seconds=2)
    assert limits.retries["retry_timeout"] == timedelta(seconds=2)


@pytest.mark.parametrize(
    ("url", "name", "setting"),
    [
        ("gs://bucket/x", "GOOGLE_SERVICE_ACCOUNT_KEY", "google_service_account_key"),
        ("az://bucket/x", "AZURE_STORAGE_ACCOUNT_KEY", "azure_storage_account_key"),
    ],
)
def test_google_and_azure_take_an_environment_that_is_given(
    url: str, name: str, setting: str
) -> None:
    """Their clients read only the process's own, which belongs to somebody else in a server."""
    given = {name: "the key", "AWS_ACCESS_KEY_ID": "another", "PATH": "/bin"}
    assert connection(parse(url), given).config == {setting: "the key"}
    assert connection(parse(url), os.environ).config == {}
