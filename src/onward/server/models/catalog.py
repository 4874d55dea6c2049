"""Which models there are: every output that a job used, or that an administrator named."""

from __future__ import annotations

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from onward.server.database.tables import Model
from onward.server.models.syncing import enter_model
from onward.server.paging import Order
from onward.server.problems import NotFound
from onward.server.storages import normalise


def list_models(
    session: Session, *, text: str = "", limit: int = 50, cursor: str = ""
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of models by name, whose name or location contains the text; and the next cursor."""
    statement = select(Model)
    if text:
        statement = statement.where(
            or_(
                Model.name.icontains(text, autoescape=True),
                Model.location.icontains(text, autoescape=True),
            )
        )
    order = Order(Model.name, Model.id)
    rows, following = order.page(session.scalars, statement, limit=limit, cursor=cursor)
    return [summary_document(row) for row in rows], following


def find_model(session: Session, model: str) -> Model:
    """Raises `NotFound`."""
    row = session.get(Model, model)
    if row is None:
        raise NotFound(
            f"there is no model {model!r}", do="a job makes one, or an administrator adds an output"
        )
    return row


def add_model(session: Session, location: str) -> Model:
    """The model at a location, which is an output or will become one. Raises `UsageError`."""
    return enter_model(session, normalise(session, location))


def summary_document(row: Model) -> dict[str, Any]:
    """What lists show. What is not known yet is null."""
    facts = row.facts
    return {
        "id": row.id,
        "location": row.location,
        "name": row.name,
        "problem": row.problem,
        "champion": facts.get("champion"),
        "latest": facts.get("latest"),
        "checkpoints": facts.get("checkpoints", 0),
        "increments": row.increments,
        "worst_forgetting": facts.get("worst_forgetting"),
        "saved": facts.get("saved"),
        "synced_at": row.synced_at,
    }


def all_savings(session: Session) -> dict[str, Any]:
    """What all models together saved, as far as that is known, and each of them."""
    rows = list(session.scalars(select(Model).order_by(Model.name, Model.id)))
    known = [row for row in rows if row.facts.get("saved")]
    steps = sum(row.facts["saved"]["steps"] for row in known)
    retrain = sum(row.facts["saved"]["retrain_steps"] for row in known)
    return {
        "models": len(rows),
        "compared": len(known),
        "steps": steps,
        "retrain_steps": retrain,
        "share": 1 - steps / retrain if retrain else None,
        "estimated": any(row.facts["saved"]["estimated"] for row in known),
        "items": [
            {"id": row.id, "name": row.name, "location": row.location, **row.facts["saved"]}
            for row in known
        ],
    }
