"""What a job would do, before anybody submits it: `onward run --dry-run`, asked for by a form."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from onward.errors import BadURL, Missing, OnwardError, UsageError
from onward.server.children import ask_child
from onward.server.code import checked_tree
from onward.server.database import Database
from onward.server.jobs.translation import job_spec, places_of
from onward.server.jobs.writing import as_command, as_curl, as_toml
from onward.server.problems import BadCode, problem_of
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.server.storages import normalise_request, open_location

_TIMEOUT_S = 30.0


def plan(
    settings: Settings, database: Database, request: JobRequest, *, address: str = ""
) -> dict[str, Any]:
    """The plan, or the problem that the job would have; and the same job in other writing.

    Changes nothing. `plan` is what `onward run --dry-run --json` says: the checkpoint that will be
    fetched and why, its size, what is free, the data and whether it is new, batches.
    """
    document = request.document()
    answer: dict[str, Any] = {
        "plan": None,
        "problem": None,
        "budget": request.increment.budget,
        "predownload": request.output.predownload,
        "request": document,
        "command": "",
        "submit": "onward submit job.toml",
        "toml": as_toml(document),
        "curl": as_curl(document, address or f"http://{settings.host}:{settings.port}"),
    }
    try:
        with database.read() as session:
            request = normalise_request(session, request)
            places = places_of(session, request)
        document = request.document()
        spec = job_spec(request, places)
        answer.update(
            request=document,
            toml=as_toml(document),
            curl=as_curl(document, address or f"http://{settings.host}:{settings.port}"),
            command=as_command(spec),
        )
        _check_script(settings, database, request)
        environment = {
            name: read_secret(settings, secret) for name, secret in places.secrets().items()
        }
        with tempfile.TemporaryDirectory(prefix="onward-plan-") as folder:
            # The plan needs to see a script, not to read it.
            script = Path(folder) / spec.script
            script.parent.mkdir(parents=True, exist_ok=True)
            script.touch()
            answer["plan"] = ask_child(
                "plan", spec.document(), environment=environment, folder=Path(folder),
                timeout_s=_TIMEOUT_S,
            )  # fmt: skip
    except OnwardError as error:
        answer["problem"] = problem_of(error)
    return answer


def _check_script(settings: Settings, database: Database, request: JobRequest) -> None:
    """Raises `BadCode` where it is known that the code has no such script."""
    script, code = request.command[0], request.code
    if code.digest is not None:
        if not (checked_tree(settings, code.digest) / script).is_file():
            raise BadCode(f"the code has no file {script}", do="give its path within the code")
    elif code.folder is not None:
        with database.read() as session:
            store = open_location(session, settings, code.folder, deadline_s=10.0)
        try:
            store.size(script)
        except (Missing, BadURL) as error:
            raise BadCode(
                f"there is no file {script} in {code.folder}", do="give its path within the code"
            ) from error
    elif code.archive is not None or code.git is not None:
        return  # known once it is fetched, when the job is submitted
    else:
        raise UsageError("there is no code", do="name a folder, a git repository or an archive")
