"""A real PostgreSQL, from the system's packages, reached by a socket in a folder of its own."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

_START_S = 60.0
_OPTIONS = ("fsync=off", "full_page_writes=off", "synchronous_commit=off", "max_connections=300")
"""Nothing here needs to outlive the machine."""


@dataclass
class PostgreSQL:
    """A running cluster. Each test gets a database of its own, copied from a template."""

    folder: Path
    _made: int = 0
    _templates: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> str:
        """For SQLAlchemy."""
        return f"postgresql://postgres@/{name}?host={self.folder}"

    def new_database(self, prepare: Callable[[str], None] | None = None) -> str:
        """The URL of a new database; `prepare` fills the template that it is copied from."""
        template = "template1"
        if prepare is not None:
            template = self._templates.get(prepare.__qualname__, "")
            if not template:
                template = self._create("template1")
                prepare(self.url(template))
                self._templates[prepare.__qualname__] = template
        return self.url(self._create(template))

    def _create(self, template: str) -> str:
        self._made += 1
        name = f"onward{self._made}"
        with psycopg.connect(
            f"host={self.folder} user=postgres dbname=postgres", autocommit=True
        ) as connection:
            connection.execute(f'CREATE DATABASE {name} TEMPLATE "{template}"'.encode())
        return name


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """Starts a cluster; it ends with the context, or with this process."""
    programs = _programs()
    # Not in pytest's folder: a socket's path is short, and postgres is another user.
    folder = Path(tempfile.mkdtemp(prefix="onward-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user:
        shutil.chown(folder, user, user)
    try:
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", "postgres", "-N"],
            check=True, capture_output=True, user=user, group=user, cwd=folder,
            extra_groups=[] if user else None,
        )  # fmt: skip
        options = [word for option in _OPTIONS for word in ("-c", option)]
        process = subprocess.Popen(
            [programs / "postgres", "-D", folder / "data", "-k", folder, "-h", "", *options],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=user, group=user, cwd=folder,
            extra_groups=[] if user else None, preexec_fn=_end_with_parent,
        )  # fmt: skip
        try:
            _wait(folder, process)
            yield PostgreSQL(folder)
        finally:
            process.send_signal(signal.SIGINT)  # ends sessions, then itself
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[-2]))
    if found:
        return found[-1]
    on_path = shutil.which("initdb")
    if on_path is None:
        raise RuntimeError("PostgreSQL is not installed: scripts/install-test-programs does it")
    return Path(on_path).resolve().parent


def _wait(folder: Path, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + _START_S
    while True:
        try:
            psycopg.connect(f"host={folder} user=postgres dbname=postgres").close()
        except psycopg.OperationalError:
            if process.poll() is not None or time.monotonic() > end_s:
                raise
            time.sleep(0.02)
        else:
            return


def _end_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGINT)
