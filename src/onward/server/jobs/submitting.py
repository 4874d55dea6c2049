"""Before a job is submitted: where its code comes from is read, and what it names must exist.

Nothing here changes the database but for the code that is pinned, which doing it twice does not
pin twice. What comes out is all that a job will ever need to know.
"""

from __future__ import annotations

from difflib import get_close_matches

from onward.errors import UsageError
from onward.server import storages
from onward.server.code import pin_code
from onward.server.code.pinning import paths_of
from onward.server.database import Database
from onward.server.database.tables import Webhook
from onward.server.problems import BadCode
from onward.server.security.addresses import public_addresses
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.stores import Store


def prepared(settings: Settings, database: Database, request: JobRequest, *, by: str) -> JobRequest:
    """The job with its locations in their one form and its code pinned.

    Raises `OnwardError` for what could never run.
    """
    with database.read() as session:
        request = storages.normalise_request(session, request)
        for name in request.notify:
            if session.get(Webhook, name) is None:
                raise UsageError(
                    f"there is no webhook {name!r}", do="an administrator registers webhooks"
                )
    pinned = pin_code(
        settings, database, request.code, by=by,
        open_at=lambda location: store_at(settings, database, location), addresses=public_addresses,
    )  # fmt: skip
    _check_script(settings, pinned.digest, request.command[0])
    return request.model_copy(update={"code": pinned.code})


def store_at(settings: Settings, database: Database, location: str) -> Store:
    """The store at a location of a registered storage, with that storage's own keys."""
    with database.read() as session:
        return storages.open_location(session, settings, location)


def _check_script(settings: Settings, digest: str, script: str) -> None:
    paths = paths_of(settings, digest)
    if script in paths:
        return
    name = script.rpartition("/")[2]
    alike = [path for path in paths if path.rpartition("/")[2] == name]
    alike = alike or get_close_matches(script, paths, n=3)
    raise BadCode(
        f"there is no {script!r} in the code",
        why=f"the command begins with the script's path within the code, which has {len(paths):,} "
        "files",
        do=f"did you mean {' or '.join(alike[:3])}" if alike else "check the command and the code",
    )
