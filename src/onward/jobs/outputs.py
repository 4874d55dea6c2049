"""From a job's output URL to the one of two kinds that it is."""

from __future__ import annotations

from onward.jobs.display import Display
from onward.jobs.folder_output import FolderOutput
from onward.jobs.output import JobOutput
from onward.jobs.spec import JobSpec
from onward.jobs.store_output import StoreOutput
from onward.stores import parse


def open_output(spec: JobSpec, display: Display) -> JobOutput:
    """The output of a job, ready for its attempts; it is made if it does not exist."""
    if parse(spec.output).is_local:
        return FolderOutput(spec, display)
    return StoreOutput(spec, display)
