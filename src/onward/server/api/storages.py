"""Routes of storages: the places that jobs may name, and looking into them."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from onward.server import storages
from onward.server.api.call import Caller
from onward.server.browsing import LARGEST_PAGE, browse
from onward.server.database.tables import Storage
from onward.server.spec import Alias, Where

router = APIRouter(prefix="/api/v1/storages", tags=["storages"])

StorageAlias = Annotated[str, Path(pattern=f"^{storages.ALIAS}$", examples=["team-data"])]


class StorageRequest(BaseModel):
    """A place to register: a folder of the server's machine, or a bucket's prefix."""

    model_config = ConfigDict(extra="forbid")

    alias: Alias
    url: Where
    """An absolute path, or such as `s3://bucket/prefix?endpoint=https://host`. No keys in it."""
    single_writer: bool = False
    """A promise for stores that cannot keep two writers apart: nobody else writes there."""
    environment: Annotated[
        dict[Annotated[str, StringConstraints(pattern=f"^{storages.VARIABLE}$")], Alias],
        Field(max_length=16),
    ] = {}
    """Variable that the store's client reads → name of a secret."""


class StorageDocument(BaseModel):
    """A registered storage."""

    alias: str
    url: str
    single_writer: bool
    environment: dict[str, str]
    created_at: float
    created_by: str


class StorageList(BaseModel):
    """All of them, by alias."""

    items: list[StorageDocument]
    next: None = None


class FoundDocument(BaseModel):
    """A folder or a file. `location` is null where its name cannot be part of a location."""

    name: str
    kind: Literal["folder", "file", "other"]
    size_bytes: int | None
    location: str | None
    is_output: bool


class ListingDocument(BaseModel):
    """One page of what a folder holds, by name."""

    alias: str
    path: str
    above: str | None
    is_output: bool
    items: list[FoundDocument]
    next: str | None


@router.get("", response_model=StorageList)
def listed(call: Caller) -> Any:
    """Every registered storage."""
    call.need("read")
    with call.database.read() as session:
        return {"items": [_document(each) for each in storages.list_storages(session)]}


@router.post("", status_code=201, response_model=StorageDocument)
def register(body: StorageRequest, call: Caller) -> JSONResponse:
    """Registers a place, which jobs name `alias:path` from then on."""
    call.need("admin")

    def effect(session: Session) -> Any:
        return _document(
            storages.register(
                session, call.settings, body.alias, body.url, by=call.principal.name,
                single_writer=body.single_writer, environment=body.environment,
            )
        )  # fmt: skip

    return call.once(effect, action="storage.register", status=201, about=body.alias)


@router.get("/{alias}", response_model=StorageDocument)
def show(alias: StorageAlias, call: Caller) -> Any:
    """One storage."""
    call.need("read")
    with call.database.read() as session:
        return _document(storages.find_storage(session, alias))


@router.delete("/{alias}", response_model=StorageDocument)
def remove(alias: StorageAlias, call: Caller) -> JSONResponse:
    """Forgets a storage; nothing in it is touched."""
    call.need("admin")

    def effect(session: Session) -> Any:
        return _document(storages.remove(session, alias))

    return call.once(effect, action="storage.remove", about=alias)


@router.get("/{alias}/browse", response_model=ListingDocument)
def look(
    alias: StorageAlias,
    call: Caller,
    path: Annotated[str, Query(max_length=2000)] = "",
    cursor: Annotated[
        str, Query(max_length=2000, pattern=r"^[A-Za-z0-9_-]*$", description="`next` of a page.")
    ] = "",
    limit: Annotated[int, Query(ge=1, le=LARGEST_PAGE)] = 200,
) -> Any:
    """What is in a folder of a storage."""
    call.need("read")
    return asdict(browse(call.settings, call.database, alias, path, cursor=cursor, limit=limit))


def _document(storage: Storage) -> dict[str, Any]:
    return {
        "alias": storage.alias, "url": storage.url, "single_writer": storage.single_writer,
        "environment": dict(storage.environment), "created_at": storage.created_at,
        "created_by": storage.created_by,
    }  # fmt: skip
