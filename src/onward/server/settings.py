"""What an administrator chooses when the server starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from onward.training.places import home

PORT = 8420


@dataclass(frozen=True, slots=True)
class Settings:
    """All but the folder have a default that is safe on one machine.

    `database` is a SQLAlchemy URL; by default a SQLite file in `folder`. `hosts` are names that
    the server answers to beside loopback's. Sizes are in bytes, durations in seconds.
    """

    folder: Path = field(default_factory=lambda: home() / "server")
    database: str = ""
    host: str = "127.0.0.1"
    port: int = PORT
    hosts: tuple[str, ...] = ()
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    insecure_without_tls: bool = False
    slots: int = 2
    job_user: str = ""
    longest_body: int = 1 << 20
    longest_upload: int = 64 << 20
    requests_per_s: float = 1000.0
    connections: int = 512
    session_s: float = 12 * 3600.0
    tick_s: float = 0.2
    first_backoff_s: float = 10.0
    longest_backoff_s: float = 360.0
    watch_every_s: float = 30.0
    longest_log: int = 1 << 30
    log_format: str = "text"

    @property
    def database_url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'onward.db'}"

    @property
    def attempts(self) -> Path:
        """A folder for each attempt (`engines/base.py`)."""
        return self.folder / "attempts"

    @property
    def code(self) -> Path:
        """Pinned code, a folder for each digest."""
        return self.folder / "code"

    @property
    def secrets(self) -> Path:
        """A file of mode 0600 for each secret. They are in no database."""
        return self.folder / "secrets"
