"""One checkpoint: what trained it, what it holds, whether it is intact."""

from __future__ import annotations

import shlex
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from onward.errors import OnwardError
from onward.facts.contents import flattened
from onward.server import models as service
from onward.server.api.call import Call
from onward.server.api.models import ModelId, Named, ask_to_verify
from onward.server.console.forms import Sent, call_of
from onward.server.console.pages.models import (
    delta_line,
    head,
    job_from,
    known_line,
    labels,
    told,
)
from onward.server.console.rendering import is_partial, language_of, render
from onward.server.models import verifying
from onward.server.problems import status_of

_TENSORS, _SETTINGS = 100, 100

router = APIRouter(include_in_schema=False)


@router.get("/models/{model_id}/checkpoints/{checkpoint}")
def shown(
    request: Request, model_id: ModelId, checkpoint: Named, tensors: str = ""
) -> HTMLResponse:  # fmt: skip
    """From its manifest, which is checked by digest; no tensor is read. The state of its
    verification alone where htmx asks for it."""
    call = call_of(request)
    if is_partial(request):
        return render(
            request, "_verification.html", verification=_verification(call, model_id, checkpoint)
        )
    return _page(request, call, model_id, checkpoint, everything=tensors == "all")


@router.post("/models/{model_id}/checkpoints/{checkpoint}/verify")
def verify(request: Request, model_id: ModelId, checkpoint: Named, sent: Sent) -> Response:
    """Looks for damage, and shows what it found; or where the reading of every byte is told of."""
    call = call_of(request, sent)
    call.need("write")
    if sent.get("every_byte") == "yes":
        _, error = told(lambda: ask_to_verify(call, model_id, checkpoint))
        if error is None:
            here = f"/models/{model_id}/checkpoints/{checkpoint}"
            return RedirectResponse(f"{here}#verification", 303)
        return _page(request, call, model_id, checkpoint, error=error)
    found, error = told(
        lambda: service.look_for_damage(call.settings, call.database, model_id, checkpoint)
    )
    return _page(request, call, model_id, checkpoint, checked=found, error=error)


def _verification(call: Call, model_id: str, id_: str) -> dict[str, Any] | None:
    with call.database.read() as session:
        row = verifying.newest_of(session, model_id, id_)
    return verifying.document(row) if row is not None else None


def _page(
    request: Request, call: Call, model_id: str, checkpoint: str, *, everything: bool = False,
    checked: dict[str, Any] | None = None, error: OnwardError | None = None,
) -> HTMLResponse:  # fmt: skip
    spoken = language_of(request)
    model = head(call, model_id)
    here = f"/models/{model_id}/checkpoints/{checkpoint}"
    request.state.here = here
    found = service.checkpoint_document(call.settings, call.database, model_id, checkpoint)
    trained, loaders = found["trained_by"], found["loaders"] or {}
    v = labels(call, model_id, [found["parent"], *found["children"][:20]])
    return render(
        request, "checkpoint.html", status=status_of(error) if error else 200, model=model,
        found=found, v=v, here_path=here, job_from=job_from,
        command=_command(trained["command"]), settings=_settings(trained["config"]),
        deltas=[
            (name, delta_line(spoken, loader), known_line(spoken, loader))
            for name, loader in loaders.items()
        ],
        scores=_scores(found), tensors=found["tensors"][: None if everything else _TENSORS],
        own_bytes=sum(p["size_bytes"] for p in found["packs"].values() if p["own"]),
        checked=checked, error=error, tab="model",
        verification=_verification(call, model_id, found["checkpoint"]),
    )  # fmt: skip


def _command(command: Any) -> str:
    if isinstance(command, list):
        return shlex.join(str(word) for word in command)
    return str(command) if command else ""


def _settings(config: Any) -> list[tuple[str, str]]:
    if not isinstance(config, dict):
        return []
    return [(name, str(value)) for name, value in [*flattened(config).items()][:_SETTINGS]]


def _scores(found: dict[str, Any]) -> list[tuple[str, Any]]:
    scores = found["scores"]
    after = scores.get("after") if isinstance(scores, dict) else None
    return [*after.items()] if isinstance(after, dict) else []
