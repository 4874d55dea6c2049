"""From a job's document to what an engine needs to start its agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from onward.engines import Launch
from onward.engines.folder import prepare_folder
from onward.errors import JobError, UsageError
from onward.jobs.spec import JobSpec
from onward.server import storages
from onward.server.database.tables import Attempt, Job
from onward.server.settings import Settings
from onward.server.spec import JobRequest, ResourceSpec

LAST_PUSH_S = 120.0
"""How long an agent tries to push what is left when its script has ended."""

_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH",
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ONWARD_HOME", "ONWARD_SPACE",
)  # fmt: skip
_INHERITED_KINDS = ("LC_", "CUDA_", "NVIDIA_", "ASCEND_", "HCCL_", "NCCL_", "OMP_", "MKL_", "XDG_")


@dataclass(frozen=True, slots=True)
class Places:
    """Where a job's inputs and output are, and the secrets that their stores need by variable."""

    output: storages.Resolved
    inputs: Mapping[str, storages.Resolved]
    branch_from: str

    def secrets(self) -> dict[str, str]:
        """Variable of the environment → name of a secret."""
        found: dict[str, str] = {}
        for place in (*self.inputs.values(), self.output):
            found.update(place.environment)
        return found


def places_of(session: Session, request: JobRequest) -> Places:
    """Raises `NotFound` or `UsageError` for a location that no storage holds."""
    branch = ""
    if request.branch_from:
        where, at, checkpoint = request.branch_from.partition("@")
        branch = storages.resolve(session, where).url + at + checkpoint
    return Places(
        storages.resolve(session, request.output.location),
        {name: storages.resolve(session, each.location) for name, each in request.inputs.items()},
        branch,
    )


def prepare(settings: Settings, job: Job, attempt: Attempt, places: Places) -> Launch:
    """Writes the attempt's folder and says how its agent is started.

    Repeating it changes nothing. Raises `OnwardError` for what no other try would cure, and
    `OSError`.
    """
    request = JobRequest.model_validate(job.spec)
    secrets = {**places.secrets(), **request.secrets}
    values = {variable: read_secret(settings, name) for variable, name in secrets.items()}
    folder = settings.attempts / attempt.id
    prepare_folder(
        folder,
        {
            "format": 1,
            "attempt": attempt.id,
            "job": job.id,
            "spec": job_spec(job, request, places).document(),
            "code": str(code_tree(settings, request)),
            "secret_names": sorted(values),
            "limits": limits_of(request.resources, own_user=bool(settings.job_user)),
            "longest_log": settings.longest_log,
            "last_push_s": LAST_PUSH_S,
        },
    )
    return Launch(
        attempt.id, folder, {**inherited(os.environ), **request.environment, **values},
        secret_names=tuple(values), resources=request.resources.model_dump(),
    )  # fmt: skip


def job_spec(job: Job, request: JobRequest, places: Places) -> JobSpec:
    """What the agent is told. A job that has committed goes on, whatever was asked for at first."""
    script, *arguments = request.command
    data = places.inputs.get("data_url") or next(iter(places.inputs.values()), None)
    save = request.save
    return JobSpec(
        script=script,
        output=places.output.url,
        data=data.url if data is not None else "",
        arguments=tuple(arguments),
        predownload="latest" if job.committed else request.output.predownload,
        pass_as=request.output.pass_as,
        verb="auto" if job.committed or places.branch_from else request.verb,
        branch_from="" if job.committed else places.branch_from,
        single_writer=places.output.single_writer,
        keep_last=save.keep_last,
        keep_every=save.keep_every,
        keep_best=save.keep_best,
        save_every_steps=save.every_steps,
        save_every_seconds=save.every_seconds,
        grace_s=request.grace_s,
    )


def code_tree(settings: Settings, request: JobRequest) -> Path:
    """Where the job's code is, as it was when the job was submitted."""
    digest = request.code.digest
    if digest is None:
        raise UsageError("the code of this job is not pinned", do="submit it again")
    tree = settings.code / digest / "tree"
    if not tree.is_dir():
        raise JobError(
            f"the code {digest[:12]}… is not here", why=f"there is no folder {tree}",
            do="restore the server's folder, or submit the job again",
        )  # fmt: skip
    return tree


def read_secret(settings: Settings, name: str) -> str:
    """The value of a secret. Raises `UsageError` where it does not exist."""
    try:
        return (settings.secrets / name).read_text()
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no secret {name!r}", do="an administrator adds it, then retry the job"
        ) from error


def limits_of(resources: ResourceSpec, *, own_user: bool) -> dict[str, int]:
    """What the kernel holds every process of the script to (`jobs/limits.py`)."""
    return {
        "data_bytes": resources.memory_bytes,
        "cpu_seconds": resources.cpu_seconds,
        "open_files": resources.open_files,
        # The kernel counts a user's processes: those of the server's user are not the job's alone.
        "processes": resources.processes if own_user else 0,
        "file_bytes": resources.file_bytes,
    }


def inherited(variables: Mapping[str, str]) -> dict[str, Any]:
    """What a job sees of the server's own environment: nothing that could be a secret of it."""
    return {
        name: value
        for name, value in variables.items()
        if name in _INHERITED or name.startswith(_INHERITED_KINDS)
    }
