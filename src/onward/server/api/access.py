"""Routes of tokens, secrets and the audit log: for administrators."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.server.api.call import Caller
from onward.server.api.parameters import Cursor, Limit
from onward.server.database.tables import Audit
from onward.server.paging import Order
from onward.server.security import secret_files, tokens
from onward.server.spec import Name

router = APIRouter(prefix="/api/v1", tags=["access"])

TokenId = Annotated[str, Path(pattern=r"^tok-[a-z0-9]{1,28}$")]
SecretName = Annotated[str, Path(pattern=f"^{secret_files.NAME}$")]


class TokenRequest(BaseModel):
    """A token to be made."""

    model_config = ConfigDict(extra="forbid")

    name: Name
    scope: Literal["read", "write", "admin"] = "read"
    lifetime_s: Annotated[float, Field(gt=0, le=10 * 366 * 86400)] | None = None
    """How long it is good; without, until it is revoked."""


class TokenDocument(BaseModel):
    """A token, without its text. Times are seconds since 1970."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    scope: str
    created_at: float
    created_by: str
    expires_at: float | None
    revoked_at: float | None
    used_at: float | None


class NewToken(TokenDocument):
    """A token and its text, which is shown only now: a repeated request gets null."""

    token: str | None = None


class TokenList(BaseModel):
    """All there ever were, newest first."""

    items: list[TokenDocument]
    next: None = None


class SecretRequest(BaseModel):
    """The value of a secret. It comes out of no answer, ever."""

    model_config = ConfigDict(extra="forbid")

    value: Annotated[str, StringConstraints(min_length=1, max_length=65536)]


class SecretDocument(BaseModel):
    """That a secret exists."""

    model_config = ConfigDict(from_attributes=True)

    name: str
    created_at: float
    created_by: str


class SecretList(BaseModel):
    """All of them, by name."""

    items: list[SecretDocument]
    next: None = None


class AuditEntry(BaseModel):
    """Who did what, when, from where."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    at: float
    by: str
    action: str
    object: str
    remote: str


class AuditPage(BaseModel):
    """A page of entries, newest first."""

    items: list[AuditEntry]
    next: str | None


@router.get("/tokens", response_model=TokenList)
def list_tokens(call: Caller) -> Any:
    """All tokens, without their texts."""
    call.need("admin")
    with call.database.read() as session:
        return {"items": [_token(row) for row in tokens.list_tokens(session)]}


@router.post("/tokens", status_code=201, response_model=NewToken)
def make_token(body: TokenRequest, call: Caller) -> JSONResponse:
    """Makes a token."""
    call.need("admin")
    made: list[str] = []

    def effect(session: Session) -> Any:
        row, text = tokens.make_token(
            session, body.name, body.scope, by=call.principal.name, lifetime_s=body.lifetime_s
        )
        made[:] = [text]
        return {**_token(row), "token": None}

    return call.once(effect, action="token.make", status=201, only_now=lambda: {"token": made[0]})


@router.delete("/tokens/{token_id}", response_model=TokenDocument)
def revoke_token(token_id: TokenId, request: Request, call: Caller) -> JSONResponse:
    """Revokes a token, at once; its sessions end as well."""
    call.need("admin")
    answer = call.once(
        lambda session: _token(tokens.revoke_token(session, token_id)), action="token.revoke"
    )
    request.app.state.principals.forget()
    return answer


@router.get("/secrets", response_model=SecretList)
def list_secrets(call: Caller) -> Any:
    """The names of secrets."""
    call.need("write")
    with call.database.read() as session:
        return {"items": [_secret(row) for row in secret_files.list_secrets(session)]}


@router.put("/secrets/{name}", response_model=SecretDocument)
def put_secret(name: SecretName, body: SecretRequest, call: Caller) -> Any:
    """Keeps a value under a name. Repeating it is harmless, so that no answer is kept."""
    call.need("admin")
    with call.database.write() as session:
        row = secret_files.write_secret(
            call.settings, session, name, body.value, by=call.principal.name
        )
        call.note(session, "secret.put", {"name": name})
        return _secret(row)


@router.delete("/secrets/{name}", response_model=SecretDocument)
def delete_secret(name: SecretName, call: Caller) -> JSONResponse:
    """Forgets a secret."""
    call.need("admin")
    return call.once(
        lambda session: _secret(secret_files.delete_secret(call.settings, session, name)),
        action="secret.delete",
    )


@router.get("/audit", response_model=AuditPage)
def audit(call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """Who did what, newest first."""
    call.need("admin")
    order = Order(Audit.id, falling=True)
    with call.database.read() as session:
        rows, following = order.page(session.scalars, select(Audit), limit=limit, cursor=cursor)
    items = [AuditEntry.model_validate(row).model_dump() for row in rows]
    return {"items": items, "next": following}


def _token(row: Any) -> dict[str, Any]:
    return TokenDocument.model_validate(row).model_dump(mode="json")


def _secret(row: Any) -> dict[str, Any]:
    return SecretDocument.model_validate(row).model_dump(mode="json")
