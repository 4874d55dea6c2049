"""Carrying the job of an attempt through: from its folder to the document of its end."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from onward.engines.base import SCRIPT, WORK
from onward.engines.causes import cause_of, ended_by_kernel, kernel_kills
from onward.engines.control_groups import Groups
from onward.engines.events import EventLog
from onward.engines.folder import write_document
from onward.engines.processes import start_time
from onward.engines.redaction import Redactor
from onward.errors import OnwardError
from onward.jobs.agent import Timing, run_job
from onward.jobs.claims import going_on
from onward.jobs.limits import Limits
from onward.jobs.outcome import Outcome
from onward.jobs.spec import JobSpec


class Asked(Protocol):
    """What is asked of an agent: `stop`, `kill`, or ''."""

    def __call__(self) -> str:
        """By whatever way."""

    @property
    def by_request(self) -> str:
        """By whoever schedules."""


def carry_through(
    folder: Path, job: Mapping[str, Any], redactor: Redactor, *, asked: Asked, groups: Groups
) -> dict[str, Any]:
    """Runs the job and returns what goes into `outcome.json`."""
    display = _Display(folder, redactor)
    kills, kills_in_groups = kernel_kills(), groups.kernel_kills()
    try:
        spec = going_on(JobSpec.of(job["spec"]), job.get("claims", []))
        os.chdir(folder / WORK)
        outcome = run_job(
            spec, display, stdout=sys.stdout.fileno(), asked=asked,
            timing=Timing(last_push_s=float(job.get("last_push_s", 120.0))),
            limits=_limits(job, groups),
        )  # fmt: skip
    except OnwardError as error:
        outcome = Outcome("", exit_code=error.exit_code, error=error)
    if outcome.error is not None:
        display.say(str(outcome.error))
    for line in outcome.summary():
        display.say(line)
    out_of_memory = groups.kernel_kills() > kills_in_groups or (
        kernel_kills() > kills and ended_by_kernel(outcome)
    )
    cause = cause_of(outcome, asked=asked.by_request, out_of_memory=out_of_memory)
    message = outcome.message or (str(outcome.error) if outcome.error is not None else "")
    display.close(outcome.exit_code, message)
    return {
        "exit_code": outcome.exit_code,
        "cause": cause,
        "outcome": outcome.document(),
        "lost": list(outcome.unpushed),
    }


class _Display(EventLog):
    """Also writes down which process the script is, for whoever finds it without its agent."""

    def __init__(self, folder: Path, redactor: Redactor) -> None:
        super().__init__(folder, redactor)
        self._folder = folder

    def note(self, kind: str, **facts: Any) -> None:
        if kind == "script":
            pid = facts["pid"]
            write_document(self._folder / SCRIPT, {"pid": pid, "started": start_time(pid)})
            return
        super().note(kind, **facts)


def _limits(job: Mapping[str, Any], groups: Groups) -> Limits:
    """For each process, where groups do not limit all of them together."""
    resources = job.get("resources", {})
    memory, processes = resources.get("memory_bytes", 0), resources.get("processes", 0)
    return Limits(
        data_bytes=0 if groups.limits("memory") else memory,
        # The kernel counts a user's processes: only where the user is the job's own.
        processes=processes if job.get("user") and not groups.limits("pids") else 0,
        cpu_seconds=resources.get("cpu_seconds", 0),
        open_files=resources.get("open_files", 0),
        file_bytes=resources.get("file_bytes", 0),
        groups=tuple(str(group / "cgroup.procs") for group in groups.made),
    )
