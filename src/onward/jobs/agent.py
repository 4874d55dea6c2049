"""The agent: one attempt after another, from predownload to the last push."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

from onward.data.file_list import FileList
from onward.errors import Fenced, OnwardError, Stopped, StoreError
from onward.jobs.data import JobData
from onward.jobs.display import Display, Terminal, counted, size
from onward.jobs.leftover import forget_script, note_script
from onward.jobs.limits import Limits
from onward.jobs.newness import nothing_new
from onward.jobs.open_files import open_for_writing
from onward.jobs.outcome import Attempt, Outcome, begun
from onward.jobs.output import JobOutput, Pushed, refuse_start_over
from onward.jobs.outputs import open_output
from onward.jobs.process import ScriptProcess
from onward.jobs.pushing import Pushing
from onward.jobs.script import script_command, script_environment
from onward.jobs.spec import JobSpec
from onward.jobs.stopping import StopSignals
from onward.jobs.verdict import NOT_RETRIED, ORDERLY, ending, verdict
from onward.repository import Commit, History, Repository
from onward.repository.fetching import check_space
from onward.training.opening import Asked, Beginning

FRUITLESS_ATTEMPTS = 3
JOB_THREAD = "onward-job"
_LOOK_EVERY_S = 0.05


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
    asked: Callable[[], str] | None = None,
    limits: Limits | None = None,
) -> Outcome:
    """Carries a job through and says how it ended, errors included. Call it from the main thread.

    `asked` says, whenever it is called, whether the job should `stop` or be killed (`kill`), beside
    what signals say. `limits` are those of the script, not of this process.
    `stdout` is where the script's output goes if not to this process's own. When a request to stop
    comes before a script was started, it returns at once, and the process should end: what still
    waits for a store may be left alone, as everything that a job writes is whole or absent.
    """
    with StopSignals() as signals:
        agent = _Agent(spec, display, signals, stdout, timing or Timing(), limits)
        # Not here: a call that waits for a store does not let Python listen to signals.
        work = threading.Thread(target=agent.run, name=JOB_THREAD, daemon=True)
        work.start()
        while work.is_alive() and not signals.abandoned:
            if asked is not None:
                signals.request(asked())
            work.join(_LOOK_EVERY_S)
        if work.is_alive():
            display.abandon()
            return replace(
                agent.outcome, exit_code=signals.exit_code, message=str(signals.stopped())
            )
    if agent.bug is not None:
        raise agent.bug
    return agent.outcome


class _Agent:
    def __init__(
        self,
        spec: JobSpec,
        display: Display,
        signals: StopSignals,
        stdout: IO[Any] | int | None,
        timing: Timing,
        limits: Limits | None,
    ) -> None:
        self.spec = spec
        self.display = display
        self.signals = signals
        self.stdout = stdout
        self.timing = timing
        self.limits = limits
        self.outcome = Outcome(spec.command())
        self.data: JobData | None = None
        self.inputs: dict[str, JobData] = {}
        self.output: JobOutput | None = None
        self.data_path: Path | None = None
        self.input_paths: dict[str, Path] = {}
        self.snapshot = ""
        self.data_files = ""
        self.behind = ""
        self.told = (0, 0, 0)
        self.bug: BaseException | None = None

    def run(self) -> None:
        """The whole job; its end is in `outcome`."""
        began_s = time.monotonic()
        try:
            self.spec.check()
            self._work()
        except Stopped as stopped:
            self.outcome.exit_code, self.outcome.message = self.signals.exit_code, str(stopped)
        except OnwardError as error:
            self.outcome.exit_code, self.outcome.message = error.exit_code, ""
            self.outcome.error = error
        except BaseException as error:
            self.bug = error
        finally:
            self.outcome.seconds = time.monotonic() - began_s
            if self.output is not None:
                self.output.release()
            for data in self._all_data():
                data.release()

    def _work(self) -> None:
        if self.spec.data:
            self.data = JobData(self.spec.data)
        for each in self.spec.inputs:
            self.inputs[each.name] = JobData(each.location, option=f"--input {each.name}")
        self.output = output = open_output(self.spec, self.display)
        fruitless = 0
        for number in range(1, self.spec.retries + 2):
            attempt = self._attempt(number, output)
            if attempt is None:
                return
            if not self._worth_another(attempt):
                return
            fruitless = 0 if attempt.saves else fruitless + 1
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
        reason = nothing_new(asked, repository, self.snapshot)
        if reason is not None:
            self.outcome.newest = repository.history.latest()
            self.outcome.exit_code, self.outcome.message = 0, str(reason)
            self.outcome.nothing_new = reason.sentence()
            return None
        attempt, start = self._begin(number, output, repository, asked)
        self.outcome.attempts.append(attempt)
        self.display.note("begin", **_beginning(attempt))
        with self.signals.guard():
            self._train(attempt, output, start)
        return attempt

    def _all_data(self) -> list[JobData]:
        return [*([self.data] if self.data is not None else []), *self.inputs.values()]

    def _fetch_data(self, output: JobOutput) -> None:
        wanted = [
            (data, sum(entry.size_bytes for entry in data.plan().fetched))
            for data in self._all_data()
        ]
        needed = sum(size_bytes for _, size_bytes in wanted)
        if needed:
            # All that will be fetched must fit before anything is.
            place = next(data.path for data, size_bytes in wanted if size_bytes)
            check_space(place, needed + output.bytes_to_fetch())
        for name, data in self.inputs.items():
            self.input_paths[name] = data.fetch(self.display)
            self.display.say(f"input {name}: {self.input_paths[name]}")
        if self.data is None:
            return
        self.data_path = self.data.fetch(self.display)
        found = self.data.snapshot()
        self.snapshot, self.data_files = found.digest, FileList.of(found).pack()
        self.display.say(f"data: {counted(found.items, 'file')}, {size(found.size_bytes)}")

    def _asked(self, repository: Repository) -> Asked:
        """What was asked for; once this job has committed, to go on from there."""
        if self._own_commits(repository.history):
            return Asked(on_damage=self.spec.on_damage)
        return self.spec.asked()

    def _own_commits(self, history: History) -> list[Commit]:
        """What this job committed, told by its claims."""
        claims = {attempt.generation for attempt in self.outcome.attempts}
        return [commit for commit in history.commits.values() if commit.generation in claims]

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
        if number == 1:
            self.outcome.selection = output.selection
        self._tell(beginning, pinned=output.working is not None)
        data = self.data_path
        command = script_command(
            self.spec, output=output.folder, data=data, inputs=self.input_paths
        )
        retention = self.spec.retention()
        if retention.drops_anything:
            output.keep(retention)
        environment = script_environment(
            self.spec, os.environ, output=output.folder, data=data, inputs=self.input_paths,
            data_snapshot=self.snapshot, data_files=self.data_files, writer=writer, asked=asked,
            beginning=beginning, pin=output.working is not None,
        )  # fmt: skip

        def start() -> ScriptProcess:
            return ScriptProcess(
                command, environment, on_event=self._on_event, stdout=self.stdout,
                relay=self.display.output if isinstance(self.display, Terminal) else None,
                limits=self.limits,
            )  # fmt: skip

        return begun(number, beginning, writer.generation), start

    def _train(
        self, attempt: Attempt, output: JobOutput, start: Callable[[], ScriptProcess]
    ) -> None:
        began_s = time.monotonic()
        process = start()
        self.display.note("script", pid=process.pid)
        pushing = Pushing(
            output, self.display, lambda: open_for_writing(process.pid),
            every_s=self.timing.push_every_s, last_push_s=self.timing.last_push_s,
        )  # fmt: skip
        pushing.start()
        try:
            if output.working is not None:
                note_script(output.working.path, process.pid)
            self._watch(process, pushing)
        finally:
            attempt.exit_status = process.finish()
            if isinstance(self.display, Terminal):
                self.display.end()
            if output.working is not None:
                forget_script(output.working.path)
            heard = self.signals.signals
            pushing.finish(
                in_order=attempt.exit_status in ORDERLY,
                abandon=lambda: self.signals.signals > heard,
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
            if self.signals.killing:
                self.display.say("killing the script, as was asked")
                process.kill()
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
            self.behind = pushing.look()
            self._tell_pushed()
            tick.wait(_LOOK_EVERY_S)

    # What came of it.

    def _conclude(self, attempt: Attempt, output: JobOutput, pushing: Pushing) -> None:
        outcome = self.outcome
        before = len(outcome.commits)
        files = outcome.pushed_files
        history = output.look()
        outcome.commits = self._own_commits(history)
        outcome.newest = history.latest()
        outcome.stored_bytes = sum(commit.stored for commit in outcome.commits)
        outcome.steps = _steps(outcome, history.commits)
        outcome.pushed_bytes = output.pushed.size_bytes
        outcome.pushed_files = output.pushed.files
        outcome.unpushed = output.unpushed()
        self._tell_pushed()
        attempt.saves = len(outcome.commits) - before + (outcome.pushed_files - files)
        outcome.exit_code, outcome.message = verdict(attempt, self.signals)
        if pushing.failure is not None:
            outcome.exit_code = pushing.failure.exit_code or 1
            outcome.error = pushing.failure
            if isinstance(pushing.failure, StoreError):
                outcome.message = f"the script ended with {ending(attempt)}, but not all is pushed"
            else:
                outcome.message = "the script was stopped"

    def _worth_another(self, attempt: Attempt) -> bool:
        return (
            attempt.exit_status not in NOT_RETRIED
            and self.outcome.error is None
            and not self.signals.heard
        )

    def _pause(self, number: int) -> None:
        doubled_s = self.timing.first_pause_s * 2 ** min(number - 1, 20)
        pause_s = min(doubled_s, self.timing.longest_pause_s)
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

    def _tell_pushed(self) -> None:
        pushed = self.output.pushed if self.output is not None else Pushed()
        now = (pushed.size_bytes, pushed.files, len(pushed.commits))
        if now != self.told:
            self.told = now
            self.display.note(
                "pushed", size_bytes=now[0], files=now[1], commits=list(pushed.commits[-100:])
            )

    def _tell(self, beginning: Beginning, *, pinned: bool) -> None:
        # A script that knows Onward tells how it begins; only what it cannot know is told here.
        if pinned:
            for rejected in beginning.rejected:
                self.display.say(f"not {rejected.checkpoint}: {rejected.reason}")

    def _on_event(self, facts: dict[str, Any]) -> None:
        if "keep" in facts and self.output is not None:
            self.output.keep(facts.pop("keep"))
        if "champion" in facts and self.output is not None:
            self.output.crown(*facts.pop("champion"))
        if "nothing_new" in facts:
            self.outcome.nothing_new = str(facts.pop("nothing_new"))
        self.display.training({**facts, "behind": self.behind})


def _who(spec: JobSpec) -> str:
    return f"{socket.gethostname()} pid {os.getpid()} (onward run {Path(spec.script).name})"


def _beginning(attempt: Attempt) -> dict[str, Any]:
    facts = asdict(attempt)
    return {
        name: facts[name]
        for name in ("verb", "why", "checkpoint", "increment", "generation", "rejected")
    }


def _steps(outcome: Outcome, commits: dict[str, Any]) -> int:
    """Optimizer steps that this job added, replayed ones not counted twice."""
    if not outcome.commits:
        return 0
    first = outcome.commits[0]
    parent = commits.get(first.parent) if first.parent else None
    return max(commit.step for commit in outcome.commits) - (parent.step if parent else 0)
