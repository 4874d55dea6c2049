"""`onward doctor`: is this machine ready, and does an output answer as it must?"""

from __future__ import annotations

import os
import platform
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

import click

from onward import _version
from onward.cli.options import json_option, write_json, write_lines
from onward.cli.text import clean, count, painted, size
from onward.errors import NotAnOutput, OnwardError, StoreError
from onward.repository import Repository, open_repository, verify
from onward.stores import LocalStore, Store, honours_create, is_local, open_store, parse
from onward.training.places import home

_NEEDED = ("numpy", "msgspec", "blake3", "click", "rich", "platformdirs")
_EXTRAS = {"torch": "torch", "obstore": "objects"}
_OLDEST_TORCH = (2, 6)
_OLDEST_MINDSPORE = (2, 10)
_LITTLE_SPACE_BYTES = 2_000_000_000
_PATIENCE_S = 15.0
_MOST_LOOKED_THROUGH = 500
_COLOURS = {"ok": "green", "warn": "yellow", "problem": "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One line: `status` is ok, warn or problem; `do` says what would mend it."""

    name: str
    status: str
    found: str
    do: str = ""


@click.command()
@click.argument("output", metavar="[OUTPUT]", default="")
@json_option
def doctor(output: str, as_json: bool) -> int:
    """Check this machine, and with OUTPUT that it answers, may be written and keeps writers apart.

    Exits with 1 if there is a problem. Writes nothing but the short-lived objects of the probe.
    """
    checks = [*_installation(output), *_home()]
    if output:
        checks += _output(output)
    checks += _working_copies(output)
    if as_json:
        write_json(
            {
                "ok": not any(check.status == "problem" for check in checks),
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        write_lines([line for check in checks for line in _lines(check)])
    return int(any(check.status == "problem" for check in checks))


def _lines(check: Check) -> list[str]:
    status = painted(f"{check.status:<7}", _COLOURS[check.status])
    lines = [f"{status}  {check.name}: {clean(check.found)}"]
    if check.do:
        lines.append(f"         what to do: {clean(check.do)}")
    return lines


def _installation(output: str) -> Iterator[Check]:
    machine = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", "ok", machine)
    yield Check("onward", "ok", _version.__version__)
    for package in _NEEDED:
        found = _installed(package)
        if found:
            yield Check(package, "ok", found)
        else:
            yield Check(package, "problem", "not installed", f"pip install {package}")
    yield from _frameworks()
    obstore = _installed("obstore")
    if obstore:
        yield Check("obstore (object stores)", "ok", obstore)
    else:
        needed = bool(output) and "://" in output and not output.startswith("file:")
        yield Check(
            "obstore (object stores)",
            "problem" if needed else "ok",
            "not installed" + ("" if needed else "; only folders can be outputs"),
            "pip install 'onward[objects]'" if needed else "",
        )


def _frameworks() -> Iterator[Check]:
    """One of them is needed to train; of each that is here, whether it is one that works."""
    torch, mindspore = _installed("torch"), _installed("mindspore")
    if torch:
        yield _at_least("torch", torch, _OLDEST_TORCH)
    if mindspore:
        yield _at_least("mindspore", mindspore, _OLDEST_MINDSPORE)
        numpy = _installed("numpy")
        if numpy and _numbers(numpy) >= (2, 0):
            found = f"{numpy}, with which MindSpore fails"
            yield Check("numpy for mindspore", "problem", found, "pip install 'numpy<2'")
    if not torch and not mindspore:
        do = "pip install 'onward[torch]' or 'onward[mindspore]' to train here"
        yield Check("torch or mindspore", "warn", "neither is installed", do)


def _at_least(package: str, found: str, oldest: tuple[int, int]) -> Check:
    if _numbers(found) >= oldest:
        return Check(package, "ok", found)
    wanted = ".".join(map(str, oldest))
    return Check(package, "problem", f"{found} is too old", f"pip install '{package}>={wanted}'")


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])


def _installed(package: str) -> str:
    """The version that is installed, found without importing it; empty if none is."""
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return ""


def _home() -> Iterator[Check]:
    place = home()
    yield _space("ONWARD_HOME", place)
    if not os.access(_existing(place), os.W_OK):
        do = "set ONWARD_HOME to a folder that you may write to"
        yield Check("ONWARD_HOME", "problem", f"{place} may not be written", do)


def _space(name: str, place: Path) -> Check:
    free = shutil.disk_usage(_existing(place)).free
    found = f"{place}, {size(free)} free"
    if free < _LITTLE_SPACE_BYTES:
        return Check(name, "warn", found, "free some space, or choose a larger disk")
    return Check(name, "ok", found)


def _existing(place: Path) -> Path:
    """The folder, or the nearest one above it that is there."""
    place = place.absolute()
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _output(url: str) -> Iterator[Check]:
    try:
        location = parse(url)
        store = open_store(url, deadline_s=_PATIENCE_S)
    except OnwardError as error:
        yield _problem("output", error)
        return
    if location.is_local:
        yield _space("output's disk", Path(location.prefix))
    repository: Repository | None = None
    try:
        repository = open_repository(store)
    except NotAnOutput:
        yield _nothing_there(location.display, store)
        if location.is_local:
            return
    except OnwardError as error:
        yield _problem("output", error)
        if isinstance(error, StoreError):
            return
    if repository is not None:
        yield _contents(repository)
    yield _checked("writing", lambda: _probe(store))
    if repository is not None:
        opened = repository
        yield _checked("state", lambda: _state(opened))


def _nothing_there(where: str, store: Store) -> Check:
    if isinstance(store, LocalStore) and not os.access(_existing(store.folder), os.W_OK):
        do = "choose an output that you may write to"
        return Check("output", "problem", f"{where} may not be written", do)
    return Check("output", "ok", f"{where} is no output yet; the first run makes it one")


def _contents(repository: Repository) -> Check:
    history = repository.history
    found = f"{repository.store.url}, {count(len(history.live()), 'checkpoint')}"
    if history.who:
        found += f"; last claimed by {history.who}"
    return Check("output", "ok", found)


def _probe(store: Store) -> Check:
    if honours_create(store):
        return Check("writing", "ok", "allowed, and two writers are kept apart")
    return Check(
        "writing",
        "warn",
        "allowed, but this store cannot keep two writers apart",
        "use it with --single-writer and see to it that only one run writes there",
    )


def _state(repository: Repository) -> Check:
    """Damage as far as lengths tell, and leftovers."""
    live = repository.history.live()
    if len(live) > _MOST_LOOKED_THROUGH:
        damage = repository.damage(live[-1])
        if damage:
            return Check("state", "problem", f"the newest is damaged: {damage}", "onward verify")
        found = "the newest checkpoint is whole, as far as lengths tell"
        return Check("state", "ok", found, "onward verify looks at all of them")
    findings = verify(repository)
    if not findings.intact:
        found = f"{count(len(findings.damaged), 'thing')} damaged"
        return Check("state", "problem", found, "onward verify says which")
    if findings.leftovers:
        found = f"whole; {count(len(findings.leftovers), 'leftover')} of saves that were cut off"
        return Check("state", "ok", found)
    return Check("state", "ok", "whole, as far as lengths tell")


def _working_copies(output: str) -> Iterator[Check]:
    """Copies of remote outputs on this machine, and what they hold that was not pushed."""
    folders = sorted((home() / "outputs").glob("*/output"))
    copies = [(folder, _opened(folder)) for folder in folders]
    known = [(folder, copy) for folder, copy in copies if copy is not None]
    if not known:
        return
    remote: Repository | None = None
    if output and not is_local_or_bad(output):
        try:
            remote = open_repository(open_store(output, deadline_s=_PATIENCE_S))
        except OnwardError:
            return  # said already
    for folder, copy in known:
        if remote is not None and copy.history.repository == remote.history.repository:
            yield _unpushed(folder, copy, remote)
    if remote is None:
        found = f"{count(len(known), 'working copy').replace('copys', 'copies')} in {home()}"
        do = "name a remote OUTPUT to see whether all of it was pushed"
        yield Check("working copies", "ok", found, do)


def _unpushed(folder: Path, copy: Repository, remote: Repository) -> Check:
    missing = [id_ for id_ in copy.history.commits if id_ not in remote.history.commits]
    if not missing:
        return Check("working copy", "ok", f"{folder}: everything is pushed")
    return Check(
        "working copy",
        "warn",
        f"{folder} holds {count(len(missing), 'checkpoint')} that the output lacks",
        "run the same command again on this machine: it pushes them first, unless another "
        "writer took over",
    )


def _opened(folder: Path) -> Repository | None:
    try:
        return open_repository(LocalStore(folder))
    except OnwardError:
        return None


def is_local_or_bad(url: str) -> bool:
    """Whether there can be no working copy of it."""
    try:
        return is_local(url)
    except OnwardError:
        return True


def _checked(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except OnwardError as error:
        return _problem(name, error)


def _problem(name: str, error: OnwardError) -> Check:
    return Check(name, "problem", error.what + (f": {error.why}" if error.why else ""), error.do)
