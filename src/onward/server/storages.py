"""Places that an administrator registered, and locations in them: `alias:path`.

Every location of a job goes through here twice. `normalise` writes it in its one form when it is
submitted, `resolve` says where it is when it is used, and looks again: links may have changed. A
path is plain names between slashes, so that nothing in it can mean something else to a store, a
URL or a command. What leaves its storage, by a link too, is refused.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session

from onward.errors import AlreadyExists, BadURL, Conflict, UsageError
from onward.jobs.states import TERMINAL_JOBS
from onward.server.database.tables import Job, Secret, Storage
from onward.server.names import now_s
from onward.server.problems import NotFound
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.spec import JobRequest
from onward.stores import Location, Store, open_store, parse
from onward.stores.urls import SCHEMES

ALIAS = r"[a-z0-9][a-z0-9._-]{0,62}"
VARIABLE = r"(AWS|OBS|GOOGLE|AZURE)_[A-Z0-9_]{1,80}"
"""What the clients of object stores read. No other variable may get a secret of a storage."""

_LONGEST_PATH = 2000
_LONGEST_NAME_BYTES = 255
_FORBIDDEN = re.compile(r'[\\;#?%@<>|"\x00-\x1f\x7f]')
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


@dataclass(frozen=True, slots=True)
class Resolved:
    """A place. `environment`: variables that its store needs, and the secrets they get.

    `alias` and `path` are the one form of its location, which `location` writes.
    """

    url: str
    environment: Mapping[str, str] = field(default_factory=dict)
    single_writer: bool = False
    alias: str = ""
    path: str = ""
    root: str = ""
    """Of a folder storage: the folder, its links followed."""

    @property
    def location(self) -> str:
        return f"{self.alias}:{self.path}"


def list_storages(session: Session) -> list[Storage]:
    """By alias."""
    return list(session.scalars(select(Storage).order_by(Storage.alias)))


def find_storage(session: Session, alias: str) -> Storage:
    """Raises `NotFound`."""
    storage = session.get(Storage, alias) if re.fullmatch(ALIAS, alias) else None
    if storage is None:
        raise NotFound(f"there is no storage {alias!r}", do="an administrator registers storages")
    return storage


def register(
    session: Session,
    settings: Settings,
    alias: str,
    url: str,
    *,
    by: str,
    single_writer: bool = False,
    environment: Mapping[str, str] | None = None,
) -> Storage:
    """A new storage: a folder that exists, or a bucket's prefix.

    Raises `UsageError` for what cannot be one, `AlreadyExists` for an alias that is taken and
    `Conflict` where it and another would hold the same places: then one output could be trained
    under two names.
    """
    _check_alias(alias)
    location = _checked_place(settings, url)
    wanted = dict(environment or {})
    for variable, secret in wanted.items():
        if not re.fullmatch(VARIABLE, variable):
            raise UsageError(
                f"{variable!r} is no variable of a store",
                do="use one that begins with AWS_, OBS_, GOOGLE_ or AZURE_",
            )
        if session.get(Secret, secret) is None:
            raise UsageError(f"there is no secret {secret!r}", do="add the secret first")
    if session.get(Storage, alias) is not None:
        raise AlreadyExists(f"there is a storage {alias!r} already", do="choose another alias")
    for other in list_storages(session):
        if _overlap(location, parse(other.url)):
            raise Conflict(
                f"{location.display} and the storage {other.alias!r} hold the same places",
                why=f"{other.alias} is {parse(other.url).display}",
                do=f"use {other.alias}:PATH, or register a place beside it",
            )
    storage = Storage(
        alias=alias, url=location.url, single_writer=single_writer, environment=wanted,
        created_at=now_s(), created_by=by,
    )  # fmt: skip
    session.add(storage)
    session.flush()
    return storage


def remove(session: Session, alias: str) -> Storage:
    """Forgets a storage; nothing in it is touched. Raises `Conflict` while jobs use it."""
    storage = find_storage(session, alias)
    open_jobs = session.scalars(select(Job).where(Job.state.not_in(sorted(TERMINAL_JOBS))))
    using = [job.id for job in open_jobs if alias in _aliases_of(job)]
    if using:
        raise Conflict(
            f"the storage {alias!r} is in use",
            why=f"by {', '.join(using[:5])}" + (" and others" if len(using) > 5 else ""),
            do="wait for these jobs, or cancel them",
        )
    session.delete(storage)
    return storage


def resolve(session: Session, location: str) -> Resolved:
    """Where `alias:path` is. A folder's links are followed, and must stay in their storage.

    Raises `NotFound` for an alias that nobody registered, `UsageError` for a path that is none or
    that leaves its storage.
    """
    alias, colon, path = location.partition(":")
    if not colon:
        raise UsageError(f"{shown(location)} is no location", do="write ALIAS:PATH")
    return resolve_in(find_storage(session, alias), path)


def resolve_in(storage: Storage, path: str) -> Resolved:
    """Where `path` is in a storage, as `resolve` says."""
    path = checked_path(path)
    root = parse(storage.url)
    common = (dict(storage.environment), storage.single_writer, storage.alias)
    if not root.is_local:
        prefix = "/".join(part for part in (root.prefix, path) if part)
        place = Location(root.scheme, root.bucket, prefix, root.options)
        return Resolved(place.url, *common, path)
    home = os.path.realpath(root.prefix)
    real = os.path.realpath(os.path.join(home, path))
    if not Path(real).is_relative_to(home):
        raise UsageError(
            f"{storage.alias}:{path} leaves its storage", why="a symbolic link leads out of it"
        )
    inside = "" if real == home else os.path.relpath(real, home)
    return Resolved(real, *common, checked_path(inside), home)


def normalise(session: Session, text: str, *, name: str = "location") -> str:
    """The one way to write a location: `alias:path`, links followed.

    Takes also a URL or an absolute path that lies in a registered storage. Raises `UsageError`,
    which says what `name` is wrong, for everything else.
    """
    try:
        if "://" in text or text.startswith("/"):
            return _translated(session, text)
        return resolve(session, text).location
    except (NotFound, UsageError, BadURL) as error:
        raise UsageError(
            f"{name}: {error.what}", why=error.why, do=error.do or "write ALIAS:PATH"
        ) from error


def normalise_request(session: Session, request: JobRequest) -> JobRequest:
    """The same job with every location in its one form. Raises `UsageError`, naming the field."""
    output = request.output.model_copy(
        update={"location": normalise(session, request.output.location, name="output.location")}
    )
    inputs = {
        name: each.model_copy(
            update={"location": normalise(session, each.location, name=f"inputs.{name}.location")}
        )
        for name, each in request.inputs.items()
    }
    for name, each in inputs.items():
        if _is_within(output.location, each.location):
            raise UsageError(
                f"output.location: {output.location} lies in {each.location}, the input {name}",
                why="every checkpoint would count as new data",
                do="choose an output beside the data",
            )
    branch = request.branch_from
    if branch:
        where, at, checkpoint = branch.rpartition("@") if "@" in branch else (branch, "", "")
        if at and not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", checkpoint):
            raise UsageError(
                f"branch_from: {shown(checkpoint)} names no checkpoint",
                do="write ALIAS:PATH@CHECKPOINT",
            )
        branch = normalise(session, where, name="branch_from") + at + checkpoint
    code = request.code
    for name in ("folder", "archive"):
        where = getattr(code, name)
        if where is not None:
            code = code.model_copy(update={name: normalise(session, where, name=f"code.{name}")})
    return request.model_copy(
        update={"output": output, "inputs": inputs, "branch_from": branch, "code": code}
    )


def open_location(
    session: Session, settings: Settings, location: str, *, deadline_s: float = 20.0
) -> Store:
    """The store at `alias:path`, with the keys of its storage."""
    return open_resolved(settings, resolve(session, location), deadline_s=deadline_s)


def open_resolved(settings: Settings, place: Resolved, *, deadline_s: float = 20.0) -> Store:
    """As `open_location`. The environment of the server itself does not count."""
    return open_store(place.url, deadline_s=deadline_s, environment=environment_of(settings, place))


def environment_of(settings: Settings, place: Resolved) -> dict[str, str]:
    """The variables that a place's store needs, with their secrets' values: never to be shown."""
    return {name: read_secret(settings, secret) for name, secret in place.environment.items()}


def checked_path(path: str) -> str:
    """`path` itself, without a slash at its end, if it is plain names between slashes.

    Raises `UsageError` for '.' and '..', empty names, a slash at the beginning, and characters that
    mean something in URLs and commands, that cannot be seen, or that change the order of others.
    """
    path = path.removesuffix("/")
    if not path:
        return ""
    if len(path) > _LONGEST_PATH:
        raise UsageError(f"a path of {len(path):,} characters is too long")
    if path.startswith("/"):
        raise UsageError(f"the path {shown(path)} begins with a slash", do="write it without")
    if any(part in ("", ".", "..") or part != part.strip() for part in path.split("/")):
        raise UsageError(
            f"the path {shown(path)} has empty parts, '.', '..' or spaces around a name"
        )
    if not is_plain(path):
        raise UsageError(
            f"the path {shown(path)} has characters that no location may have",
            why='backslash, ; # ? % @ < > | ", and what cannot be seen',
        )
    if any(len(part.encode()) > _LONGEST_NAME_BYTES for part in path.split("/")):
        raise UsageError(f"a name in {shown(path)} is too long")
    return path


def is_plain(text: str) -> bool:
    """Whether every character may be part of a path."""
    return not _FORBIDDEN.search(text) and (
        text.isascii() or not any(unicodedata.category(char) in _INVISIBLE for char in text)
    )


def shown(text: str) -> str:
    """Quoted, short, and with nothing in it that could move or hide what stands around it."""
    cut = text if len(text) <= 200 else text[:200] + "…"
    return "'" + "".join(
        char if unicodedata.category(char) not in _INVISIBLE
        else char.encode("unicode_escape", "surrogatepass").decode("ascii")
        for char in cut
    ) + "'"  # fmt: skip


def _check_alias(alias: str) -> None:
    if not re.fullmatch(ALIAS, alias):
        raise UsageError(
            f"{shown(alias)} is no alias", do="use up to 63 of a-z, 0-9, '.', '_' and '-'"
        )
    if alias in SCHEMES or alias in ("http", "https"):
        raise UsageError(f"{alias!r} cannot be an alias", why="URLs begin with it")


def _checked_place(settings: Settings, url: str) -> Location:
    if not ("://" in url or url.startswith("/")):
        raise UsageError(
            f"{shown(url)} is no place for a storage",
            do="write an absolute path, or a URL such as s3://bucket/prefix",
        )
    location = parse(url)
    if not location.is_local:
        if location.prefix:
            checked_path(location.prefix)
        return location
    folder = os.path.realpath(location.prefix)
    if not os.path.isdir(folder):
        raise UsageError(f"there is no folder {location.prefix}", do="make it first")
    if not is_plain(folder):
        raise UsageError(f"the path {shown(folder)} has characters that no location may have")
    for own in _own_places(settings):
        if _paths_overlap(folder, own):
            # Its tokens' digests, secrets and logs would be files to browse, and to train on.
            raise UsageError(
                f"the folder {folder} cannot be a storage",
                why=f"the server keeps its own files in {own}",
                do="choose a folder beside it",
            )
    return Location("file", "", folder)


def _own_places(settings: Settings) -> Iterable[str]:
    yield os.path.realpath(settings.folder)
    database = make_url(settings.database_url)
    if database.get_backend_name() == "sqlite" and database.database not in (None, "", ":memory:"):
        yield os.path.realpath(str(database.database))


def _overlap(one: Location, other: Location) -> bool:
    if one.is_local and other.is_local:
        return _paths_overlap(os.path.realpath(one.prefix), os.path.realpath(other.prefix))
    if (one.scheme, one.bucket, one.options.get("endpoint")) != (
        other.scheme, other.bucket, other.options.get("endpoint"),
    ):  # fmt: skip
        return False
    return _paths_overlap("/" + one.prefix, "/" + other.prefix)


def _paths_overlap(one: str, other: str) -> bool:
    return Path(one).is_relative_to(other) or Path(other).is_relative_to(one)


def _translated(session: Session, text: str) -> str:
    asked = parse(text)
    found = [
        resolve_in(storage, path).location
        for storage in list_storages(session)
        if (path := _path_in(parse(storage.url), asked)) is not None
    ]
    if not found:
        raise UsageError(
            f"{shown(asked.display)} lies in no storage",
            do="an administrator registers storages; write ALIAS:PATH",
        )
    if len(found) > 1:
        raise UsageError(
            f"{shown(asked.display)} lies in several storages",
            why=" and ".join(found),
            do="write ALIAS:PATH",
        )
    return found[0]


def _path_in(root: Location, asked: Location) -> str | None:
    """The path of a place within a storage, or None where it lies elsewhere."""
    if root.is_local != asked.is_local:
        return None
    if root.is_local:
        # Links in front of the storage are followed; those within it are for `resolve_in`.
        for one, home in (
            (asked.prefix, root.prefix),
            (os.path.realpath(asked.prefix), os.path.realpath(root.prefix)),
        ):
            if Path(one).is_relative_to(home):
                return "" if one == home else os.path.relpath(one, home)
        return None
    if (root.scheme, root.bucket) != (asked.scheme, asked.bucket):
        return None
    if asked.options and dict(asked.options) != dict(root.options):
        return None
    if not root.prefix or asked.prefix == root.prefix:
        return asked.prefix[len(root.prefix) :]
    return (
        asked.prefix[len(root.prefix) + 1 :] if asked.prefix.startswith(root.prefix + "/") else None
    )


def _is_within(inner: str, outer: str) -> bool:
    alias, _, path = inner.partition(":")
    other, _, above = outer.partition(":")
    return alias == other and (not above or path == above or path.startswith(above + "/"))


def _aliases_of(job: Job) -> set[str]:
    request = JobRequest.model_validate(job.spec)
    places = [request.output.location, request.branch_from]
    places += [each.location for each in request.inputs.values()]
    return {place.partition(":")[0] for place in places if place}
