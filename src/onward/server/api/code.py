"""Routes of pinned code: sending an archive, and seeing what is stored."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from onward.server.api.call import Call, Caller, IdempotencyKey, begun_digest, call_from
from onward.server.api.parameters import Cursor, Limit
from onward.server.code import find_code, pin_archive
from onward.server.code.pinning import paths_of
from onward.server.database.tables import Code
from onward.server.paging import Order
from onward.server.problems import TooLarge

router = APIRouter(prefix="/api/v1/code", tags=["code"])

_MOST_PATHS = 2000


class CodeDocument(BaseModel):
    """Code that is stored. `paths` is only there where one is shown, of large trees the first."""

    digest: str
    source: str
    files: int
    size_bytes: int
    created_at: float
    created_by: str
    paths: list[str] | None = None


class CodeList(BaseModel):
    """A page of code, newest first."""

    items: list[CodeDocument]
    next: str | None


@dataclass(frozen=True, slots=True)
class _Upload:
    """A body that is too large to be held in memory, in a file without a name."""

    call: Call
    file: IO[bytes]


async def _upload(
    request: Request, idempotency_key: IdempotencyKey = None
) -> AsyncIterator[_Upload]:
    call = call_from(request, idempotency_key, "")
    call.need("write")  # before its body is taken in
    longest = call.settings.longest_upload
    digest = begun_digest(request)
    with TemporaryFile() as file:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > longest:
                raise TooLarge(
                    f"the archive has more than {longest:,} bytes",
                    why="code is scripts; data is an input of the job",
                    do="leave out what is no code",
                )
            digest.update(chunk)
            await run_in_threadpool(file.write, chunk)
        yield _Upload(replace(call, request_digest=digest.hexdigest()), file)


@router.post(
    "",
    status_code=201,
    response_model=CodeDocument,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}
            },
        }
    },
)
def upload(
    sent: Annotated[_Upload, Depends(_upload)],
    name: Annotated[
        str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$", description="For people.")
    ] = "",
) -> JSONResponse:
    """Stores the code of an archive (tar, tar.gz or zip), which is the body. A job names it by its
    digest. The same code sent again is stored once."""
    call = sent.call
    # Before the transaction: it takes long, and doing it twice is the same as once.
    pinned = pin_archive(call.settings, call.database, sent.file, by=call.principal.name, name=name)

    def effect(session: Any) -> Any:
        return _document(find_code(session, pinned.digest))

    return call.once(effect, action="code.upload", status=201)


@router.get("", response_model=CodeList)
def listed(call: Caller, limit: Limit = 50, cursor: Cursor = "") -> Any:
    """Everything that is pinned, newest first."""
    call.need("read")
    order = Order(Code.created_at, Code.digest, falling=True)
    with call.database.read() as session:
        rows, following = order.page(session.scalars, select(Code), limit=limit, cursor=cursor)
    return {"items": [_document(row) for row in rows], "next": following}


@router.get("/{digest}", response_model=CodeDocument)
def show(digest: str, call: Caller) -> Any:
    """What is pinned under a digest, with its paths."""
    call.need("read")
    with call.database.read() as session:
        row = find_code(session, digest)
    return {**_document(row), "paths": paths_of(call.settings, row.digest)[:_MOST_PATHS]}


def _document(row: Code) -> dict[str, Any]:
    return {
        "digest": row.digest, "source": str(row.source.get("text", "")), "files": row.files,
        "size_bytes": row.size_bytes, "created_at": row.created_at, "created_by": row.created_by,
    }  # fmt: skip
