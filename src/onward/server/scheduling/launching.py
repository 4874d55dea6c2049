"""From a job's document to what an engine needs to start its agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onward.engines import Launch
from onward.engines.folder import prepare_folder
from onward.errors import UsageError
from onward.server.code import checked_tree
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.translation import Places, job_spec, places_of
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.spec import JobRequest, ResourceSpec

__all__ = ["Places", "places_of", "prepare"]

LAST_PUSH_S = 120.0
"""How long an agent tries to push what is left when its script has ended."""

_INHERITED = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH",
    "VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY",
    "NO_PROXY", "http_proxy", "https_proxy", "no_proxy", "ONWARD_HOME", "ONWARD_SPACE",
)  # fmt: skip
_INHERITED_KINDS = ("LC_", "CUDA_", "NVIDIA_", "ASCEND_", "HCCL_", "NCCL_", "OMP_", "MKL_", "XDG_")


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
            "spec": job_spec(request, places, committed=job.committed).document(),
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


def code_tree(settings: Settings, request: JobRequest) -> Path:
    """Where the job's code is, as it was when the job was submitted. Raises `Damaged`."""
    digest = request.code.digest
    if digest is None:
        raise UsageError("the code of this job is not pinned", do="submit it again")
    return checked_tree(settings, digest)


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
