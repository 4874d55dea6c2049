"""Webhooks as rows, within the caller's transaction."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import AlreadyExists
from onward.server.database.tables import Delivery, Webhook
from onward.server.names import new_id, now_s
from onward.server.problems import NotFound
from onward.server.security.secret_files import read_secret
from onward.server.settings import Settings
from onward.server.webhooks.posting import checked_url


def register(
    session: Session, settings: Settings, name: str, url: str, *, secret: str, allow_private: bool,
    by: str,
) -> Webhook:  # fmt: skip
    """A new webhook; `secret` names the secret that signs. Raises `UsageError`, `AlreadyExists`."""
    checked_url(url, allow_private=allow_private)
    read_secret(settings, secret)
    if session.get(Webhook, name) is not None:
        raise AlreadyExists(f"there is a webhook {name!r} already", do="choose another name")
    row = Webhook(
        name=name, url=url, secret=secret, allow_private=allow_private, created_at=now_s(),
        created_by=by,
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def find_webhook(session: Session, name: str) -> Webhook:
    """Raises `NotFound`."""
    row = session.get(Webhook, name)
    if row is None:
        raise NotFound(f"there is no webhook {name!r}", do="list /api/v1/webhooks")
    return row


def remove(session: Session, name: str) -> Webhook:
    """What waits to be sent to it is not sent any more."""
    row = find_webhook(session, name)
    session.delete(row)
    return row


def send_test(session: Session, name: str, *, by: str) -> Delivery:
    """Puts a message that says nothing but that it is one into the box of those to be sent."""
    find_webhook(session, name)
    now = now_s()
    row = Delivery(
        id=new_id("msg"), webhook=name, body={"type": "webhook.test", "at": now, "by": by},
        tries=0, next_at=now, done_at=None, problem="",
    )  # fmt: skip
    session.add(row)
    session.flush()
    return row


def list_webhooks(session: Session) -> list[Webhook]:
    """By name."""
    return list(session.scalars(select(Webhook).order_by(Webhook.name)))


def document(row: Webhook) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "name": row.name, "url": row.url, "secret": row.secret, "allow_private": row.allow_private,
        "created_at": row.created_at, "created_by": row.created_by,
    }  # fmt: skip


def delivery_document(row: Delivery) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "id": row.id, "webhook": row.webhook, "body": row.body, "tries": row.tries,
        "next_at": row.next_at if row.done_at is None else None, "done_at": row.done_at,
        "problem": row.problem,
    }  # fmt: skip
