"""Code from git: one commit over https, never its hooks, submodules, filters or other protocols.

git fetches into an empty repository that nobody configured and nothing is checked out of: what the
commit holds comes out as a tar (`git archive`), which has to pass the same checks as every other.
"""

from __future__ import annotations

import base64
import os
import re
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO
from urllib.parse import urlsplit

from onward.errors import UsageError
from onward.server.code.archives import unpack_tar
from onward.server.code.limits import Limits
from onward.server.code.tree import Tree
from onward.server.problems import BadCode

Addresses = Callable[[str, int], Sequence[str]]
"""The addresses of a host that a server may talk to. Raises an `OnwardError` if there is none."""

_LOOK_EVERY_S = 0.05
_MEMORY_BYTES = 4 << 30
_OLDEST = (2, 37)
"""Knows `http.curloptResolve`; an older one passes over it without a word."""
_PASSED_ON = (
    "PATH", "https_proxy", "HTTPS_PROXY", "no_proxy", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "GIT_SSL_CAINFO",
)  # fmt: skip


def gather_git(
    url: str, revision: str, tree: Tree, *, addresses: Addresses, password: str = ""
) -> str:
    """Gives the files of a commit to `tree` and returns the commit's full name.

    `revision` is a branch, a tag or a commit's full name; '' is what the host gives by default.
    `password` is what the host asks for: a token, or `user:token`. Raises `BadCode`.
    """
    host, port = _checked(url)
    _check_git(_version())
    found = addresses(host, port)
    with tempfile.TemporaryDirectory(prefix="onward-git-") as temporary:
        folder = Path(temporary, "repository")
        _run(["init", "--quiet", "--bare", str(folder)], Path(temporary), tree.limits)
        # Fetched from the addresses that were looked at: a name may mean others by now.
        pinned = f"{host}:{port}:{','.join(_bracketed(address) for address in found)}"
        _run(
            [
                "-c", "protocol.allow=never", "-c", "protocol.https.allow=always",
                "-c", f"http.curloptResolve={pinned}", "-c", "http.followRedirects=false",
                "-c", "credential.helper=", "-c", "http.lowSpeedLimit=1000",
                "-c", "http.lowSpeedTime=30", "-c", "fetch.unpackLimit=1",
                "-c", "submodule.recurse=false",
                "-C", str(folder), "fetch", "--quiet", "--depth=1", "--no-tags",
                "--no-recurse-submodules", "--no-write-commit-graph", "--no-auto-maintenance",
                "--", url, revision or "HEAD",
            ],
            Path(temporary), tree.limits, secrets=_authorized(host, port, password),
        )  # fmt: skip
        commit = _run(
            ["-C", str(folder), "rev-parse", "--verify", "FETCH_HEAD^{commit}"], Path(temporary),
            tree.limits,
        ).decode().strip()  # fmt: skip
        archive = Path(temporary, "archive.tar")
        _run(
            ["-C", str(folder), "archive", "--format=tar", f"--output={archive}", commit],
            Path(temporary), tree.limits,
        )  # fmt: skip
        with open(archive, "rb") as file:
            unpack_tar(file, tree)
    return commit


@cache
def _version() -> str:
    if shutil.which("git") is None:
        raise UsageError("git is not installed on the server", do="install it, or send an archive")
    told = subprocess.run(
        ["git", "version"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=30
    )
    return told.stdout.decode("ascii", "replace").strip()


def _check_git(version: str) -> None:
    """Raises `UsageError` for a git that passes over the addresses that were looked at."""
    found = re.match(r"git version (\d+)\.(\d+)", version)
    if found is None or (int(found[1]), int(found[2])) < _OLDEST:
        raise UsageError(
            f"the server's git is too old ({version[:60]})",
            why="older ones look a host up again, which may be another place by then",
            do=f"install git {_OLDEST[0]}.{_OLDEST[1]} or newer, or send an archive",
        )


def _checked(url: str) -> tuple[str, int]:
    """Host and port of an https URL. Raises `BadCode` for every other kind of place."""
    if not url.isascii() or any(char <= " " or char in "\\\x7f" for char in url):
        # What one reader of URLs strips, another one takes for a part of the host.
        raise BadCode(
            "the address of the git repository has characters that no URL has",
            why="spaces, controls, backslashes, or letters beyond ASCII",
            do="write https://HOST/PATH.git, with %XX for other characters of a path",
        )
    try:
        parts = urlsplit(url)
        port = parts.port or 443
    except ValueError as error:
        raise BadCode("the address of the git repository cannot be read", why=str(error)) from error
    if parts.username is not None or parts.password is not None:
        raise BadCode(
            "there are credentials in the address of the git repository",
            why="whoever sees the job would see them",
            do="keep them as a secret, and name it: secret = NAME",
        )
    if parts.scheme != "https" or "::" in url.partition("//")[0] or not parts.hostname:
        raise BadCode(
            f"git code comes over https, not from {url.partition('?')[0][:200]!r}",
            why="of git's ways only https is open here",
            do="write https://HOST/PATH.git, or send the code as an archive",
        )
    # With a dot at its end it would be another name than the one that addresses are given for.
    host = parts.hostname
    if not re.fullmatch(r"[a-z0-9.:-]+", host) or host.endswith(".") or parts.fragment:
        raise BadCode(f"{parts.hostname[:200]!r} is no host", do="write https://HOST/PATH.git")
    return parts.hostname, port


def _authorized(host: str, port: int, password: str) -> dict[str, str]:
    """Variables by which git shows a password to this host and to no other.

    Not arguments: those of a process are seen by everybody on the machine.
    """
    if not password:
        return {}
    if not password.isprintable():
        raise BadCode(
            "the secret for the git repository is no password", why="it has line breaks in it",
            do="keep a token in it, or user:token",
        )  # fmt: skip
    pair = password if ":" in password else f"x-access-token:{password}"
    shown = base64.b64encode(pair.encode()).decode()
    place = f"{_bracketed(host)}:{port}" if port != 443 else _bracketed(host)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.https://{place}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: Basic {shown}",
    }


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _run(
    arguments: list[str], home: Path, limits: Limits, *, secrets: Mapping[str, str] | None = None
) -> bytes:
    """git, alone with its own folder, within limits of time, memory and disk.

    `secrets` are variables whose values are never told.
    """
    environment = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    environment |= {
        **(secrets or {}),
        "HOME": str(home), "XDG_CONFIG_HOME": str(home), "TMPDIR": str(home), "LC_ALL": "C",
        "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false", "SSH_ASKPASS": "/bin/false", "GIT_ALLOW_PROTOCOL": "https",
        "GIT_ATTR_NOSYSTEM": "1", "GIT_CEILING_DIRECTORIES": str(home.parent),
    }  # fmt: skip
    command = ["git", "-c", f"core.hooksPath={os.devnull}", "-c", "core.fsmonitor=false"]
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(
            [*command, *arguments], cwd=home, env=environment, stdin=subprocess.DEVNULL,
            stdout=out, stderr=err, start_new_session=True,
        )  # fmt: skip
        try:
            with suppress(ProcessLookupError):
                # Its children, which parse what strangers packed, inherit this.
                resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
            _wait(process, home, limits)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise BadCode(
                "git could not fetch the code",
                why=_told(err, process.returncode),
                do="check its address and revision (a branch, a tag or a commit's full name); a "
                "private repository needs secret = NAME of a secret with a token",
            )
        out.seek(0)
        return out.read(1 << 16)


def _wait(process: subprocess.Popen[bytes], home: Path, limits: Limits) -> None:
    until = time.monotonic() + limits.git_s
    while True:
        try:
            process.wait(timeout=_LOOK_EVERY_S)
            return
        except subprocess.TimeoutExpired:
            pass
        if time.monotonic() > until:
            raise BadCode(
                f"git did not bring the code within {limits.git_s:g} s",
                do="send it as an archive, or try again later",
            )
        if _size(home) > limits.git_bytes:
            raise BadCode(
                f"the commit takes more than {limits.git_bytes:,} bytes",
                why="code is scripts; data is an input of the job",
                do="send only the code, as an archive",
            )


def _size(folder: Path) -> int:
    size = 0
    for above, _, files in os.walk(folder):
        for name in files:
            try:
                size += os.lstat(os.path.join(above, name)).st_size
            except FileNotFoundError:
                continue  # git renamed it while we looked
    return size


def _told(err: IO[bytes], status: int) -> str:
    err.seek(0)
    text = err.read(4096).decode("utf-8", "replace")
    line = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return "".join(char for char in line if char.isprintable())[:500] or f"it ended with {status}"
