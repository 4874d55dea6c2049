"""`onward serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.servers import free_ports

_START_S = 60.0


@dataclass
class ServerProcess:
    """A server in `folder`, on a free port of loopback. Killed, its jobs go on."""

    folder: Path
    database: str = ""
    options: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    certificate: Path | None = None
    token: str = ""
    port: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http{'s' if self.certificate else ''}://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What all its lives printed."""
        return self.folder / "serve.log"

    def start(self) -> None:
        """Starts it, the first time on a free port; returns when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = self.port or free_ports(1)[0]
        command = [
            sys.executable, "-m", "onward.cli", "serve", "--folder", str(self.folder / "server"),
            "--port", str(self.port), *self.options,
        ]  # fmt: skip
        if self.database:
            command += ["--database", self.database]
        home = {"ONWARD_HOME": str(self.folder / "home")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env={**os.environ, **home, **self.environment},
            )  # fmt: skip
        end_s = time.monotonic() + _START_S
        while not self._answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end_s, self.log.read_text()
            time.sleep(0.02)
        found = re.search(r"\bonw_[\w-]+", self.log.read_text())
        if found and not self.token:
            self.token = found.group()

    def client(self, *, timeout_s: float = 30.0) -> httpx2.Client:
        """As the administrator whose token the first start printed."""
        return httpx2.Client(
            base_url=self.url, headers={"authorization": f"Bearer {self.token}"},
            timeout=timeout_s, verify=self._trust(),
        )  # fmt: skip

    def kill(self) -> None:
        """As a power cut would."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """As an administrator would; returns its exit status."""
        return self._end(signal.SIGTERM)

    def _end(self, number: int) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        try:
            status = self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        self.process = None
        return status

    def _trust(self) -> Any:
        if self.certificate is None:
            return True
        return ssl.create_default_context(cafile=str(self.certificate))

    def _answers(self) -> bool:
        try:
            httpx2.get(self.url, timeout=5, verify=self._trust())
        except httpx2.TransportError:
            return False
        return True
