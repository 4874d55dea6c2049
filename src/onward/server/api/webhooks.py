"""Routes of webhooks: where moves of jobs are told to."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import select

from onward.server.api.call import Caller
from onward.server.api.parameters import Cursor, Limit
from onward.server.database.tables import Delivery
from onward.server.paging import Order
from onward.server.spec import Alias
from onward.server.webhooks import registry

router = APIRouter(prefix="/api/v1/webhooks", tags=["webhooks"])

WebhookName = Annotated[str, Path(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]


class WebhookRequest(BaseModel):
    """A place to tell of jobs, and the name of the secret that signs what is told."""

    model_config = ConfigDict(extra="forbid")

    name: Alias
    url: Annotated[str, StringConstraints(min_length=8, max_length=2000, pattern=r"^[\x21-\x7e]+$")]
    secret: Alias
    allow_private: bool = False
    """Whether it may be on this machine or in a private network, and http."""


class WebhookDocument(BaseModel):
    """A webhook. Times are seconds since 1970."""

    name: str
    url: str
    secret: str
    allow_private: bool
    created_at: float
    created_by: str


class WebhookPage(BaseModel):
    """All webhooks, by name."""

    items: list[WebhookDocument]
    next: str | None


class DeliveryDocument(BaseModel):
    """A message. It is done when it was received, or given up; `problem` says which."""

    id: str
    webhook: str
    body: dict[str, Any]
    tries: int
    next_at: float | None
    done_at: float | None
    problem: str


class DeliveryPage(BaseModel):
    """A page of messages, the latest first."""

    items: list[DeliveryDocument]
    next: str | None


@router.post("", status_code=201, response_model=WebhookDocument)
def register(body: WebhookRequest, call: Caller) -> JSONResponse:
    """Registers a webhook. Jobs name it in `notify`."""
    call.need("admin")

    def effect(session: Any) -> Any:
        return registry.document(
            registry.register(
                session, call.settings, body.name, body.url, secret=body.secret,
                allow_private=body.allow_private, by=call.principal.name,
            )
        )  # fmt: skip

    return call.once(effect, action="webhook.register", status=201)


@router.get("", response_model=WebhookPage)
def listed(call: Caller) -> Any:
    """All webhooks. Their addresses may be secrets, so that only administrators see them."""
    call.need("admin")
    with call.database.read() as session:
        items = [registry.document(row) for row in registry.list_webhooks(session)]
    return {"items": items, "next": None}


@router.delete("/{name}", response_model=WebhookDocument)
def remove(name: WebhookName, call: Caller) -> JSONResponse:
    """Forgets a webhook; what waits to be sent to it is not sent."""
    call.need("admin")
    return call.once(
        lambda session: registry.document(registry.remove(session, name)), action="webhook.remove"
    )


@router.post("/{name}/test", status_code=202, response_model=DeliveryDocument)
def test(name: WebhookName, call: Caller) -> JSONResponse:
    """Sends a message of the type `webhook.test`; its delivery shows how that went."""
    call.need("admin")
    return call.once(
        lambda session: registry.delivery_document(
            registry.send_test(session, name, by=call.principal.name)
        ),
        action="webhook.test", status=202, about=name,
    )  # fmt: skip


@router.get("/{name}/deliveries", response_model=DeliveryPage)
def deliveries(name: WebhookName, call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """What was told to it and what waits, the latest first."""
    call.need("admin")
    order = Order(Delivery.next_at, Delivery.id, falling=True)
    statement = select(Delivery).where(Delivery.webhook == name)
    with call.database.read() as session:
        rows, following = order.page(session.scalars, statement, limit=limit, cursor=cursor)
    return {"items": [registry.delivery_document(row) for row in rows], "next": following}
