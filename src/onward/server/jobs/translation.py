"""From a job's document to what an agent is told: the one place that knows both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sqlalchemy.orm import Session

from onward.jobs.spec import DATA_NAME, Input, JobSpec
from onward.server import storages
from onward.server.spec import JobRequest


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


def data_of(request: JobRequest) -> str:
    """The name of the input whose growth counts: the one called `data_url`, or the only one."""
    if DATA_NAME in request.inputs:
        return DATA_NAME
    return next(iter(request.inputs)) if len(request.inputs) == 1 else ""


def job_spec(request: JobRequest, places: Places, *, committed: bool = False) -> JobSpec:
    """What the agent is told. A job that has committed goes on, whatever was asked for at first."""
    script, *arguments = request.command
    data = data_of(request)
    save, increment = request.save, request.increment
    return JobSpec(
        script=script,
        output=places.output.url,
        output_name=request.output.name,
        data=places.inputs[data].url if data else "",
        data_name=data or DATA_NAME,
        data_pass_as=request.inputs[data].pass_as if data else "",
        inputs=tuple(
            Input(name, places.inputs[name].url, each.pass_as)
            for name, each in request.inputs.items()
            if name != data
        ),
        arguments=tuple(arguments),
        predownload="latest" if committed else request.output.predownload,
        pass_as=request.output.pass_as,
        verb="auto" if committed or places.branch_from else request.verb,
        branch_from="" if committed else places.branch_from,
        single_writer=places.output.single_writer,
        strategy=increment.strategy,
        budget=increment.budget,
        margin=increment.margin,
        promote=increment.promote,
        keep_last=save.keep_last,
        keep_every=save.keep_every,
        keep_best=save.keep_best,
        save_every_steps=save.every_steps,
        save_every_seconds=save.every_seconds,
        grace_s=request.grace_s,
    )
