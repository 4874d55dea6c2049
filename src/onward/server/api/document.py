"""The OpenAPI document: what FastAPI knows of the routes, and what is true of all of them.

Whoever calls must show a token; every error, whatever refuses, has one shape.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

_MEDIA = "application/problem+json"
_SAFE = frozenset({"get", "head", "options"})


class Place(BaseModel):
    """A part of a request that is not as the API describes it."""

    where: str
    what: str


class Problem(BaseModel):
    """Every error (RFC 9457): what happened, why, and what to do about it."""

    type: str
    title: str
    status: int
    detail: str
    what: str
    why: str
    do: str
    errors: list[Place] | None = None


_ALWAYS = {
    "400": "The request cannot be understood.",
    "401": "No token, or one that is unknown, expired or revoked.",
    "403": "The token may not do this.",
    "422": "A part of the request is not as described here.",
    "429": "More requests, or wrong tokens from an address, than the limit allows.",
    "503": "Something that the answer needs does not answer; try again.",
}
_OF_A_THING = {"404": "Nothing has this id."}
_OF_A_CHANGE = {
    "409": "It cannot do that as it is now, or the same request is under way.",
    "413": "The body is over the limit.",
}


def describe(app: FastAPI) -> None:
    """Makes `app.openapi` tell the whole."""
    plain = app.openapi

    def whole() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(plain())
        return app.openapi_schema

    app.openapi = whole  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    parts = document.setdefault("components", {})
    schemas = parts.setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    for model in (Place, Problem):
        found = model.model_json_schema(ref_template="#/components/schemas/{model}")
        found.pop("$defs", None)
        schemas[model.__name__] = found
    parts["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            answers = operation.setdefault("responses", {})
            told = dict(_ALWAYS)
            if "{" in path:
                told |= _OF_A_THING
            if method not in _SAFE:
                told |= _OF_A_CHANGE
            for status, description in sorted(told.items()):
                answers[status] = _problem(description)
            answers["default"] = _problem("Any other error.")
    return document


def _problem(description: str) -> dict[str, Any]:
    schema = {"$ref": "#/components/schemas/Problem"}
    return {"description": description, "content": {_MEDIA: {"schema": schema}}}
