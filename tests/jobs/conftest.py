"""Fixtures for jobs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.jobs.bench import Bench
from tests.servers import S3Server


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder of its own, with working copies inside."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    return Bench(tmp_path, os.environ)


@pytest.fixture
def s3_url(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    bench: Bench,
) -> Callable[[str], str]:  # fmt: skip
    """URLs of a place of this test's own on a real server, whose keys are in the environment."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
        bench.environment[name] = value
    place = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)
    return lambda name: seaweedfs.url(f"jobs/{place}/{name}")
