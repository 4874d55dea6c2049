"""The trackers of a run: which series an increment is, and what the log tells of those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from onward.learning.evidence import began_from
from onward.learning.rounds import Round, rounds
from onward.repository import Commit, History, Repository
from onward.stores import parse
from onward.trackers import Row, Series, Tracker, trackers_of
from onward.training.environment import Environment
from onward.training.opening import Beginning
from onward.training.tracking import Tracking, model_values


def tracking_for(
    asked: str | Tracker | Sequence[str | Tracker],
    agent: Environment,
    place: str,
    *,
    every_steps: int,
    say: Callable[[str], None],
) -> Tracking:
    """The trackers that the script asks for, and those that `onward run` was told beside.

    None for an audit, whose output is deleted. Raises `UsageError` where one cannot work here.
    """
    found = trackers_of(asked)
    found += trackers_of([n for n in agent.track if n not in [tracker.name for tracker in found]])
    location = parse(place)
    folder = Path(location.prefix) if location.is_local else None
    for tracker in found:
        tracker.check(folder)
    return Tracking([] if agent.audit_of else found, every_steps=every_steps, say=say)


def begin_tracking(
    tracking: Tracking,
    repository: Repository,
    beginning: Beginning,
    *,
    output: str,
    step: int,
    config: Mapping[str, Any] | None,
) -> None:
    """The run is open: from here on its trackers may be told."""
    history = repository.history
    series = series_of(history, beginning, output=output, step=step, config=config or {})
    tracking.begin(series, finished_rows(history, beginning.commit))


def series_of(
    history: History,
    beginning: Beginning,
    *,
    output: str,
    step: int,
    config: Mapping[str, Any],
) -> Series:
    """The series of a run that begins so, at the optimizer step `step`.

    Its name follows from the log alone: a process that was killed before it saved anything is
    followed by one of the same name.
    """
    known = rounds(history)
    commit = beginning.commit
    facts = {"verb": beginning.verb, "increment": str(beginning.increment)}
    if commit is not None and beginning.verb == "resume":
        facts["resumed_from"] = commit.checkpoint
    parent = commit.checkpoint if commit is not None and commit.finished else None
    if commit is not None and not commit.finished:
        parent = began_from(history, commit)
    if parent is not None:
        facts["parent"] = parent
    if beginning.origin is not None:
        facts["branched_from"] = f"{beginning.origin['url']}@{beginning.origin['checkpoint']}"
    return Series(
        repository=history.repository,
        output=output,
        name=name_of_series(known, beginning.increment, commit),
        increment=beginning.increment,
        step=step,
        goes_on_at=step,
        facts=facts,
        config=config,
        finished=frozenset(
            name_of_series(known, one.increment, one.tip, of_tip=True)
            for one in known
            if one.finished
        ),
    )


def name_of_series(
    known: list[Round], increment: int, commit: Commit | None, *, of_tip: bool = False
) -> str:
    """Such as `increment-2`; `increment-2-again-1` for the second that went on from increment 1;
    `increment-2-from-500` for one that left another's path at step 500.
    """
    alike = [one for one in known if one.increment == increment]
    mine = next((one for one in alike if commit is not None and commit in one.commits), None)
    if mine is None or commit is None or (commit.finished and not of_tip):
        return _numbered(f"increment-{increment}", "again", len(alike))
    name = _numbered(f"increment-{increment}", "again", alike.index(mine))
    path = _path(mine, commit)
    children: dict[str | None, list[str]] = {}
    for one in mine.commits:
        children.setdefault(one.parent, []).append(one.checkpoint)
    for before, after in zip(path, [*path[1:], None], strict=True):
        if after is None and of_tip:
            break
        others = children.get(before.checkpoint, [])
        place = others.index(after.checkpoint) if after is not None else len(others)
        if place:
            name += f"-from-{before.step}" + (f"-{place}" if place > 1 else "")
    return name


def finished_rows(history: History, commit: Commit | None) -> list[Row]:
    """What the model's own curves show: one row for each finished increment before `commit`."""
    rows = [
        Row(one.step, model_values(one), datetime.fromisoformat(one.time).timestamp())
        for one in _ancestors(history, commit)
        if one.finished
    ]
    return rows[::-1]


def _ancestors(history: History, commit: Commit | None) -> Iterator[Commit]:
    at = commit
    while at is not None:
        yield at
        at = history.commits.get(at.parent) if at.parent is not None else None


def _path(mine: Round, commit: Commit) -> list[Commit]:
    """From the first checkpoint of the round to `commit`."""
    by_id = {one.checkpoint: one for one in mine.commits}
    path: list[Commit] = []
    at: Commit | None = commit
    while at is not None:
        path.append(at)
        at = by_id.get(at.parent) if at.parent is not None else None
    return path[::-1]


def _numbered(name: str, word: str, number: int) -> str:
    return f"{name}-{word}-{number}" if number else name
