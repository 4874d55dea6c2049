"""From a job that has ended to the next one: the same again, or further with what is new.

What has ended stays ended. The next job names it as its parent and shares its output, so that it
begins from the newest checkpoint there.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from onward.jobs.states import TERMINAL_JOBS
from onward.server.database.tables import Job
from onward.server.jobs.requests import submit
from onward.server.problems import IllegalMove
from onward.server.spec import IncrementSpec, InputSpec, JobRequest, Name, Parameter, Text

_COMMAND = Annotated[tuple[Text, ...], Field(min_length=1, max_length=1000)]
_INPUTS = Annotated[dict[Parameter, InputSpec], Field(max_length=16)]


class Changes(BaseModel):
    """What is different in the next job; what is left away stays."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name | None = None
    command: _COMMAND | None = None
    inputs: _INPUTS | None = None
    increment: IncrementSpec | None = None


def retry(session: Session, job: Job, *, by: str) -> Job:
    """The same again, by the same code. Raises `IllegalMove` for a job that has not ended."""
    _need_end(job, "tried again")
    document = dict(job.spec)
    if job.committed:
        # It began already: whatever was insisted on then, the next goes on from its checkpoint.
        document = _from_newest(document)
    return submit(session, JobRequest.model_validate(document), by=by, parent=job.id)


def continue_(session: Session, job: Job, changes: Changes, *, by: str) -> Job:
    """Goes on in the job's output: resumes what is unfinished, else learns what is new.

    Raises `IllegalMove` for a job that has not ended.
    """
    _need_end(job, "continued")
    document = _from_newest(dict(job.spec))
    given = changes.model_dump(mode="json", exclude_none=True, exclude_unset=True)
    return submit(session, JobRequest.model_validate({**document, **given}), by=by, parent=job.id)


def _from_newest(document: dict[str, Any]) -> dict[str, Any]:
    document = {k: v for k, v in document.items() if k not in ("verb", "branch_from")}
    output = dict(document["output"])
    if output.get("predownload", "latest") != "all":
        output.pop("predownload", None)
    return {**document, "output": output}


def _need_end(job: Job, what: str) -> None:
    if job.state not in TERMINAL_JOBS:
        raise IllegalMove(
            f"job {job.id} is {job.state}",
            why=f"only what has ended is {what}",
            do="`onward resume` goes on with a paused job; `onward wait` waits for the end",
        )
