"""What learning in increments cost beside retraining each time: of all models, and of one."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from onward.errors import NotAnOutput
from onward.server import models as service
from onward.server.api.models import ModelId
from onward.server.console.forms import call_of
from onward.server.console.pages.models import head, labels, told
from onward.server.console.rendering import language_of, render

router = APIRouter(include_in_schema=False)


@router.get("/savings")
def savings(request: Request) -> HTMLResponse:
    """All models together, then each."""
    call = call_of(request)
    with call.database.read() as session:
        found = service.all_savings(session)
    return render(request, "savings.html", found=found, bar=bar)


@router.get("/models/{model_id}/savings")
def model_savings(request: Request, model_id: ModelId) -> HTMLResponse:
    """Each increment of one model."""
    call = call_of(request)
    model = head(call, model_id)
    found, error = told(lambda: service.savings_document(call.settings, call.database, model_id))
    increments = found["increments"] if found else []
    spoken = language_of(request)
    bases = {
        "itself": spoken.t("the first is trained either way"), "measured": spoken.t("measured"),
        "scaled": spoken.t("measured on a sample"), "estimated": spoken.t("estimated"),
        "unknown": spoken.t("not told"),
    }  # fmt: skip
    return render(
        request, "model_savings.html", model=model, tab="savings", increments=increments,
        totals=found["totals"] if found else {}, audits=found["audits"] if found else [],
        error=None if isinstance(error, NotAnOutput) else error, bar=bar, bases=bases,
        v=labels(call, model_id, [each["checkpoint"] for each in increments]),
    )  # fmt: skip


def bar(used: float | None, retrain: float | None) -> float | None:
    """How much of a bar of 100 is filled; None where there is nothing to compare with."""
    if used is None or not retrain:
        return None
    return round(100 * min(1.0, max(0.0, used / retrain)), 1)
