"""Changing what names mean in an output: promote, roll back, alias, pin, drop.

The effect is a record in the output's log, outside of the database. So a change is decided first,
as an intent of plain values that names every checkpoint by its id, and the intent is kept before
anything happens. Carrying it out twice is the same as once: whoever finds an intent that nobody
answered carries it out again.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import Any

from onward.errors import Conflict, UsageError
from onward.facts.gate import candidate_in
from onward.facts.outputs import find
from onward.facts.promoting import next_back
from onward.learning.champion import CHAMPION, move_champion
from onward.repository import Repository
from onward.repository.collecting import Collector, check_droppable, usual_grace_s
from onward.repository.records import checked_alias
from onward.server.database import Database
from onward.server.models.catalog import find_model
from onward.server.models.outputs import ask_about, open_to_change
from onward.server.models.syncing import sync_model
from onward.server.settings import Settings

_GATE_S = 300.0
KINDS = ("promote", "rollback", "alias", "unalias", "pin", "unpin", "drop")


@dataclass(frozen=True, slots=True)
class Change:
    """What somebody asks for. `checkpoint` is a name, an id, or empty where there is a default."""

    kind: str
    checkpoint: str = ""
    name: str = ""
    """Of an alias."""
    force: bool = False
    margin: float | None = None


def change(settings: Settings, database: Database, model: str, wanted: Change) -> dict[str, Any]:
    """Decides and carries out, for who keeps no intent."""
    return carry_out(settings, database, decide(settings, database, model, wanted))


def decide(settings: Settings, database: Database, model: str, wanted: Change) -> dict[str, Any]:
    """The intent. Changes nothing. Raises what the change would raise before it begins."""
    with database.read() as session:
        location = find_model(session, model).location
    repository = open_to_change(settings, database, location)
    history = repository.history
    intent: dict[str, Any] = {**asdict(wanted), "model": model, "location": location}
    champion = history.aliases.get(CHAMPION)
    match wanted.kind:
        case "promote":
            intent |= {"checkpoint": candidate_in(history, wanted.checkpoint).checkpoint}
            intent |= {"expected": champion}
        case "rollback":
            intent |= {"checkpoint": next_back(repository), "expected": champion}
        case "alias":
            checked_alias(wanted.name)
            if wanted.name == CHAMPION:
                raise UsageError("the champion is no alias of yours", do="promote a checkpoint")
            intent |= {"checkpoint": find(history, wanted.checkpoint).checkpoint}
        case "unalias":
            if wanted.name == CHAMPION:
                raise UsageError("the champion is no alias of yours", do="promote another one")
        case "pin" | "unpin":
            intent |= {"checkpoint": find(history, wanted.checkpoint).checkpoint}
        case "drop":
            id_ = find(history, wanted.checkpoint).checkpoint
            check_droppable(history, [id_])
            intent |= {"checkpoint": id_}
        case _:
            raise UsageError(f"there is no change {wanted.kind!r}", do=f"one of {', '.join(KINDS)}")
    about = " ".join(part for part in (intent["name"], intent["checkpoint"]) if part)
    return {**intent, "id": f"{location} {about}".strip()}


def carry_out(settings: Settings, database: Database, intent: dict[str, Any]) -> dict[str, Any]:
    """Does what was decided, unless it is so already. Raises `GateRefused` and `Conflict`."""
    repository = open_to_change(settings, database, intent["location"])
    done = {
        "id": intent["model"], "kind": intent["kind"], "checkpoint": intent["checkpoint"] or None,
        **_done(settings, database, repository, intent),
    }  # fmt: skip
    sync_model(settings, database, intent["model"])
    return done


def _done(
    settings: Settings, database: Database, repository: Repository, intent: dict[str, Any]
) -> dict[str, Any]:
    history, id_, name = repository.history, intent["checkpoint"], intent["name"]
    match intent["kind"]:
        case "promote":
            if history.aliases.get(CHAMPION) not in (id_, intent["expected"]):
                raise _overtaken(repository, intent)
            # In a child: what the gate compares are tensors.
            done: dict[str, Any] = ask_about(
                settings, database, intent["location"], "promote", checkpoint=id_,
                force=intent["force"], margin=intent["margin"], timeout_s=_GATE_S,
            )  # fmt: skip
            before = intent["expected"] if done["before"] == id_ else done["before"]
            return {**done, "before": before}
        case "rollback":
            if history.aliases.get(CHAMPION) != id_:
                move_champion(repository, id_, expected=intent["expected"])
            return {"champion": id_, "before": intent["expected"]}
        case "alias":
            if history.aliases.get(name) != id_:
                repository.set_alias(name, id_)
            return {"alias": name}
        case "unalias":
            if name in history.aliases:
                repository.set_alias(name, None)
            return {"alias": name}
        case "pin" if id_ not in history.pins:
            repository.pin(id_)
        case "unpin" if id_ in history.pins:
            repository.unpin(id_)
        case "drop":
            return _drop(repository, id_)
    return {"pinned": intent["kind"] == "pin"}


def _drop(repository: Repository, id_: str) -> dict[str, Any]:
    collector = Collector(repository)
    if id_ not in repository.history.dropped:
        collector.drop([id_])
    swept = collector.sweep(grace_s=usual_grace_s(repository.store), now_s=time.time())
    return {"freed_bytes": swept.freed_bytes, "waiting_bytes": swept.waiting_bytes}


def _overtaken(repository: Repository, intent: dict[str, Any]) -> Conflict:
    return Conflict(
        "the champion is another one by now",
        why=f"it was {intent['expected'] or 'nobody'}, and is "
        f"{repository.history.aliases.get(CHAMPION) or 'nobody'}",
        do="look at it, and ask again with a new key",
    )
