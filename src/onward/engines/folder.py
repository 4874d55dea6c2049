"""The files of an attempt folder: who may create them, and what their presence means.

The kernel's lock tells a living agent from a dead one, and `agent.json`, created once, says that
nobody else will ever have this attempt. So every question has one answer whoever died when.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onward.engines.base import AGENT, ASKS, CONTROL, JOB, LOCK, OUTCOME, Sighting
from onward.engines.plain_files import open_plain, read_document, read_small
from onward.errors import Damaged, JobError, NoSpace

_TAKE_S = 5.0


def prepare_folder(folder: Path, job: Mapping[str, Any]) -> None:
    """Makes the folder with its `job.json`; harmless where that is done already."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not (folder / JOB).exists():
        write_document(folder / JOB, job)


def bring_code(tree: str | None, work: Path) -> None:
    """A copy of the pinned code: the script may write beside itself, and nobody else sees it.

    Raises `JobError` or `NoSpace`.
    """
    try:
        if tree is None:
            work.mkdir(exist_ok=True)
        else:
            shutil.copytree(tree, work, symlinks=True)
    except OSError as error:
        kind = NoSpace if error.errno == errno.ENOSPC else JobError
        raise kind(f"the code could not be copied from {tree}", why=str(error)) from error


def take(folder: Path, started: int) -> int | None:
    """Makes this process the agent of the attempt; None where another one is or was.

    Returns the open lock. It must stay open, and in no other process. `started` is when this
    process started, as the kernel counts: a number of a process alone may belong to a later one.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    end_s = time.monotonic() + _TAKE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # Who only looks holds it for a moment; an agent holds it for good.
            if (folder / AGENT).exists() or time.monotonic() >= end_s:
                os.close(lock)
                return None
            time.sleep(0.01)
    about = {"host": socket.gethostname(), "pid": os.getpid(), "started": started}
    if not create_document(folder / AGENT, {**about, "at": time.time()}):
        os.close(lock)
        return None
    return lock


def close_for_all(folder: Path) -> bool:
    """Nobody takes this attempt any more; False where somebody did."""
    # A server may have died after it promised the attempt and before it made the folder.
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return create_document(folder / AGENT, {"host": "", "pid": 0, "started": 0, "at": time.time()})


def sight(folder: Path) -> Sighting:
    """How the attempt looks. An outcome counts whether or not its agent still lives."""
    outcome = read_document(folder / OUTCOME)
    agent = read_document(folder / AGENT)
    if agent is None and not (folder / AGENT).exists():
        return Sighting("absent")
    agent = agent or {}
    host, pid = str(agent.get("host", ""))[:200], number_in(agent, "pid")
    if outcome is None and not is_held(folder):
        outcome = read_document(folder / OUTCOME)  # it may have ended between the two looks
        if outcome is None:
            return Sighting("gone", host=host, pid=pid)
    return Sighting("running" if outcome is None else "ended", outcome, host, pid)


def is_held(folder: Path) -> bool:
    """Whether an agent lives that has this attempt, also after it said how it ended."""
    return _is_locked(folder / LOCK)


def number_in(document: Mapping[str, Any], name: str) -> int:
    """What a document of an attempt says, if it is a number that a process may have; else 0."""
    found = document.get(name)
    return found if type(found) is int and 0 <= found < 1 << 63 else 0


def leave_request(folder: Path, what: str) -> None:
    """Leaves one of `ASKS` for the agent, unless one as strong is there."""
    if strength(what) > strength(read_request(folder)):
        _replace(folder / CONTROL, what.encode())


def read_request(folder: Path) -> str:
    """What is asked of the agent, or ''."""
    try:
        found = (read_small(folder / CONTROL, 100) or b"").decode("ascii", "replace")
    except (OSError, Damaged):
        return ""
    return found if found in ASKS else ""


def strength(what: str) -> int:
    """Of a request; 0 for none."""
    return ASKS.index(what) + 1 if what in ASKS else 0


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Whole or absent, and durable."""
    _replace(path, json.dumps(document, ensure_ascii=False).encode())


def create_document(path: Path, document: Mapping[str, Any]) -> bool:
    """Only if there is none. Its presence may be seen before its content."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return False
    with open(fd, "wb") as file:
        file.write(json.dumps(document).encode())
        file.flush()
        os.fsync(file.fileno())
    _sync_folder(path.parent)
    return True


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _is_locked(path: Path) -> bool:
    try:
        fd = open_plain(path)
    except (OSError, Damaged):
        return False
    if fd is None:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)  # gives the lock back, if it was taken
    return False
