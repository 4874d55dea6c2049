"""Locations: what is understood, what is refused, and what is suggested instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from onward.errors import BadURL
from onward.stores import LocalStore, ObjectStore, display, is_local, join, open_store, parse
from onward.stores.urls import Location


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/data/out", Location("file", "", "/data/out")),
        ("/data//out/", Location("file", "", "/data/out")),
        ("/data/../out", Location("file", "", "/out")),
        ("/", Location("file", "", "/")),
        ("file:///data/out", Location("file", "", "/data/out")),
        ("file://localhost/data/my%20out", Location("file", "", "/data/my out")),
        ("s3://bucket", Location("s3", "bucket", "")),
        ("s3://bucket/", Location("s3", "bucket", "")),
        ("s3://my.bucket-1/a/b/", Location("s3", "my.bucket-1", "a/b")),
        ("s3://bucket/größe 1/#x%20", Location("s3", "bucket", "größe 1/#x%20")),
        ("gs://bucket/a", Location("gs", "bucket", "a")),
        ("az://container/a", Location("az", "container", "a")),
        (
            "obs://bucket/a?region=cn-north-4",
            Location("obs", "bucket", "a", {"region": "cn-north-4"}),
        ),
        (
            "s3://bucket/a?endpoint=http://127.0.0.1:9000&virtual_hosted=false",
            Location(
                "s3",
                "bucket",
                "a",
                {"endpoint": "http://127.0.0.1:9000", "virtual_hosted": "false"},
            ),
        ),
    ],
)
def test_understood(url: str, expected: Location) -> None:
    """A location is read as meant, and its one written form reads back equal."""
    assert parse(url) == expected
    assert parse(parse(url).url) == expected


def test_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a scheme it is a path: made absolute, `~` expanded, odd names and all."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert parse("out").prefix == str(tmp_path / "out")
    assert parse("../out").prefix == str(tmp_path.parent / "out")
    assert parse("a:b?c").prefix == str(tmp_path / "a:b?c")
    assert parse("s3/b").prefix == str(tmp_path / "s3/b")
    assert parse("~/out").prefix == "/home/ada/out"
    assert parse(Path("out")).prefix == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("url", "suggestion"),
    [
        ("", "write a path"),
        ("   ", "write a path"),
        ("a\0b", "control characters"),
        ("s3://bucket/a\nb", "control characters"),
        (" s3://bucket", "space"),
        ("s3://bucket ", "space"),
        ("s3:/bucket/a", "did you mean s3://bucket/a"),
        ("s3:bucket/a", "did you mean s3://bucket/a"),
        ("s3//bucket/a", "did you mean s3://bucket/a"),
        ("S3:/bucket", "did you mean s3://bucket"),
        ("gs:/bucket", "did you mean gs://bucket"),
        ("file:/data", "did you mean file:///data"),
        ("file://data/out", "did you mean file:///data/out"),
        ("file:///data?x=1", "did you mean /data"),
        ("S3://bucket/a", "did you mean s3://bucket/a"),
        ("s4://bucket/a", "did you mean s3://bucket/a"),
        ("s3a://bucket/a", "did you mean s3://bucket/a"),
        ("ob://bucket/a", "did you mean obs://bucket/a"),
        ("gcs://bucket/a", "did you mean gs://bucket/a"),
        ("abfs://container/a", "did you mean az://container/a"),
        ("https://host:9000/bucket/a", "s3://bucket/a?endpoint=https://host:9000"),
        ("ftp://host/a", "known kinds are s3, obs, gs, az, file"),
        ("s3://", "names no bucket"),
        ("s3:///a", "did you mean s3://BUCKET/a"),
        ("s3://-/a", "cannot be a bucket"),
        ("s3://bu cket/a", "cannot be a bucket"),
        ("s3://bucket/a/../b", "did you mean s3://bucket/a/b"),
        ("s3://bucket//a", "did you mean s3://bucket/a"),
        ("s3://bucket/./a", "did you mean s3://bucket/a"),
        ("s3://bucket/a\\b", "backslash"),
        ("s3://bucket/a?endpiont=http://x", "unknown options: endpiont"),
        ("gs://bucket/a?region=x", "unknown options: region"),
        ("s3://bucket/a?endpoint=host:9000", "write it like"),
        ("s3://bucket/a?endpoint=", "write it like"),
        ("s3://bucket/a?virtual_hosted=yes", "neither true nor false"),
    ],
)
def test_refused(url: str, suggestion: str) -> None:
    """What is mistyped is `BadURL`, and the message says what was probably meant."""
    with pytest.raises(BadURL) as caught:
        parse(url)
    assert suggestion in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "s3://key:hunter2@bucket/a",
        "S3://key:hunter2@bucket/a",
        "s3:/key:hunter2@bucket/a",
        "https://key:hunter2@host/bucket",
        "s3://bucket/a?secret_access_key=hunter2",
        "s3://bucket/a?endpoint=http://key:hunter2@host",
        "s4://bucket/a?secret=hunter2",
        "s3:/bucket/a?secret=hunter2",
        "https://host/bucket?X-Amz-Signature=hunter2",
    ],
)
def test_credentials_in_a_url(url: str) -> None:
    """They are refused, and the message does not repeat them."""
    with pytest.raises(BadURL) as caught:
        parse(url)
    assert "hunter2" not in str(caught.value)


def test_display() -> None:
    """Messages show a location without its options."""
    assert display("s3://bucket/a/?endpoint=http://127.0.0.1:1") == "s3://bucket/a"
    assert display("gs://bucket") == "gs://bucket"
    assert display("file:///data/out") == "/data/out"


@pytest.mark.parametrize(
    ("url", "parts", "expected"),
    [
        ("s3://bucket", ["a"], "s3://bucket/a"),
        ("s3://bucket/a/", ["b", "c/d"], "s3://bucket/a/b/c/d"),
        ("s3://bucket/a?region=eu", ["b"], "s3://bucket/a/b?region=eu"),
        ("/data", ["a", "b"], "/data/a/b"),
        ("/", ["a"], "/a"),
        ("/data", [], "/data"),
    ],
)
def test_join(url: str, parts: list[str], expected: str) -> None:
    """Parts go below the location and before its options."""
    assert join(url, *parts) == expected
    assert parse(join(url, *parts)).url == expected


@pytest.mark.parametrize("part", ["..", "../a", "/a", "", "a//b"])
def test_join_of_what_would_lead_elsewhere(part: str) -> None:
    """Only plain relative parts can be joined."""
    with pytest.raises(BadURL):
        join("s3://bucket/a", part)


def test_is_local() -> None:
    """Paths and file URLs are local; buckets are not."""
    assert is_local("out")
    assert is_local("file:///out")
    assert not is_local("s3://bucket")


def test_open_store(tmp_path: Path) -> None:
    """A path opens a folder, an object URL a bucket; neither is touched by that."""
    local = open_store(tmp_path / "out")
    assert isinstance(local, LocalStore)
    assert local.folder == tmp_path / "out"
    assert not local.folder.exists()
    keys = {"AWS_ACCESS_KEY_ID": "ak", "AWS_SECRET_ACCESS_KEY": "sk"}
    remote = open_store("s3://bucket/a?endpoint=http://127.0.0.1:9", environment=keys)
    assert isinstance(remote, ObjectStore)
    assert remote.url == "s3://bucket/a"
