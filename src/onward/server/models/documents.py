"""Models as documents: lineage, checkpoints, learning, data, savings.

Each is made from the index where that knows enough, else from the output's log and manifests, which
are checked by digest as they are read. An output that is damaged or hostile raises a typed error.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.orm import Session

from onward.errors import OnwardError
from onward.facts.checkpoints import shown_document
from onward.facts.data_log import data_facts, learned_rounds, round_document
from onward.facts.lineage import nodes_of, place
from onward.facts.matrix import matrix_document
from onward.facts.outputs import find, find_in
from onward.facts.report import gather
from onward.facts.report_document import report_document
from onward.learning.heatmap import heat_map
from onward.learning.matrix import Matrix, matrix_of
from onward.learning.rounds import rounds
from onward.repository import History
from onward.server.database import Database
from onward.server.database.tables import Attempt, Checkpoint, Job, Model
from onward.server.models.catalog import find_model, summary_document
from onward.server.models.outputs import ask_about, opened
from onward.server.models.syncing import sync_from, tells_little, worst_forgetting
from onward.server.paging import Order
from onward.server.settings import Settings

_MOST_HOLDOUTS, _MOST_ROWS = 40, 60
_MOST_TENSORS = 2000
_SMALL_BYTES = 8 << 20
"""Of a manifest that is read here; parsing takes a dozen times as much memory."""
_NAMES_SHOWN = 200
_ATTEMPTS_READ = 500
_CLOCK_S = 1.0
"""Records bear whole seconds."""
_LOOK_S = 60.0


def model_document(settings: Settings, database: Database, model: str) -> dict[str, Any]:
    """One model with its lineage. Where its output cannot be read now: as it was last seen."""
    row = _row(database, model)
    history: History | None = None
    try:
        with opened(settings, database, row.location) as repository:
            row = sync_from(database, model, repository)
            history = repository.history
            lineage = _lineage(database, model, history)
    except OnwardError as error:
        row = _row(database, model)
        row.problem = error.what + (f": {error.why}" if error.why else "")
        lineage = {"nodes": [], "lanes": 0, "older": 0}
    facts = row.facts
    return {
        **summary_document(row),
        "repository": row.repository,
        "aliases": facts.get("aliases", {}),
        "pins": facts.get("pins", []),
        "generation": facts.get("generation", 0),
        "claimed_by": facts.get("claimed_by", ""),
        "lineage": lineage,
    }


def checkpoints_page(
    settings: Settings, database: Database, model: str, *, limit: int = 50, cursor: str = "",
    dropped: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Checkpoints, the newest first, from the index."""
    with database.read() as session:
        row = find_model(session, model)
        statement = select(Checkpoint).where(Checkpoint.model == model)
        if not dropped:
            statement = statement.where(Checkpoint.dropped.is_(False))
        order = Order(Checkpoint.version, falling=True)
        found, following = order.page(session.scalars, statement, limit=limit, cursor=cursor)
    names = _names(row)
    return {
        "items": [_index_document(each, names, row.facts.get("pins", [])) for each in found],
        "next": following,
    }


def checkpoint_document(
    settings: Settings, database: Database, model: str, checkpoint: str
) -> dict[str, Any]:
    """What made one checkpoint and what it holds, as `onward show --json`; and who trained it."""
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        history = repository.history
        commit = find(history, checkpoint)
        id_ = commit.checkpoint
        children = [c.checkpoint for c in history.commits.values() if c.parent == id_]
        names = history.names_of(id_)
        latest = history.latest()
        is_small = history.manifest_place(commit).size <= _SMALL_BYTES
        if is_small:
            found = find_in(repository, id_)
            document, loaders = shown_document(found), data_facts(found.manifest)
    if not is_small:
        told = ask_about(
            settings, database, row.location, "show", checkpoint=id_, timeout_s=_LOOK_S
        )
        document, loaders = told["shown"], told["loaders"]
    if latest is not None and latest.checkpoint == id_:
        names.insert(0, "latest")
    about = document["about"]
    tensors = document["tensors"]
    with database.read() as session:
        trained_by = _trained_by(session, row.location, id_, commit.time)
    return {
        **document,
        "output": row.location,
        "model": model,
        "tensors": tensors[:_MOST_TENSORS],
        "tensor_count": len(tensors),
        "names": names,
        "children": children[:_NAMES_SHOWN],
        "loaders": loaders,
        "trained_by": {
            **trained_by,
            "command": about.get("command"),
            "config": about.get("config"),
            "host": about.get("host"),
            "seed": _seed(about),
        },
    }


def learning_document(settings: Settings, database: Database, model: str) -> dict[str, Any]:
    """The matrix of scores, what was forgotten most, and what the gate said."""
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        history = repository.history
        document = matrix_document(history)
        matrix = matrix_of(history)
    return {
        **document,
        "worst_forgetting": worst_forgetting(matrix),
        "accuracy": [
            {"increment": number, "means": _means(matrix, number)} for number in matrix.rows
        ],
        "verdicts": [
            {"increment": i, "checkpoint": matrix.checkpoints[i], "verdict": verdict}
            for i, verdict in matrix.verdicts.items()
        ],
    }


def learning_picture(settings: Settings, database: Database, model: str) -> str:
    """The heat map as `<svg>`; of very many increments or holdouts, the newest."""
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        matrix = matrix_of(repository.history)
    holdouts = dict(list(matrix.holdouts.items())[-_MOST_HOLDOUTS:])
    rows = {number: matrix.rows[number] for number in sorted(matrix.rows)[-_MOST_ROWS:]}
    return heat_map(replace(matrix, holdouts=holdouts, rows=rows), row.name)


def data_document(settings: Settings, database: Database, model: str) -> dict[str, Any]:
    """What each increment learned from, the newest first."""
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        return {"increments": [round_document(each) for each in learned_rounds(repository)]}


def data_difference(
    settings: Settings, database: Database, model: str, first: str, second: str, *, loader: str = ""
) -> dict[str, Any]:
    """How the data of the second checkpoint differs from that of the first."""
    row = _row(database, model)
    answer: dict[str, Any] = ask_about(
        settings, database, row.location, "data_diff", first=first, second=second, loader=loader,
        names=_NAMES_SHOWN, timeout_s=_LOOK_S,
    )  # fmt: skip
    return {**answer, "output": row.location}


def data_seen(
    settings: Settings, database: Database, model: str, item: str, *, by: str = "key",
    checkpoint: str = "", most: int = 20,
) -> dict[str, Any]:  # fmt: skip
    """Which checkpoints learned from an item, by its key or its id; the ends of increments.

    Of very many increments only the newest `most` are looked at, and `older` says how many are not.
    """
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        history = repository.history
        if checkpoint:
            wanted = [history.resolve(checkpoint)]
        else:
            tips = [its.tip for its in rounds(history)]
            wanted = [c for c in reversed(tips) if c.checkpoint not in history.dropped]
    looked = wanted[:most]
    answers = ask_about(
        settings, database, row.location, "seen", item=item, by=by,
        checkpoints=[commit.checkpoint for commit in looked], timeout_s=_LOOK_S,
    )  # fmt: skip
    items = [
        {
            "checkpoint": commit.checkpoint, "increment": commit.increment, "step": commit.step,
            **answers[commit.checkpoint],
        }
        for commit in looked
    ]  # fmt: skip
    return {"item": item, "by": by, "items": items, "older": max(0, len(wanted) - most)}


def savings_document(settings: Settings, database: Database, model: str) -> dict[str, Any]:
    """What each increment cost beside a full retrain: `onward report --json`."""
    row = _row(database, model)
    with opened(settings, database, row.location) as repository:
        if tells_little(repository.history):
            return {**report_document(gather(repository)), "output": row.location}
    answer: dict[str, Any] = ask_about(
        settings, database, row.location, "report", timeout_s=_LOOK_S
    )
    return {**answer, "output": row.location}


def look_for_damage(
    settings: Settings, database: Database, model: str, checkpoint: str
) -> dict[str, Any]:
    """Whether all that a checkpoint needs is there, with the right size: `onward verify --json`.

    Every byte is read by `verifying.py`: no request waits for that.
    """
    row = _row(database, model)
    answer: dict[str, Any] = ask_about(
        settings, database, row.location, "damage", checkpoint=checkpoint, timeout_s=_LOOK_S
    )
    return {**answer, "output": row.location}


# Details.


def _row(database: Database, model: str) -> Model:
    with database.read() as session:
        return find_model(session, model)


def _lineage(database: Database, model: str, history: History) -> dict[str, Any]:
    nodes, older = nodes_of(history, rounds(history))
    lanes = place(nodes)
    versions = history.versions()
    latest = history.latest()
    with database.read() as session:
        told = session.execute(
            select(Checkpoint.checkpoint, Checkpoint.facts).where(
                Checkpoint.model == model,
                Checkpoint.checkpoint.in_([node.commit.checkpoint for node in nodes]),
            )
        )
        facts = {row.checkpoint: row.facts for row in told}
    return {
        "lanes": lanes,
        "older": older,
        "nodes": [
            {
                "checkpoint": commit.checkpoint,
                "version": versions[commit.checkpoint],
                "step": commit.step,
                "epoch": commit.epoch,
                "increment": commit.increment,
                "finished": commit.finished,
                "parent": node.parent,
                "between": node.between,
                "row": node.row,
                "lane": node.lane,
                "names": history.names_of(commit.checkpoint),
                "pinned": commit.checkpoint in history.pins,
                "dropped": commit.checkpoint in history.dropped,
                "latest": latest is not None and latest.checkpoint == commit.checkpoint,
                "audited": commit.checkpoint in history.audits,
                "verdict": commit.row.verdict if commit.row else "",
                "reason": commit.reason,
                "time": commit.time,
                "metrics": dict(commit.metrics),
                "stored_bytes": commit.stored,
                "delta": facts.get(commit.checkpoint, {}).get("delta"),
            }
            for node in nodes
            for commit in [node.commit]
        ],
    }


def _index_document(
    row: Checkpoint, names: dict[str, list[str]], pins: list[str]
) -> dict[str, Any]:
    return {
        "checkpoint": row.checkpoint, "version": row.version, "step": row.step,
        "epoch": row.epoch, "increment": row.increment, "finished": row.finished,
        "parent": row.parent, "time": row.time, "stored_bytes": row.stored_bytes,
        "dropped": row.dropped, "metrics": row.metrics, "reason": row.facts.get("reason", ""),
        "verdict": row.facts.get("verdict", ""), "delta": row.facts.get("delta"),
        "names": names.get(row.checkpoint, []), "pinned": row.checkpoint in pins,
    }  # fmt: skip


def _names(row: Model) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {row.latest: ["latest"]} if row.latest else {}
    for name, id_ in row.facts.get("aliases", {}).items():
        names.setdefault(id_, []).append(name)
    return names


def _means(matrix: Matrix, increment: int) -> dict[str, float | None]:
    found = {}
    for metric in matrix.metrics:
        part = matrix.of_metric(metric)
        scores = [s for name in part.holdouts if (s := matrix[increment, name]) is not None]
        found[metric] = sum(scores) / len(scores) if scores else None
    return found


def _trained_by(session: Session, location: str, checkpoint: str, time: str) -> dict[str, Any]:
    """The job and its code: the attempt whose outcome names the checkpoint, else that ran then.

    Of two that both ran within the record's second, the earlier: the other was only beginning.
    """
    attempts = session.execute(
        select(Attempt.job, Attempt.number, Attempt.running_at, Attempt.ended_at, Attempt.outcome)
        .join(Job, Attempt.job == Job.id)
        .where(Job.output == location, Attempt.running_at.is_not(None))
        .order_by(Attempt.running_at.desc())
        .limit(_ATTEMPTS_READ)
    ).all()
    at = _seconds(time)
    named = [each for each in attempts if _names_checkpoint(each.outcome, checkpoint)]
    ran = [each for each in attempts if at is not None and _ran_at(each, at)]
    if not named and not ran:
        return {"job": None, "job_name": None, "attempt": None, "code": None}
    found = (named or ran)[-1]
    job = session.get_one(Job, found.job)
    code = job.spec.get("code", {})
    return {
        "job": job.id, "job_name": job.name, "attempt": found.number,
        "code": {"digest": code.get("digest"), "source": code.get("source", "")},
    }  # fmt: skip


def _names_checkpoint(outcome: dict[str, Any], checkpoint: str) -> bool:
    told = outcome.get("checkpoints")
    return any(
        isinstance(each, dict) and each.get("checkpoint") == checkpoint
        for each in (told if isinstance(told, list) else ())
    )


def _ran_at(attempt: Row[Any], at: float) -> bool:
    began, ended = attempt.running_at, attempt.ended_at
    return began - _CLOCK_S <= at and (ended is None or at <= ended + _CLOCK_S)


def _seconds(time: str) -> float | None:
    try:
        return datetime.fromisoformat(time).timestamp()
    except ValueError:
        return None


def _seed(about: dict[str, Any]) -> Any:
    """Where the script told one: in its configuration, or on its command line."""
    config = about.get("config")
    if isinstance(config, dict) and isinstance(config.get("seed"), int | str):
        return config["seed"]
    command = about.get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    for word, following in pairwise([*words, ""]):
        if word == "--seed":
            return following or None
        if word.startswith("--seed="):
            return word.removeprefix("--seed=")
    return None
