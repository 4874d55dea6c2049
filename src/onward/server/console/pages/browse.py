"""Looking into storages from a form: one folder at a time, in a dialog."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from onward.errors import OnwardError
from onward.server import storages
from onward.server.browsing import browse
from onward.server.console.forms import call_of
from onward.server.console.rendering import render
from onward.server.problems import problem_of

router = APIRouter(include_in_schema=False)


@router.get("/browse")
def places(request: Request, location: str = "", cursor: str = "") -> HTMLResponse:
    """Storages; or, of `alias:path`, what is there. What is typed but not there yet shows its
    storage, with a word on it."""
    call = call_of(request)
    call.need("read")
    alias, _, path = location.strip().partition(":")
    facts: dict[str, Any] = {"problem": None, "trail": [], "items": [], "more": None, "here_": ""}
    if not alias:
        facts["items"] = _storages(call)
        return render(request, "_places.html", **facts)
    try:
        found = browse(call.settings, call.database, alias, path, cursor=cursor)
    except OnwardError as error:
        facts["problem"] = problem_of(error)
        facts["items"] = _storages(call)
        return render(request, "_places.html", **facts)
    parts = found.path.split("/") if found.path else []
    facts["trail"] = [
        (name, f"{found.alias}:" + "/".join(parts[:depth]))
        for depth, name in enumerate([found.alias, *parts])
    ]
    facts["items"] = [
        {
            "name": item.name, "location": item.location, "size_bytes": item.size_bytes,
            "is_output": item.is_output, "opens": item.kind == "folder" and bool(item.location),
            "choosable": item.kind in ("folder", "file"),
        }
        for item in found.items
    ]  # fmt: skip
    facts["more"] = found.next
    facts["here_"] = f"{found.alias}:{found.path}"
    return render(request, "_places.html", **facts)


def _storages(call: Any) -> list[dict[str, Any]]:
    with call.database.read() as session:
        return [
            {
                "name": row.alias, "location": f"{row.alias}:", "size_bytes": None,
                "is_output": False, "opens": True, "choosable": False,
            }
            for row in storages.list_storages(session)
        ]  # fmt: skip
