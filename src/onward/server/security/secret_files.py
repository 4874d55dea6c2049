"""The values of secrets: a file of mode 0600 for each, and nowhere else."""

from __future__ import annotations

import re

from onward.errors import UsageError
from onward.server.settings import Settings

NAME = r"[a-z0-9][a-z0-9._-]{0,62}"


def read_secret(settings: Settings, name: str) -> str:
    """The value of a secret. Raises `UsageError` where it does not exist."""
    if not re.fullmatch(NAME, name):
        raise UsageError("that is no name of a secret")
    try:
        return (settings.secrets / name).read_text()
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no secret {name!r}", do="an administrator adds it, then retry the job"
        ) from error
