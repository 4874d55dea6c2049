"""The data that a model learned from: snapshots, differences, and who saw an item."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from onward.errors import NotAnOutput, UsageError
from onward.server import models as service
from onward.server.api.models import ModelId
from onward.server.console.forms import call_of
from onward.server.console.pages.models import head, labels, told
from onward.server.console.rendering import render

_MOST_ITEM = 2000

router = APIRouter(include_in_schema=False)


@router.get("/models/{model_id}/data")
def data(
    request: Request, model_id: ModelId, first: str = "", second: str = "", item: str = "",
    by: str = "key",
) -> HTMLResponse:  # fmt: skip
    """What each increment learned from; and the answers to what its two forms ask."""
    call = call_of(request)
    model = head(call, model_id)
    found, error = told(lambda: service.data_document(call.settings, call.database, model_id))
    increments = found["increments"] if found else []
    compared: dict[str, Any] | None = None
    seen: dict[str, Any] | None = None
    compare_error = seen_error = None
    first, second, item = first.strip()[:64], second.strip()[:64], item[:_MOST_ITEM]
    by = by if by in ("key", "id") else "key"
    if first and second:
        compared, compare_error = told(
            lambda: service.data_difference(call.settings, call.database, model_id, first, second)
        )
    if item:
        seen, seen_error = told(lambda: _seen(call.settings, call.database, model_id, item, by))
    ids = [each["checkpoint"] for each in increments]
    ids += [each["checkpoint"] for each in seen["items"]] if seen else []
    return render(
        request, "data.html", model=model, increments=increments, tab="data",
        error=None if isinstance(error, NotAnOutput) else error,
        rows=[(each, name, loader) for each in increments
              for name, loader in (each["loaders"] or {"": {}}).items()],
        compared=compared, compare_error=compare_error, seen=seen, seen_error=seen_error,
        first=first, second=second, item=item, by=by, v=labels(call, model_id, ids),
        ids=list(dict.fromkeys(each["checkpoint"] for each in increments)),
    )  # fmt: skip


def _seen(settings: Any, database: Any, model_id: str, item: str, by: str) -> dict[str, Any]:
    if "\0" in item:
        raise UsageError("no item has such a name", do="give its key, such as its path")
    return service.data_seen(settings, database, model_id, item, by=by)
