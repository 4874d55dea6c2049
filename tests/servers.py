"""Real S3 servers on loopback, started when a test first asks for one, stopped at the end."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from onward.errors import Missing, StoreError
from onward.stores import ObjectStore, parse

ACCESS_KEY = "ak12345"
SECRET_KEY = "sk12345678"
BUCKET = "onward-test"
_START_S = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running server with one bucket. `environment` holds its keys, for this or a new process."""

    endpoint: str
    environment: Mapping[str, str]

    def url(self, prefix: str) -> str:
        """Where `prefix` is in the bucket; each test takes a prefix of its own."""
        return f"s3://{BUCKET}/{prefix}?endpoint={self.endpoint}&region=us-east-1"

    def store(self, prefix: str, *, deadline_s: float = 20.0) -> ObjectStore:
        """A store at `prefix`."""
        location = parse(self.url(prefix))
        return ObjectStore(location, deadline_s=deadline_s, environment=self.environment)


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS: an S3 server that honours create-if-absent."""
    with seaweedfs_in(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """`rclone serve s3`: an S3 server that ignores create-if-absent without a word."""
    folder = tmp_path_factory.mktemp("rclone")
    (folder / BUCKET).mkdir()
    with _server(_rclone_command, folder) as server:
        yield server


def seaweedfs_in(folder: Path) -> AbstractContextManager[S3Server]:
    """SeaweedFS with its volumes in `folder`, for as long as the context lasts."""
    return _server(_seaweedfs_command, folder)


def free_ports(count: int) -> list[int]:
    """Port numbers that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _seaweedfs_command(folder: Path, ports: Sequence[int]) -> list[str]:
    names = ["s3", "master", "volume", "filer", "admin"]
    http = [f"-{name}.port={port}" for name, port in zip(names, ports, strict=False)]
    grpc = [f"-{name}.port.grpc={port}" for name, port in zip(names, ports[5:], strict=True)]
    return [
        _program("weed"),
        "-logtostderr",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *http,
        *grpc,
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        f"-bucket={BUCKET}",
        "-s3.autoCreateBucket=false",
        "-master.telemetry=false",
        "-admin.ui=false",
        "-webdav=false",
    ]


def _rclone_command(folder: Path, ports: Sequence[int]) -> list[str]:
    return [
        _program("rclone"),
        "--config=/dev/null",
        "serve",
        "s3",
        str(folder),
        f"--addr=127.0.0.1:{ports[0]}",
        f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
    ]


def _program(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


@contextmanager
def _server(command: object, folder: Path) -> Iterator[S3Server]:
    """A server that answers, on ports of its own; another try where a port was taken meanwhile."""
    assert callable(command)
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    for attempt in range(3):
        ports = free_ports(10)
        log = folder.with_name(f"{folder.name}-{attempt}.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(folder, ports),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **keys},
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )
        try:
            server = S3Server(f"http://127.0.0.1:{ports[0]}", keys)
            if _answers(server, process):
                yield server
                return
        finally:
            _stop(process)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


def _answers(server: S3Server, process: subprocess.Popen[bytes]) -> bool:
    store = server.store("ready", deadline_s=1)
    end = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < end:
        try:
            store.read("ready")
        except Missing:
            return True  # it knows the bucket
        except StoreError:
            time.sleep(0.05)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    # Tests that are killed must not leave servers behind.
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
