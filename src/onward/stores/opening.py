"""From a URL to its store."""

from __future__ import annotations

import os
from collections.abc import Mapping

from onward.stores.base import Store
from onward.stores.local import LocalStore
from onward.stores.objects import ObjectStore
from onward.stores.urls import parse


def open_store(
    url: str | os.PathLike[str],
    *,
    deadline_s: float = 60.0,
    environment: Mapping[str, str] | None = None,
) -> Store:
    """The store at `url`. Nothing is asked of it yet, so that nothing is known to be there.

    Raises `BadURL`, or `UsageError` where a package, an endpoint or keys are missing. `deadline_s`
    limits how long an object store may stay silent or keep failing. Endpoints and keys come from
    `environment`, which is the process's own unless given.
    """
    location = parse(url)
    if location.is_local:
        return LocalStore(location.prefix)
    return ObjectStore(location, deadline_s=deadline_s, environment=environment)
