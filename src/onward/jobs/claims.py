"""Whether an earlier agent of the same job committed, though whoever scheduled it never heard."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from onward.jobs.output import existing_repository
from onward.jobs.spec import JobSpec
from onward.stores import LocalStore, open_store
from onward.training.places import working_copies


def going_on(spec: JobSpec, claims: Collection[int]) -> JobSpec:
    """What was asked for; once one of these claims has committed, to go on from there.

    An agent may die between a commit and its word of it. To insist on a beginning then would be
    refused, or would bury what was learned.
    """
    onward = replace(spec, verb="auto", predownload="latest", branch_from="")
    if not claims or onward == spec or not _has_committed(spec.output, claims):
        return spec
    return onward


def _has_committed(output: str, claims: Collection[int]) -> bool:
    """At the output, or in a working copy here that is not pushed yet."""
    for store in (open_store(output), *map(LocalStore, working_copies(output))):
        repository = existing_repository(store)
        if repository is not None and any(
            commit.generation in claims for commit in repository.history.commits.values()
        ):
            return True
    return False
