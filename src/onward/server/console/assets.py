"""Static files: served under an address that names their content, so that browsers keep them.

The digest is of all files together: modules name each other by relative addresses.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import Response

from onward.server.problems import NotFound

FOLDER = Path(__file__).parent / "static"
_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    "": "text/plain; charset=utf-8",
}
_DIGITS = 16

router = APIRouter(include_in_schema=False)


@cache
def files() -> dict[str, bytes]:
    """Every static file by name. They are few and small: memory serves them."""
    return {path.name: path.read_bytes() for path in sorted(FOLDER.iterdir()) if path.is_file()}


@cache
def digest() -> str:
    """Of all names and contents."""
    found = hashlib.sha256()
    for name, data in files().items():
        found.update(f"{name} {len(data)}\n".encode() + data)
    return found.hexdigest()[:_DIGITS]


def address(name: str) -> str:
    """Where a page finds a file. Raises `KeyError` for a name that does not exist: a bug."""
    files()[name]
    return f"/static/{digest()}/{name}"


@router.get("/static/{version}/{name}")
def static(version: str, name: str) -> Response:
    """A file; one of another version is not there, rather than a mixture of two."""
    data = files().get(name)
    if data is None or version != digest():
        raise NotFound("there is no such file", do="load the page again")
    return Response(
        data,
        media_type=_TYPES[Path(name).suffix],
        headers={
            "Cache-Control": "private, max-age=31536000, immutable",
            "X-Content-Type-Options": "nosniff",
        },
    )
