"""Asking a child process: what takes long, or reads what somebody else wrote, is not done here.

A child has the time, the memory and the answer's size that it is given, and its own process group,
which ends with it. Few run at once; whoever comes when all are busy is told so.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onward import errors
from onward.errors import OnwardError, Unreachable
from onward.server.problems import TooMany
from onward.server.scheduling.launching import inherited

_AT_ONCE = 3
_PATIENCE_S = 10.0
_LONGEST_ANSWER = 32 << 20
_MEMORY_BYTES = 8 << 30
_LONG_S = 120.0
_WATCH_EVERY_S = 0.2
_places = threading.BoundedSemaphore(_AT_ONCE)
_long_places = threading.BoundedSemaphore(_AT_ONCE)
"""For what may take longer than `_LONG_S`: nobody waits for it with a short question."""

_running: set[subprocess.Popen[bytes]] = set()


def ask_child(
    question: str, facts: Mapping[str, Any], *, environment: Mapping[str, str], folder: Path,
    timeout_s: float, watch: Callable[[], None] | None = None,
) -> Any:  # fmt: skip
    """The child's answer. Raises its typed error, `TooMany`, or `Unreachable` when it takes longer.

    `environment` is added to what every child of the server inherits. It runs in `folder`.
    `watch` is called a few times a second meanwhile; what it raises ends the child.
    """
    places = _long_places if timeout_s > _LONG_S else _places
    if not places.acquire(timeout=_PATIENCE_S):
        raise TooMany("too many questions are being answered", do="ask again in a moment")
    try:
        said = _run(
            question, facts, environment=environment, folder=folder, timeout_s=timeout_s,
            watch=watch,
        )  # fmt: skip
    finally:
        places.release()
    if "error" in said:
        raise _error(said["error"])
    return said["answer"]


def end_children() -> None:
    """Ends all that are running, so that who asked is answered: the server is about to end."""
    for child in list(_running):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)


def _run(
    question: str, facts: Mapping[str, Any], *, environment: Mapping[str, str], folder: Path,
    timeout_s: float, watch: Callable[[], None] | None,
) -> dict[str, Any]:  # fmt: skip
    # Files, not pipes: nothing that the child writes can fill the server's memory or block it.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as taken:
        given.write(json.dumps(facts).encode())
        given.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-m", "onward.facts.child", question],
            stdin=given, stdout=taken, stderr=subprocess.DEVNULL, cwd=folder,
            env={**inherited(os.environ), "PYTHONSAFEPATH": "1", **environment},
            start_new_session=True,
        )  # fmt: skip
        resource.prlimit(child.pid, resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (_LONGEST_ANSWER, _LONGEST_ANSWER))
        _running.add(child)
        try:
            status = _ended(child, timeout_s, watch)
        except subprocess.TimeoutExpired as error:
            raise Unreachable(
                f"there was no answer within {timeout_s:g} seconds", do="try again"
            ) from error
        finally:
            _running.discard(child)
            _end(child)
        taken.seek(0)
        text = taken.read(_LONGEST_ANSWER + 1)
    try:
        said = json.loads(text)
        assert isinstance(said, dict)
        assert said.keys() & {"answer", "error"}
    except (ValueError, AssertionError) as error:
        raise OnwardError(
            "this could not be found out",
            why=f"the process that looked ended with {status}",
            do="`onward verify` looks for damage in the output",
        ) from error
    return said


def _ended(
    child: subprocess.Popen[bytes], timeout_s: float, watch: Callable[[], None] | None
) -> int:
    if watch is None:
        return child.wait(timeout_s)
    end_s = time.monotonic() + timeout_s
    while True:
        watch()
        left_s = end_s - time.monotonic()
        try:
            return child.wait(max(0.0, min(_WATCH_EVERY_S, left_s)))
        except subprocess.TimeoutExpired:
            if left_s <= _WATCH_EVERY_S:
                raise


def _end(child: subprocess.Popen[bytes]) -> None:
    # It may have ended already, and left nobody.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _error(said: Mapping[str, str]) -> OnwardError:
    found = getattr(errors, said["kind"], OnwardError)
    kind = found if isinstance(found, type) and issubclass(found, OnwardError) else OnwardError
    try:
        return kind(said["what"], why=said["why"], do=said["do"])
    except TypeError:  # one that is made otherwise
        return OnwardError(said["what"], why=said["why"], do=said["do"])
