"""The script as a process: its group, its live output, its progress, its certain end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

from onward.errors import JobError, UsageError
from onward.jobs.limits import Limits
from onward.jobs.process_table import others_in_group
from onward.jobs.terminal import Relay
from onward.repository.retention import Retention
from onward.training.environment import EVENTS_FD

_TIDY_S = 2.0
_LONGEST_EVENT = 1 << 16
_MOST_METRICS = 32
_LONGEST_SENTENCE = 1000

# Runs before the script in its process, then becomes it: when the agent is killed, the script is
# asked to stop, because nobody would push its checkpoints any more. Not a `preexec_fn`, which is
# not safe in a program with threads.
_LAUNCHER = """\
import ctypes, os, resource, sys
agent, limits, groups, *command = sys.argv[1:]
for group in filter(None, groups.split(":")):
    with open(group, "w") as file: file.write("0")
for limit in filter(None, limits.split(",")):
    number, most = map(int, limit.split("="))
    hard = resource.getrlimit(number)[1]
    most = min(most, hard) if hard >= 0 else most
    resource.setrlimit(number, (most, most))
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() != int(agent): sys.exit(143)
os.execv(command[0], command)
"""


class ScriptProcess:
    """A running script. The thread that starts it must outlive it: see the launcher above.

    `on_event` is called from another thread with what the script's run tells. `stdout` is where
    its standard output goes if not to the agent's own. With `relay`, both outputs go through a
    pseudo-terminal to that function, so that something else can be drawn on the real one.
    `limits` hold for the script and what it starts; on Linux only.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        *,
        on_event: Callable[[dict[str, Any]], None],
        stdout: IO[Any] | int | None = None,
        relay: Callable[[bytes], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        reading, writing = os.pipe()
        self._relay = Relay(relay) if relay is not None else None
        terminal = self._relay.script_end if self._relay is not None else None
        if sys.platform == "linux":
            command = [
                sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()),
                (limits or Limits()).text(), ":".join((limits or Limits()).groups), *command,
            ]  # fmt: skip
        try:
            self._process = subprocess.Popen(
                command,
                env={**environment, EVENTS_FD: str(writing)},
                stdin=subprocess.DEVNULL,
                stdout=stdout if terminal is None else terminal,
                stderr=terminal,
                pass_fds=[writing],
                start_new_session=True,
            )
        except OSError as error:
            os.close(reading)
            raise JobError("the script could not be started", why=str(error)) from error
        finally:
            os.close(writing)
            if self._relay is not None:
                self._relay.started()
        self._events = threading.Thread(
            target=_read_events, args=(reading, on_event), name="onward-events", daemon=True
        )
        self._events.start()

    @property
    def pid(self) -> int:
        """Of the script, and the number of its group and session."""
        return self._process.pid

    def ended(self) -> bool:
        """Whether the script has ended. Its number stays taken until `finish`."""
        if self._process.returncode is not None:
            return True
        if not hasattr(os, "waitid"):  # macOS before Python 3.13
            return self._process.poll() is not None
        found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return found is not None

    def send(self, number: int) -> None:
        """Sends a signal to the script itself; its workers are its own business."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends every process of the group at once."""
        self._signal_group(signal.SIGKILL)

    def finish(self) -> int:
        """Ends what is left of the group; returns the exit status (negative: a signal's number)."""
        if not self.ended():
            self.kill()
        elif others_in_group(self.pid):
            self._signal_group(signal.SIGTERM)
            end_s = time.monotonic() + _TIDY_S
            while others_in_group(self.pid) and time.monotonic() < end_s:
                time.sleep(0.02)
            self._signal_group(signal.SIGKILL)
        code = self._process.wait()
        # A grandchild in a session of its own may hold the pipe; what it tells is not of interest.
        self._events.join(1.0)
        if self._relay is not None:
            self._relay.finish()
        return code

    def _signal_group(self, number: int) -> None:
        # The script has not been waited for, so the number cannot belong to anybody else.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


def _read_events(fd: int, on_event: Callable[[dict[str, Any]], None]) -> None:
    with open(fd, "rb") as pipe:
        while line := pipe.readline(_LONGEST_EVENT):
            facts = _checked_event(line)
            if facts:
                on_event(facts)


def _checked_event(line: bytes) -> dict[str, Any]:
    """What a line tells, reduced to numbers: any script may write anything into the pipe."""
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    facts: dict[str, Any] = {
        name: found[name]
        for name in ("step", "epoch", "batch", "batches")
        if isinstance(found.get(name), int) and not isinstance(found[name], bool)
    }
    metrics = found.get("metrics")
    if isinstance(metrics, dict):
        facts["metrics"] = {
            str(name)[:40]: value
            for name, value in list(metrics.items())[:_MOST_METRICS]
            if isinstance(value, (int, float))
        }
    if isinstance(found.get("keep"), dict):
        with contextlib.suppress(UsageError, TypeError):
            facts["keep"] = Retention.of(found["keep"])
    match found.get("champion"):
        case [str(new), None | str() as expected]:
            facts["champion"] = (new, expected)
    if isinstance(found.get("nothing_new"), str):
        facts["nothing_new"] = found["nothing_new"][:_LONGEST_SENTENCE]
    for name in ("saved", "reason"):
        if isinstance(found.get(name), str):
            facts[name] = found[name][:200]
    return facts
