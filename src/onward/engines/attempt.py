"""The agent as a process: `python -m onward.engines.attempt FOLDER` has one attempt, to its end.

It is detached from whoever started it, and talks through its folder alone (`engines/base.py`). Its
environment is the script's, secrets among it; what it prints, and its script, goes into the log.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from onward.engines.base import ATTEMPT_VARIABLE, JOB, LOCK, OUTCOME, WORK
from onward.engines.control_groups import Groups
from onward.engines.folder import bring_code, read_request, take, write_document
from onward.engines.keeper import keep_log
from onward.engines.own_user import become, give_folder, no_new_privileges, user_of
from onward.engines.plain_files import read_document
from onward.engines.processes import end_processes, start_time
from onward.engines.redaction import Redactor

_ALIVE_EVERY_S = 5.0


def main(folder: Path) -> int:
    """Has the attempt, unless somebody else has or had it."""
    signals = _Signals()
    lock = take(folder, start_time(os.getpid()))
    if lock is None:
        return 0
    job = read_document(folder / JOB)
    names = job.get("secret_names", []) if job else []
    redactor = Redactor(filter(None, (os.environ.get(name) for name in names)))
    keeper = keep_log(folder, redactor, longest=(job or {}).get("longest_log", 0), lock=lock)
    attempt = os.environ.get(ATTEMPT_VARIABLE, folder.name)
    groups = Groups(attempt)
    try:
        _settle(folder, job or {}, groups)
        document = _carry_through(folder, job, redactor, _Asked(folder, signals), groups)
    except BaseException as error:
        traceback.print_exc()
        document = _failure(error)
    groups.kill()
    end_processes(attempt, besides={os.getpid(), keeper.pid})
    groups.leave()
    groups.remove()
    if document["exit_code"] == 0:
        shutil.rmtree(folder / WORK, ignore_errors=True)
    keeper.finish()
    write_document(folder / OUTCOME, _redacted(document, redactor))
    # A thread may still wait for a store. All that a job writes is whole or absent.
    os._exit(0)


def _settle(folder: Path, job: Mapping[str, Any], groups: Groups) -> None:
    """The code, the control groups, the user: all that may need the server's rights."""
    bring_code(job.get("code"), folder / WORK)
    user = user_of(job["user"]) if job.get("user") else None
    groups.make(job.get("resources", {}), owner=(user.pw_uid, user.pw_gid) if user else None)
    if user is not None:
        give_folder(folder, user)
        become(user)
    no_new_privileges()


def _carry_through(
    folder: Path,
    job: Mapping[str, Any] | None,
    redactor: Redactor,
    asked: _Asked,
    groups: Groups,
) -> dict[str, Any]:
    # Only here: a second process for the same attempt should cost next to nothing.
    from onward.engines.carrying import carry_through

    return carry_through(folder, job or {}, redactor, asked=asked, groups=groups)


class _Signals:
    """Hears SIGTERM before and after the job itself does: then it is no reason to die halfway."""

    def __init__(self) -> None:
        self.heard = False
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: object) -> None:
        self.heard = True


class _Asked:
    """What is asked of this agent. Also shows, now and then, that it lives."""

    def __init__(self, folder: Path, signals: _Signals) -> None:
        self._folder = folder
        self._signals = signals
        self._next_s = 0.0

    def __call__(self) -> str:
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + _ALIVE_EVERY_S
            os.utime(self._folder / LOCK)
        return self.by_request or ("stop" if self._signals.heard else "")

    @property
    def by_request(self) -> str:
        """Leaving signals aside."""
        return read_request(self._folder)


def _failure(error: BaseException) -> dict[str, Any]:
    """The outcome where the agent itself has failed."""
    text = f"the agent failed: {type(error).__name__}: {error}"
    return {
        "exit_code": 1,
        "cause": "infrastructure",
        "outcome": {"exit_code": 1, "message": text},
        "lost": [],
    }


def _redacted(value: Any, redactor: Redactor) -> Any:
    if isinstance(value, str):
        return redactor.whole(value)
    if isinstance(value, dict):
        return {name: _redacted(each, redactor) for name, each in value.items()}
    if isinstance(value, list):
        return [_redacted(each, redactor) for each in value]
    return value


def _start() -> NoReturn:
    sys.exit(main(Path(sys.argv[1]).absolute()))


if __name__ == "__main__":
    _start()
