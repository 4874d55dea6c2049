"""From a job's document to what an engine needs to start its agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onward.engines import Launch
from onward.engines.folder import prepare_folder
from onward.engines.own_user import user_of
from onward.errors import JobError, UsageError
from onward.server.code import checked_tree
from onward.server.database.tables import Attempt, Job
from onward.server.jobs.translation import Places, job_spec, places_of
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.spec import JobRequest

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
    home = _open_ways(settings) if settings.job_user else {}
    prepare_folder(
        folder,
        {
            "format": 1,
            "attempt": attempt.id,
            "job": job.id,
            "spec": job_spec(request, places, committed=job.committed).document(),
            "code": str(code_tree(settings, request)),
            "claims": list(job.progress.get("claims", [])),
            "secret_names": sorted(values),
            "resources": request.resources.model_dump(),
            "user": settings.job_user,
            "longest_log": settings.longest_log,
            "last_push_s": LAST_PUSH_S,
        },
    )
    return Launch(
        attempt.id, folder, {**inherited(os.environ), **home, **request.environment, **values},
        secret_names=tuple(values), resources=request.resources.model_dump(),
    )  # fmt: skip


def code_tree(settings: Settings, request: JobRequest) -> Path:
    """Where the job's code is, as it was when the job was submitted. Raises `Damaged`."""
    digest = request.code.digest
    if digest is None:
        raise UsageError("the code of this job is not pinned", do="submit it again")
    return checked_tree(settings, digest)


def check_user(settings: Settings) -> None:
    """Raises `UsageError` where jobs cannot run as the user that was chosen for them."""
    if not settings.job_user:
        return
    if os.getuid() != 0:
        raise UsageError(
            f"jobs cannot run as {settings.job_user!r}", why="only root starts others' processes",
            do="start the server as root, or leave --job-user away",
        )  # fmt: skip
    try:
        user_of(settings.job_user)
    except JobError as error:
        raise UsageError(error.what, do=error.do) from error


def _open_ways(settings: Settings) -> dict[str, str]:
    """The job's user passes through our folders, reads none of them, and keeps working copies."""
    user = user_of(settings.job_user)
    for folder in (settings.folder, settings.attempts):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)
    working = settings.folder / "working"
    working.mkdir(exist_ok=True, mode=0o700)
    os.chown(working, user.pw_uid, user.pw_gid)
    return {"ONWARD_HOME": str(working)}


def inherited(variables: Mapping[str, str]) -> dict[str, Any]:
    """What a job sees of the server's own environment: nothing that could be a secret of it."""
    return {
        name: value
        for name, value in variables.items()
        if name in _INHERITED or name.startswith(_INHERITED_KINDS)
    }
