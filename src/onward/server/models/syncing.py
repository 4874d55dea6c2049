"""From the log of an output to the rows of its model: what is new is added, nothing is believed.

Rows follow the log by its sequence number. A log that is another one than before, is shorter, or
lacks what was indexed, is indexed anew. What cannot be read is a problem of the model, and of
nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from onward.errors import OnwardError, Unreachable
from onward.facts.data_log import data_facts
from onward.facts.report import gather
from onward.learning.champion import CHAMPION
from onward.learning.matrix import Matrix, matrix_of, metric_text
from onward.learning.rounds import rounds, telling
from onward.repository import Commit, History, Repository
from onward.server.database import Database
from onward.server.database.tables import Checkpoint, Job, Model
from onward.server.models.outputs import opened
from onward.server.names import now_s
from onward.server.settings import Settings

_READS_AT_ONCE = 8
_LARGE_BYTES = 4 << 20
_MOST_BYTES = 64 << 20
_MOST_ROUNDS = 300
"""With more, what was saved is not summed up for the list: it would read a manifest of each."""


def model_id(location: str) -> str:
    """The id of the model at `alias:path`: the same whenever a database is made anew."""
    return f"mdl-{hashlib.sha256(location.encode()).hexdigest()[:20]}"


def enter_model(session: Session, location: str) -> Model:
    """The row of the model at this location, made if there is none."""
    row = session.get(Model, model_id(location))
    if row is None:
        alias, _, path = location.partition(":")
        row = Model(
            id=model_id(location), location=location, name=path.rpartition("/")[2] or alias,
            repository="", seq=-1, champion="", latest="", increments=0, facts={},
            created_at=now_s(), synced_at=None, problem="",
        )  # fmt: skip
        session.add(row)
        session.flush()
    return row


def sync_outputs(
    settings: Settings, database: Database, *, since: float = 0.0,
    stop: Callable[[], bool] = lambda: False,
) -> list[str]:  # fmt: skip
    """Looks at the outputs of jobs that changed since then; returns the ids of their models."""
    with database.read() as session:
        outputs = list(
            session.scalars(select(Job.output).where(Job.updated_at >= since).distinct())
        )
    found = []
    for location in outputs:
        if stop():
            break
        with database.read() as session:
            known = session.get(Model, model_id(location)) is not None
        if not known:
            with database.write() as session:
                enter_model(session, location)
        sync_model(settings, database, model_id(location))
        found.append(model_id(location))
    return found


def sync_model(settings: Settings, database: Database, model: str) -> Model:
    """Brings one model's rows to what its log says now. What is wrong is in `Model.problem`."""
    with database.read() as session:
        row = session.get_one(Model, model)
    try:
        with opened(settings, database, row.location) as repository:
            return sync_from(database, model, repository)
    except OnwardError as error:
        problem = error.what + (f": {error.why}" if error.why else "")
        if problem == row.problem:
            return row
        with database.write() as session:
            row = session.get_one(Model, model, with_for_update=True)
            row.problem = _storable(problem)
            row.synced_at = now_s()
            return row


def sync_from(database: Database, model: str, repository: Repository) -> Model:
    """As `sync_model`, from a repository that is open. The caller keeps others out."""
    history = repository.history
    latest = history.latest()
    newest = latest.checkpoint if latest else ""
    with database.read() as session:
        row = session.get_one(Model, model)
        seen = (row.repository, row.seq)
        is_same = row.repository == history.repository and row.seq <= history.seq
        if is_same and row.seq == history.seq and row.latest == newest and not row.problem:
            return row
        known: set[str] = set()
        if is_same:
            known.update(
                session.scalars(select(Checkpoint.checkpoint).where(Checkpoint.model == model))
            )
    if not known <= history.commits.keys():
        # The output was put back to an earlier moment, and went on from there.
        is_same, known = False, set()
    fresh = [commit for id_, commit in history.commits.items() if id_ not in known]
    rows = _rows(model, repository, fresh)
    is_billed = is_same and not any(commit.finished for commit in fresh)
    is_billed = is_billed and row.facts.get("audits") == _audits(history)
    summary = summary_of(
        repository, saved=row.facts.get("saved") if is_billed else _saved(repository)
    )
    with database.write() as session:
        row = session.get_one(Model, model, with_for_update=True)
        if (row.repository, row.seq) != seen:
            return row  # somebody else brought it up to date meanwhile
        if not is_same:
            session.execute(delete(Checkpoint).where(Checkpoint.model == model))
        for start in range(0, len(rows), 500):
            session.execute(insert(Checkpoint), rows[start : start + 500])
        _mark_dropped(session, model, known & history.dropped)
        row.repository, row.seq = history.repository, history.seq
        row.champion = history.aliases.get(CHAMPION, "")
        row.latest = newest
        row.increments = max(
            (c.increment for c in history.commits.values() if c.finished), default=0
        )
        row.facts = summary
        row.problem = ""
        row.synced_at = now_s()
        return row


def summary_of(repository: Repository, *, saved: dict[str, Any] | None) -> dict[str, Any]:
    """What lists show of a model, from its log, beside what it saved."""
    history = repository.history
    latest, champion = history.latest(), history.commits.get(history.aliases.get(CHAMPION, ""))
    summary: dict[str, Any] = _storable(
        {
            "latest": _brief(history, latest),
            "champion": _brief(history, champion),
            "checkpoints": len(history.commits) - len(history.dropped),
            "aliases": dict(sorted(history.aliases.items())),
            "pins": sorted(history.pins),
            "generation": history.generation,
            "claimed_by": history.who,
            "worst_forgetting": worst_forgetting(matrix_of(history)),
            "saved": saved,
            "audits": _audits(history),
        }
    )
    return summary


def worst_forgetting(matrix: Matrix) -> dict[str, Any] | None:
    """The holdout that lost most since it was known best; None where nothing was lost.

    Losses of different metrics are compared as shares of the best score.
    """
    found: dict[str, Any] | None = None
    for name, frozen in matrix.holdouts.items():
        lost = matrix.forgotten(name)
        if lost is None or lost <= 0 or matrix.last is None:
            continue
        past = {
            i: score for i, row in matrix.rows.items()
            if i != matrix.last and (score := row.get(name)) is not None
        }  # fmt: skip
        best = (min if frozen.lower else max)(past, key=lambda i: past[i])
        share = lost / abs(past[best]) if past[best] else float(lost)
        if found is None or share > found["share"]:
            found = {
                "holdout": name, "metric": metric_text(frozen), "best": past[best],
                "best_increment": best, "now": matrix[matrix.last, name], "lost": lost,
                "share": share,
            }  # fmt: skip
    return found


def tells_little(history: History) -> bool:
    """Whether what tells of costs may be read here: manifests that are neither many nor large."""
    found = rounds(history)
    if len(found) > _MOST_ROUNDS:
        return False
    sizes = [history.manifest_place(commit).size for commit in telling(found, history)]
    return sum(sizes) <= _MOST_BYTES


def _audits(history: History) -> int:
    return sum(map(len, history.audits.values()))


def _saved(repository: Repository) -> dict[str, Any] | None:
    if not tells_little(repository.history):
        return None
    try:
        total = gather(repository).bill.totals["steps"]
    except Unreachable:
        return None
    if not total.increments or total.ratio is None:
        return None
    return {
        "share": 1 - total.ratio, "steps": total.compared, "retrain_steps": total.retrain,
        "increments": total.increments, "estimated": total.estimated,
    }  # fmt: skip


def _rows(model: str, repository: Repository, fresh: Sequence[Commit]) -> list[dict[str, Any]]:
    history = repository.history
    versions = history.versions()
    told = _told(repository, fresh)
    return [
        {
            "model": model,
            "checkpoint": commit.checkpoint,
            "version": versions[commit.checkpoint],
            "step": commit.step,
            "epoch": commit.epoch,
            "increment": commit.increment,
            "finished": commit.finished,
            "parent": commit.parent,
            "time": _storable(commit.time)[:40],
            "stored_bytes": commit.stored,
            "dropped": commit.checkpoint in history.dropped,
            "metrics": _storable(dict(commit.metrics)),
            "facts": _storable(
                {
                    "reason": commit.reason,
                    "verdict": commit.row.verdict if commit.row else "",
                    **told.get(commit.checkpoint, {}),
                }
            ),
        }
        for commit in fresh
    ]


def _told(repository: Repository, fresh: Iterable[Commit]) -> dict[str, dict[str, Any]]:
    """What the data of an increment was, from the manifests of those that end one."""
    history = repository.history
    wanted = [
        commit
        for commit in fresh
        if commit.finished
        and commit.checkpoint not in history.dropped
        and history.manifest_place(commit).size <= _LARGE_BYTES
    ]

    def read(commit: Commit) -> dict[str, Any]:
        try:
            loaders = data_facts(repository.manifest(commit))
        except Unreachable:
            raise
        except OnwardError as error:
            return {"unreadable": error.what}
        return {"delta": _delta(loaders)} if loaders else {}

    with ThreadPoolExecutor(_READS_AT_ONCE) as threads:
        return {
            commit.checkpoint: facts
            for commit, facts in zip(wanted, threads.map(read, wanted), strict=True)
        }


def _delta(loaders: Mapping[str, Mapping[str, Any]]) -> dict[str, int | None]:
    """Summed over the loaders; None where none of them tells."""
    found: dict[str, int | None] = {}
    for name in ("items", "added", "changed", "removed", "known"):
        values = [value for facts in loaders.values() if (value := facts.get(name)) is not None]
        found[name] = sum(values) if values else None
    return found


def _mark_dropped(session: Session, model: str, dropped: set[str]) -> None:
    for some in _some(sorted(dropped)):
        session.execute(
            update(Checkpoint)
            .where(Checkpoint.model == model, Checkpoint.checkpoint.in_(some))
            .values(dropped=True)
            .execution_options(synchronize_session=False)
        )


def _some(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[start : start + 500] for start in range(0, len(ids), 500))


def _brief(history: History, commit: Commit | None) -> dict[str, Any] | None:
    if commit is None:
        return None
    return {
        "checkpoint": commit.checkpoint, "version": history.versions()[commit.checkpoint],
        "step": commit.step, "increment": commit.increment, "finished": commit.finished,
        "time": commit.time, "metrics": dict(commit.metrics),
    }  # fmt: skip


def _storable(value: Any) -> Any:
    """Texts without what PostgreSQL does not take: an output is written by whoever may."""
    if isinstance(value, str):
        return value.replace("\0", "\ufffd").encode("utf-8", "backslashreplace").decode()
    if isinstance(value, Mapping):
        return {_storable(str(key)): _storable(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(child) for child in value]
    return value
