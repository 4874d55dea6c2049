"""The values of secrets: a file of mode 0600 for each, and nowhere else."""

from __future__ import annotations

import contextlib
import os
import re
import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import UsageError
from onward.server.database.tables import Secret
from onward.server.names import now_s
from onward.server.problems import NotFound
from onward.server.settings import Settings
from onward.stores.os_errors import written

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


def write_secret(settings: Settings, session: Session, name: str, value: str, *, by: str) -> Secret:
    """Keeps a value under a name, in the place of an earlier one. The database gets the name only.

    Jobs that start from here on get the new value.
    """
    if not re.fullmatch(NAME, name):
        raise UsageError("that is no name of a secret", do="use a-z, 0-9, '.', '_' and '-'")
    settings.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
    target = settings.secrets / name
    fresh = settings.secrets / f".{name}.{secrets.token_hex(8)}"
    with written("the secret was not kept"):
        try:
            file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with open(file, "w", encoding="utf-8", newline="") as stream:
                stream.write(value)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(fresh, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                fresh.unlink()
    row = session.get(Secret, name)
    if row is None:
        row = Secret(name=name, created_at=now_s(), created_by=by)
        session.add(row)
    else:
        row.created_at, row.created_by = now_s(), by
    return row


def delete_secret(settings: Settings, session: Session, name: str) -> Secret:
    """Forgets a secret. Raises `NotFound`. Jobs that name it fail when they start."""
    row = session.get(Secret, name)
    if row is None:
        raise NotFound(f"there is no secret {name!r}")
    session.delete(row)
    with contextlib.suppress(FileNotFoundError):
        (settings.secrets / name).unlink()
    return row


def list_secrets(session: Session) -> list[Secret]:
    """By name. Nobody ever sees a value again."""
    return list(session.scalars(select(Secret).order_by(Secret.name)))
