"""Settings: storages, tokens, secrets, webhooks, and who did what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import AlreadyExists, OnwardError, UsageError
from onward.server import storages
from onward.server.api.access import SecretRequest, TokenRequest
from onward.server.api.call import Call
from onward.server.api.storages import StorageRequest
from onward.server.api.webhooks import WebhookRequest
from onward.server.console.forms import Sent, call_of, once
from onward.server.console.rendering import language_of, render
from onward.server.console.settings_forms import SettingsForm
from onward.server.database.tables import Audit, Delivery
from onward.server.names import now_s
from onward.server.problems import NotFound, status_of
from onward.server.security import secret_files, tokens
from onward.server.webhooks import registry

_AUDIT_PAGE, _DELIVERIES, _ENDED_TOKENS = 25, 5, 25
_DAY_S = 86400.0
_LIFETIMES = ("1", "7", "30", "90", "365", "")
"""Days; the empty one is for ever."""

router = APIRouter(include_in_schema=False)


@router.get("/settings")
def show(request: Request, done: str = "", before: int | None = None) -> HTMLResponse:
    """Everything on one page; a part says so where the viewer may not see it."""
    return _page(request, done=done, before=before)


@router.post("/settings/storages")
def register_storage(request: Request, sent: Sent) -> Response:
    """A folder or a bucket, to be named by its alias."""
    call, form = call_of(request, sent), SettingsForm.sent(language_of(request), sent)
    call.need("admin")
    asked = form.read(
        StorageRequest, "storage", alias=form.value("storage_alias"),
        url=form.value("storage_url"), single_writer=bool(form.value("storage_single_writer")),
        environment=form.pairs("storage_environment"),
    )  # fmt: skip
    if asked is None:
        return _page(request, form=form, status=422)

    def effect(session: Session) -> Any:
        storages.register(
            session, call.settings, asked.alias, asked.url, by=call.principal.name,
            single_writer=asked.single_writer, environment=asked.environment,
        )  # fmt: skip
        return {"id": asked.alias}

    return _tried(
        request, form, lambda: once(call, effect, action="storage.register"),
        section="storages", name="storage_alias", place="storage_url",
    )  # fmt: skip


@router.post("/settings/storages/{alias}/remove")
def remove_storage(request: Request, alias: str, sent: Sent) -> Response:
    """Forgets a storage; nothing in it is touched."""

    def effect(session: Session, call: Call) -> Any:
        return {"id": storages.remove(session, alias).alias}

    return _asked(request, sent, effect, section="storages", action="storage.remove", scope="admin")


@router.post("/settings/tokens")
def make_token(request: Request, sent: Sent) -> Response:
    """The answer shows its text, this once: no redirect, for nothing keeps it."""
    call, form = call_of(request, sent), SettingsForm.sent(language_of(request), sent)
    call.need("admin")
    days = form.value("token_lifetime_s")
    asked = form.read(
        TokenRequest, "token", name=form.value("token_name"), scope=form.value("token_scope"),
        lifetime_s=float(days) * _DAY_S if days in _LIFETIMES and days else None,
    )  # fmt: skip
    if asked is None:
        return _page(request, form=form, status=422)
    made: list[str] = []

    def effect(session: Session) -> Any:
        row, text = tokens.make_token(
            session, asked.name, asked.scope, by=call.principal.name, lifetime_s=asked.lifetime_s
        )
        made[:] = [text]
        return {"id": row.id, "name": row.name}

    answer = once(call, effect, action="token.make")
    return _page(request, new_token={"name": answer["name"], "text": made[0] if made else ""})


@router.post("/settings/tokens/{token_id}/revoke")
def revoke_token(request: Request, token_id: str, sent: Sent) -> Response:
    """At once; its sessions end as well."""

    def effect(session: Session, call: Call) -> Any:
        return {"id": tokens.revoke_token(session, token_id).id}

    answer = _asked(request, sent, effect, section="tokens", action="token.revoke", scope="admin")
    request.app.state.principals.forget()
    return answer


@router.post("/settings/secrets")
def put_secret(request: Request, sent: Sent) -> Response:
    """Keeps a value. Nothing of it may be stored elsewhere, so that no answer is kept by a key:
    repeating it is harmless."""
    call = call_of(request)
    form = SettingsForm.sent(language_of(request), sent, never_again="secret_value")
    call.need("admin")
    value = next((text for name, text in sent.fields if name == "secret_value"), "")
    # Browsers send lines as CR LF; a key file has LF.
    value = value.replace("\r\n", "\n").rstrip("\n")
    asked = form.read(SecretRequest, "secret", value=value)
    if not form.value("secret_name"):
        form.errors["secret_name"] = form.spoken.t("This is needed.")
    if asked is None or form.errors:
        return _page(request, form=form, status=422)

    def keep() -> None:
        with call.database.write() as session:
            row = secret_files.write_secret(
                call.settings, session, form.value("secret_name"), asked.value,
                by=call.principal.name,
            )  # fmt: skip
            call.note(session, "secret.put", {"name": row.name})

    return _tried(request, form, keep, section="secrets", name="secret_name", place="secret_name")


@router.post("/settings/secrets/{name}/delete")
def delete_secret(request: Request, name: str, sent: Sent) -> Response:
    """Forgets a secret; jobs that name it fail when they start."""

    def effect(session: Session, call: Call) -> Any:
        return {"id": secret_files.delete_secret(call.settings, session, name).name}

    return _asked(request, sent, effect, section="secrets", action="secret.delete", scope="admin")


@router.post("/settings/webhooks")
def register_webhook(request: Request, sent: Sent) -> Response:
    """A place to tell of jobs."""
    call, form = call_of(request, sent), SettingsForm.sent(language_of(request), sent)
    call.need("admin")
    asked = form.read(
        WebhookRequest, "webhook", name=form.value("webhook_name"), url=form.value("webhook_url"),
        secret=form.value("webhook_secret"),
        allow_private=bool(form.value("webhook_allow_private")),
    )  # fmt: skip
    if asked is None:
        return _page(request, form=form, status=422)

    def effect(session: Session) -> Any:
        row = registry.register(
            session, call.settings, asked.name, asked.url, secret=asked.secret,
            allow_private=asked.allow_private, by=call.principal.name,
        )  # fmt: skip
        return {"id": row.name}

    return _tried(
        request, form, lambda: once(call, effect, action="webhook.register"),
        section="webhooks", name="webhook_name", place="webhook_url",
    )  # fmt: skip


@router.post("/settings/webhooks/{name}/{action}")
def change_webhook(request: Request, name: str, action: str, sent: Sent) -> Response:
    """`test` sends a message that says it is one; `remove` forgets the webhook."""
    if action not in ("test", "remove"):
        raise NotFound(f"a webhook cannot {action[:40]!r}")

    def effect(session: Session, call: Call) -> Any:
        if action == "remove":
            registry.remove(session, name)
        else:
            registry.send_test(session, name, by=call.principal.name)
        return {"id": name}

    return _asked(
        request, sent, effect, section="webhooks", action=f"webhook.{action}", scope="admin"
    )


# What the routes share.


def _tried(
    request: Request, form: SettingsForm, change: Callable[[], Any], *, section: str, name: str,
    place: str,
) -> Response:  # fmt: skip
    try:
        change()
    except (AlreadyExists, UsageError) as error:
        form.refuse(error, name=name, place=place)
        return _page(request, form=form, status=status_of(error))
    except OnwardError as error:
        if status_of(error) >= 500:
            raise
        return _page(request, form=form, status=status_of(error), refused=(section, error))
    return RedirectResponse(f"/settings?done={section}#{section}", 303)


def _asked(
    request: Request, sent: Sent, effect: Callable[[Session, Call], Any], *, section: str,
    action: str, scope: str,
) -> Response:  # fmt: skip
    """A button beside a thing: done, or the page with the reason in its section."""
    call = call_of(request, sent)
    call.need(scope)
    try:
        once(call, lambda session: effect(session, call), action=action)
    except OnwardError as error:
        if status_of(error) != 409:
            raise
        return _page(request, status=409, refused=(section, error))
    return RedirectResponse(f"/settings?done={section}#{section}", 303)


def _page(
    request: Request, *, form: SettingsForm | None = None, status: int = 200, done: str = "",
    before: int | None = None, new_token: dict[str, str] | None = None,
    refused: tuple[str, OnwardError] | None = None,
) -> HTMLResponse:  # fmt: skip
    call, spoken = call_of(request), language_of(request)
    call.need("read")
    # The page is the answer of many forms; the switch of language leads back to this address.
    request.state.here = "/settings"
    form = form or SettingsForm(spoken, {"token_scope": "write", "token_lifetime_s": "90"})
    with call.database.read() as session:
        facts = _facts(session, call, before)
    return render(
        request, "settings.html", status=status, form=form, done=done, new_token=new_token,
        refused=refused, before=before, now=now_s(),
        scopes=[
            ("read", spoken.t("read: sees everything but settings")),
            ("write", spoken.t("write: also submits and steers jobs")),
            ("admin", spoken.t("admin: also settings")),
        ],
        lifetimes=[
            (days, spoken.tn("{n} days", int(days)) if days else spoken.t("until it is revoked"))
            for days in _LIFETIMES
        ],
        **facts,
    )  # fmt: skip


def _facts(session: Session, call: Call, before: int | None) -> dict[str, Any]:
    """What the viewer may see; None for what is for administrators."""
    admin, now = call.principal.may("admin"), now_s()
    found: dict[str, Any] = {
        "storages": storages.list_storages(session),
        "secrets": secret_files.list_secrets(session) if call.principal.may("write") else None,
        "tokens": None, "ended_tokens": [], "webhooks": None, "deliveries": {}, "audit": None,
        "older": None,
    }  # fmt: skip
    if not admin:
        return found
    rows = tokens.list_tokens(session)
    found["tokens"] = [row for row in rows if tokens.is_valid(row, now)]
    found["ended_tokens"] = [row for row in rows if not tokens.is_valid(row, now)][:_ENDED_TOKENS]
    found["webhooks"] = registry.list_webhooks(session)
    found["deliveries"] = {
        row.name: list(
            session.scalars(
                select(Delivery)
                .where(Delivery.webhook == row.name)
                .order_by(Delivery.next_at.desc(), Delivery.id.desc())
                .limit(_DELIVERIES)
            )
        )
        for row in found["webhooks"]
    }
    statement = select(Audit).order_by(Audit.id.desc()).limit(_AUDIT_PAGE + 1)
    if before is not None:
        statement = statement.where(Audit.id < before)
    entries = list(session.scalars(statement))
    found["audit"] = entries[:_AUDIT_PAGE]
    found["older"] = entries[_AUDIT_PAGE - 1].id if len(entries) > _AUDIT_PAGE else None
    return found
