"""The agent: one attempt after another, from predownload to the last push."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from onward.errors import Fenced, OnwardError, Stopped, StoreError
from onward.jobs.data import JobData
from onward.jobs.display import Display, Terminal, counted, size
from onward.jobs.leftover import forget_script, note_script
from onward.jobs.newness import nothing_new
from onward.jobs.open_files import open_for_writing
from onward.jobs.outcome import Attempt, Outcome, begun
from onward.jobs.outputs import JobOutput, open_output, refuse_start_over
from onward.jobs.process import ScriptProcess
from onward.jobs.pushing import Pushing
from onward.jobs.script import script_command, script_environment
from onward.jobs.spec import JobSpec
from onward.jobs.stopping import StopSignals
from onward.repository import Repository
from onward.repository.fetching import check_space
from onward.training.opening import Asked, Beginning

FRUITLESS_ATTEMPTS = 3
_LOOK_EVERY_S = 0.05
_ORDERLY = (0, 75, 130)
_NOT_RETRIED = (0, 2, 75, 130)


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things take that users do not choose."""

    first_pause_s: float = 1.0
    longest_pause_s: float = 30.0
    push_every_s: float = 0.5
    last_push_s: float = 120.0


def run_job(
    spec: JobSpec,
    display: Display,
    *,
    stdout: IO[Any] | int | None = None,
    timing: Timing | None = None,
) -> Outcome:
    """Carries a job through and says how it ended. Call it from the main thread.

    `stdout` is where the script's output goes if not to this process's own. Errors are in the
    outcome.
    """
    with StopSignals() as signals:
        agent = _Agent(spec, display, signals, stdout, timing or Timing())
        try:
            spec.check()
            agent.work()
        except Stopped as stopped:
            agent.outcome.exit_code = signals.exit_code or 75
            agent.outcome.message = str(stopped)
        except OnwardError as error:
            agent.outcome.exit_code = error.exit_code
            agent.outcome.error = error
            agent.outcome.message = ""
        finally:
            agent.release()
    return agent.outcome


class _Agent:
    def __init__(
        self,
        spec: JobSpec,
        display: Display,
        signals: StopSignals,
        stdout: IO[Any] | int | None,
        timing: Timing,
    ) -> None:
        self.spec = spec
        self.display = display
        self.signals = signals
        self.stdout = stdout
        self.timing = timing
        self.outcome = Outcome(spec.command())
        self.data: JobData | None = None
        self.output: JobOutput | None = None
        self.data_path: Path | None = None
        self.snapshot = ""
        self.known: set[str] | None = None
        self.began_s = time.monotonic()

    def release(self) -> None:
        self.outcome.seconds = time.monotonic() - self.began_s
        if self.output is not None:
            self.output.release()
        if self.data is not None:
            self.data.release()

    def work(self) -> None:
        """All attempts."""
        if self.spec.data:
            self.data = JobData(self.spec.data)
        self.output = output = open_output(self.spec, self.display)
        fruitless = 0
        for number in range(1, self.spec.retries + 2):
            attempt = self._attempt(number, output)
            if attempt is None:
                return
            if not self._worth_another(attempt):
                return
            fruitless = 0 if attempt.commits else fruitless + 1
            if fruitless >= FRUITLESS_ATTEMPTS:
                self.outcome.message += (
                    f", as {fruitless} attempts in a row did before a new checkpoint: giving up"
                )
                return
            if number <= self.spec.retries:
                self._pause(number)

    # One attempt.

    def _attempt(self, number: int, output: JobOutput) -> Attempt | None:
        repository = output.catch_up()
        if number == 1:
            refuse_start_over(self.spec, repository.history)
            self._fetch_data(output)
        else:
            self._check_still_ours(repository)
        asked = self._asked(repository)
        if self.known is None:
            self.known = set(repository.history.commits)
        reason = nothing_new(asked, repository, self.snapshot)
        if reason is not None:
            self.outcome.newest = repository.history.latest()
            self.outcome.exit_code, self.outcome.message = 0, str(reason)
            return None
        attempt, start = self._begin(number, output, repository, asked)
        self.outcome.attempts.append(attempt)
        self.signals.guarding = True
        try:
            self._train(attempt, output, start)
        finally:
            self.signals.guarding = False
        return attempt

    def _fetch_data(self, output: JobOutput) -> None:
        if self.data is None:
            return
        wanted = sum(entry.size_bytes for entry in self.data.plan().fetched)
        if wanted:
            # All that will be fetched must fit before anything is.
            check_space(self.data.path, wanted + output.bytes_to_fetch())
        self.data_path = self.data.fetch(self.display)
        found = self.data.snapshot()
        self.snapshot = found.digest
        self.display.say(f"data: {counted(found.items, 'file')}, {size(found.size_bytes)}")

    def _asked(self, repository: Repository) -> Asked:
        """What was asked for; once this job has committed, to go on from there."""
        if self.known is None or self.known >= repository.history.commits.keys():
            return self.spec.asked()
        return Asked(on_damage=self.spec.on_damage)

    def _begin(
        self, number: int, output: JobOutput, repository: Repository, asked: Asked
    ) -> tuple[Attempt, Callable[[], ScriptProcess]]:
        writer = None
        while True:
            newest = repository.history.latest()
            beginning = output.prepare(asked)
            if writer is None:
                writer = output.claim(_who(self.spec))
            # What another writer committed before the claim is what we go on from.
            if repository.history.latest() == newest:
                break
        self._tell(beginning, pinned=output.working is not None)
        data = self.data_path
        command = script_command(self.spec, output=output.folder, data=data)
        environment = script_environment(
            self.spec, os.environ, output=output.folder, data=data, data_snapshot=self.snapshot,
            writer=writer, asked=asked, beginning=beginning, pin=output.working is not None,
        )  # fmt: skip

        def start() -> ScriptProcess:
            return ScriptProcess(
                command, environment, on_event=self._on_event, stdout=self.stdout,
                relay=self.display.output if isinstance(self.display, Terminal) else None,
            )  # fmt: skip

        return begun(number, beginning, writer.generation), start

    def _train(
        self, attempt: Attempt, output: JobOutput, start: Callable[[], ScriptProcess]
    ) -> None:
        began_s = time.monotonic()
        if self.signals.heard:
            raise Stopped(f"stopped by {self.signals.name}", code=self.signals.exit_code)
        process = start()
        if output.working is not None:
            note_script(output.working.path, process.pid)
        pushing = Pushing(
            output, self.display, lambda: open_for_writing(process.pid),
            every_s=self.timing.push_every_s, last_push_s=self.timing.last_push_s,
        )  # fmt: skip
        pushing.start()
        try:
            self._watch(process, pushing)
        finally:
            attempt.exit_status = process.finish()
            if isinstance(self.display, Terminal):
                self.display.end()
            if output.working is not None:
                forget_script(output.working.path)
            heard = len(self.signals.heard)
            pushing.finish(
                in_order=attempt.exit_status in _ORDERLY,
                abandon=lambda: len(self.signals.heard) > heard,
            )
            attempt.seconds = time.monotonic() - began_s
        self._conclude(attempt, output, pushing)

    def _watch(self, process: ScriptProcess, pushing: Pushing) -> None:
        """Until the script has ended: passes signals on, and ends it when it must not go on."""
        passed_on = 0
        kill_at_s = float("inf")
        tick = threading.Event()
        while not process.ended():
            if pushing.failure is not None:
                process.kill()  # at once: nothing that it does from here on could be kept
                return
            heard = list(self.signals.heard)
            for number in heard[passed_on:]:
                if passed_on == 0:
                    kill_at_s = time.monotonic() + self.spec.grace_s
                    self.display.say(
                        f"{signal.Signals(number).name}: the script has {self.spec.grace_s:g} s "
                        "to save and stop"
                    )
                passed_on += 1
                process.send(signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)
            if passed_on > 2 or time.monotonic() >= kill_at_s:
                self.display.say("the script did not stop: killing it")
                process.kill()
                return
            tick.wait(_LOOK_EVERY_S)

    # What came of it.

    def _conclude(self, attempt: Attempt, output: JobOutput, pushing: Pushing) -> None:
        outcome = self.outcome
        assert self.known is not None
        before = len(outcome.commits)
        files = outcome.pushed_files
        history = output.look()
        outcome.commits = [c for c in history.commits.values() if c.checkpoint not in self.known]
        outcome.newest = history.latest()
        outcome.stored_bytes = sum(commit.stored for commit in outcome.commits)
        outcome.steps = _steps(outcome, history.commits)
        outcome.pushed_bytes = output.pushed.size_bytes
        outcome.pushed_files = output.pushed.files
        outcome.unpushed = output.unpushed()
        attempt.commits = len(outcome.commits) - before + (outcome.pushed_files - files)
        outcome.exit_code, outcome.message = self._verdict(attempt)
        if pushing.failure is not None:
            outcome.exit_code = pushing.failure.exit_code or 1
            outcome.error = pushing.failure
            if isinstance(pushing.failure, StoreError):
                outcome.message = f"the script ended with {_status(attempt)}, but not all is pushed"
            else:
                outcome.message = "the script was stopped"

    def _verdict(self, attempt: Attempt) -> tuple[int, str]:
        status = attempt.exit_status
        wanted = self.signals.exit_code
        if status == 0:
            return 0, ""
        if wanted == 130 or status == 130:
            return 130, "stopped by Ctrl-C"
        if status == 75:
            return 75, "stopped safely; the same command goes on"
        if wanted and attempt.commits:
            return 75, f"stopped by {self.signals.name}; the same command goes on"
        if wanted:
            return 1, (
                f"stopped by {self.signals.name}; the script ended with {_status(attempt)} and "
                "saved nothing on the way"
            )
        if status == 2:
            return 2, "the script refused its arguments or configuration (exit status 2)"
        return 1, f"the script ended with {_status(attempt)}"

    def _worth_another(self, attempt: Attempt) -> bool:
        return (
            attempt.exit_status not in _NOT_RETRIED
            and self.outcome.error is None
            and not self.signals.heard
        )

    def _pause(self, number: int) -> None:
        pause_s = min(self.timing.first_pause_s * 2 ** (number - 1), self.timing.longest_pause_s)
        self.display.say(
            f"{self.outcome.message}; attempt {number + 1} of {self.spec.retries + 1} "
            f"begins in {pause_s:g} s"
        )
        time.sleep(pause_s)

    def _check_still_ours(self, repository: Repository) -> None:
        history = repository.history
        if history.generation != self.outcome.attempts[-1].generation:
            raise Fenced(
                f"another writer took over {self.spec.output}",
                why=f"{history.who} claimed it as generation {history.generation}",
                do="let the new writer go on; nothing that was committed is lost",
            )

    def _tell(self, beginning: Beginning, *, pinned: bool) -> None:
        # A script that knows Onward tells how it begins; only what it cannot know is told here.
        if pinned:
            for rejected in beginning.rejected:
                self.display.say(f"not {rejected.checkpoint}: {rejected.reason}")

    def _on_event(self, facts: dict[str, Any]) -> None:
        self.display.training(facts)


def _who(spec: JobSpec) -> str:
    return f"{socket.gethostname()} pid {os.getpid()} (onward run {Path(spec.script).name})"


def _status(attempt: Attempt) -> str:
    status = attempt.exit_status
    if status is not None and status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"exit status {status}"


def _steps(outcome: Outcome, commits: dict[str, Any]) -> int:
    """Optimizer steps that this job added, replayed ones not counted twice."""
    if not outcome.commits:
        return 0
    first = outcome.commits[0]
    parent = commits.get(first.parent) if first.parent else None
    return max(commit.step for commit in outcome.commits) - (parent.step if parent else 0)
