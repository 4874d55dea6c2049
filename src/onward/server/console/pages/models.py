"""The list of models, the page of one, and what can be done to its names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, TypeVar
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from onward.errors import GateRefused, OnwardError
from onward.server import models as service
from onward.server.api.call import Call
from onward.server.api.models import ModelId, Named
from onward.server.api.outside import once_outside
from onward.server.console.drawing import draw_lineage, fitting
from onward.server.console.forms import Sent, call_of, local, once
from onward.server.console.languages import Language
from onward.server.console.rendering import language_of, render
from onward.server.database.tables import Checkpoint
from onward.server.models.catalog import summary_document
from onward.server.models.changing import carry_out, decide
from onward.server.problems import status_of

_PAGE, _CHECKPOINTS = 50, 25

router = APIRouter(include_in_schema=False)
T = TypeVar("T")


@router.get("/models")
def listed(request: Request, q: str = "", cursor: str = "") -> HTMLResponse:
    """By name, a page at a time."""
    call = call_of(request)
    return _list(request, call, q.strip()[:200], cursor)


@router.post("/models")
def add(request: Request, sent: Sent) -> Response:
    """Lists an output that no job of this server trained."""
    call = call_of(request, sent)
    call.need("admin")

    def effect(session: Session) -> Any:
        return summary_document(service.add_model(session, sent.get("location")))

    try:
        added = once(call, effect, action="model.add")
    except OnwardError as error:
        return _list(request, call, "", "", error=error, location=sent.get("location"))
    return RedirectResponse(f"/models/{added['id']}", 303)


@router.get("/models/{model_id}")
def model(request: Request, model_id: ModelId, cursor: str = "", done: str = "") -> HTMLResponse:
    """Its names, its lineage with the data beside each checkpoint, and its checkpoints."""
    return _show(request, call_of(request), model_id, cursor=cursor, done=done)


@router.post("/models/{model_id}/promote")
def promote_newest(request: Request, model_id: ModelId, sent: Sent) -> Response:
    """The newest checkpoint that ended an increment, if the gate lets it."""
    return _changed(request, model_id, sent, service.Change("promote"))


@router.post("/models/{model_id}/rollback")
def roll_back(request: Request, model_id: ModelId, sent: Sent) -> Response:
    """Back to the champion before."""
    return _changed(request, model_id, sent, service.Change("rollback"))


@router.post("/models/{model_id}/checkpoints/{checkpoint}/promote")
def promote(request: Request, model_id: ModelId, checkpoint: Named, sent: Sent) -> Response:
    """This one; with the field `force`, without asking the gate."""
    force = sent.get("force") == "yes"
    return _changed(request, model_id, sent, service.Change("promote", checkpoint, force=force))


@router.post("/models/{model_id}/checkpoints/{checkpoint}/{kind}")
def keep(
    request: Request, model_id: ModelId, checkpoint: Named, kind: Literal["pin", "unpin"],
    sent: Sent,
) -> Response:  # fmt: skip
    """Pins a checkpoint, or takes the pin away."""
    return _changed(request, model_id, sent, service.Change(kind, checkpoint))


# What the pages of one model share.


def head(call: Call, model_id: str) -> dict[str, Any]:
    """A model as it was last seen. Raises `NotFound`."""
    with call.database.read() as session:
        return summary_document(service.find_model(session, model_id))


def told(ask: Callable[[], T]) -> tuple[T | None, OnwardError | None]:
    """The answer, or what the page says in its place: the rest of the page stays."""
    try:
        return ask(), None
    except OnwardError as error:
        return None, error


def labels(call: Call, model_id: str, ids: Iterable[str | None]) -> Callable[[str | None], str]:
    """What people call checkpoints: `v3`; one that the index does not know yet by its id."""
    wanted = sorted({id_ for id_ in ids if id_})
    known: dict[str, int] = {}
    with call.database.read() as session:
        for begin in range(0, len(wanted), 500):
            rows = session.execute(
                select(Checkpoint.checkpoint, Checkpoint.version).where(
                    Checkpoint.model == model_id,
                    Checkpoint.checkpoint.in_(wanted[begin : begin + 500]),
                )
            )
            known.update({row.checkpoint: row.version for row in rows})
    return lambda id_: f"v{known[id_]}" if id_ in known else (id_ or "–")[:8]


def job_from(location: str, verb: str, checkpoint: str) -> str:
    """The form for a job that goes on from a checkpoint."""
    return "/jobs/new?" + urlencode({"output": location, "verb": verb, "from": checkpoint})


def delta_line(spoken: Language, delta: Mapping[str, Any] | None) -> str:
    """`1,200 added, 3 changed`; empty where nothing is told."""
    parts = []
    for name, text in (
        ("added", spoken.t("{n} added")), ("changed", spoken.t("{n} changed")),
        ("removed", spoken.t("{n} removed")),
    ):  # fmt: skip
        count = (delta or {}).get(name)
        if isinstance(count, int) and (count or name == "added"):
            parts.append(text.format(n=spoken.number(count)))
    return ", ".join(parts)


def known_line(spoken: Language, delta: Mapping[str, Any] | None) -> str:
    """How many items the model knew afterwards."""
    known = (delta or {}).get("known")
    return spoken.t("{n} known", n=spoken.number(known)) if isinstance(known, int) else ""


def metrics_line(spoken: Language, metrics: Mapping[str, Any], most: int = 2) -> str:
    """The first few metrics."""
    return " · ".join(f"{name} {spoken.number(value)}" for name, value in [*metrics.items()][:most])


# Details.


def _list(
    request: Request, call: Call, q: str, cursor: str, *, error: OnwardError | None = None,
    location: str = "",
) -> HTMLResponse:  # fmt: skip
    spoken = language_of(request)
    with call.database.read() as session:
        items, following = service.list_models(session, text=q, limit=_PAGE, cursor=cursor)

    def address(cursor: str) -> str:
        query = urlencode({k: v for k, v in (("q", q), ("cursor", cursor)) if v})
        return "/models" + (f"?{query}" if query else "")

    request.state.here = address(cursor)
    return render(
        request, "models.html", status=status_of(error) if error else 200, models=items, q=q,
        next=address(following) if following else "", first=address("") if cursor else "",
        error=error, location=location,
        metrics_line=lambda metrics: metrics_line(spoken, metrics),
    )  # fmt: skip


def _show(
    request: Request, call: Call, model_id: str, *, cursor: str = "", done: str = "",
    error: OnwardError | None = None, refused: str = "",
) -> HTMLResponse:  # fmt: skip
    spoken = language_of(request)
    found = service.model_document(call.settings, call.database, model_id)
    page = service.checkpoints_page(
        call.settings, call.database, model_id, limit=_CHECKPOINTS, cursor=cursor
    )
    request.state.here = f"/models/{model_id}"
    tags = {node["checkpoint"]: _tags(spoken, node) for node in found["lineage"]["nodes"]}
    return render(
        request, "model.html", status=status_of(error) if error else 200, model=found,
        drawing=draw_lineage(found["lineage"]["nodes"], found["lineage"]["lanes"], tags),
        checkpoints=page["items"], cursor=cursor,
        next=f"/models/{model_id}?{urlencode({'cursor': page['next']})}" if page["next"] else "",
        v=labels(call, model_id, [*found["aliases"].values(), *found["pins"], refused]),
        error=error, refused=refused, done=_done(spoken).get(done, ""), job_from=job_from,
        delta_line=lambda delta: delta_line(spoken, delta),
        known_line=lambda delta: known_line(spoken, delta),
        metrics_line=lambda metrics: metrics_line(spoken, metrics), tab="model", fitting=fitting,
    )  # fmt: skip


def _tags(spoken: Language, node: Mapping[str, Any]) -> list[str]:
    tags = [spoken.t("latest")] if node["latest"] else []
    tags += [spoken.t("champion") if name == "champion" else name for name in node["names"]]
    tags += [spoken.t("pinned")] if node["pinned"] else []
    return tags + ([spoken.t("dropped")] if node["dropped"] else [])


def _done(spoken: Language) -> dict[str, str]:
    return {
        "promote": spoken.t("The checkpoint is the champion now."),
        "rollback": spoken.t("The champion before is the champion again."),
        "pin": spoken.t("The checkpoint is pinned: no rule drops it."),
        "unpin": spoken.t("The pin is taken away."),
    }


def _changed(request: Request, model_id: str, sent: Sent, wanted: service.Change) -> Response:
    call = call_of(request, sent)
    call.need("write")
    decided: dict[str, Any] = {}

    def deciding() -> dict[str, Any]:
        decided.update(decide(call.settings, call.database, model_id, wanted))
        return decided

    try:
        once_outside(
            call,
            decide=deciding,
            carry_out=lambda intent: carry_out(call.settings, call.database, intent),
            action=f"model.{wanted.kind}",
        )
    except OnwardError as error:
        head(call, model_id)  # without a model there is no page to say it on
        refused = decided.get("checkpoint", "") if isinstance(error, GateRefused) else ""
        return _show(request, call, model_id, error=error, refused=refused)
    back = local(sent.get("back")) if sent.get("back") else f"/models/{model_id}"
    return RedirectResponse(f"{back}{'&' if '?' in back else '?'}done={wanted.kind}", 303)
