"""Routes of models: which there are, their lineage, and what their names mean."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy.orm import Session

from onward.server import models
from onward.server.api.call import Call, Caller
from onward.server.api.model_documents import (
    AllSavings,
    Changed,
    CheckpointDocument,
    CheckpointPage,
    Damage,
    DataDocument,
    DifferenceDocument,
    LearningDocument,
    ModelDocument,
    ModelPage,
    ModelSummary,
    SavingsDocument,
    SeenDocument,
    VerificationDocument,
)
from onward.server.api.outside import once_outside
from onward.server.api.parameters import Cursor, Limit, Word
from onward.server.models import Change, verifying
from onward.server.models.catalog import summary_document
from onward.server.models.changing import carry_out, decide
from onward.server.spec import Where

router = APIRouter(prefix="/api/v1", tags=["models"])

_NAME = r"^[A-Za-z0-9._-]{1,64}$"
ModelId = Annotated[str, Path(pattern=r"^mdl-[0-9a-f]{20}$", examples=["mdl-0a1b2c3d4e5f60718293"])]
Named = Annotated[str, Path(pattern=_NAME, description="An id, vN, latest or an alias.")]
AliasName = Annotated[str, Path(pattern=_NAME)]
Checkpoint = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{0,64}$")]


class ModelRequest(BaseModel):
    """An output to list, though no job of this server trained it."""

    model_config = ConfigDict(extra="forbid")

    location: Where


class PromoteRequest(BaseModel):
    """Which checkpoint; by default the newest that ended an increment."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Checkpoint = ""
    force: bool = False
    """Without asking the gate."""
    margin: Annotated[float, Field(ge=0, le=1)] | None = None


class AliasRequest(BaseModel):
    """Which checkpoint a name is to mean."""

    model_config = ConfigDict(extra="forbid")

    checkpoint: Annotated[str, StringConstraints(pattern=_NAME)]


class VerifyRequest(BaseModel):
    """How closely to look."""

    model_config = ConfigDict(extra="forbid")

    every_byte: bool = False
    """Not only whether all is there, with the right size."""


@router.get("/models", response_model=ModelPage)
def listed(call: Caller, q: Word = "", limit: Limit = 50, cursor: Cursor = "") -> Any:
    """Models by name, as they were last seen."""
    call.need("read")
    with call.database.read() as session:
        items, following = models.list_models(session, text=q, limit=limit, cursor=cursor)
    return {"items": items, "next": following}


@router.post("/models", status_code=201, response_model=ModelSummary)
def add(body: ModelRequest, call: Caller) -> JSONResponse:
    """Lists an output as a model. The output itself is not touched."""
    call.need("admin")

    def effect(session: Session) -> Any:
        return summary_document(models.add_model(session, body.location))

    return call.once(effect, action="model.add", status=201)


@router.get("/savings", response_model=AllSavings, tags=["savings"])
def all_savings(call: Caller) -> Any:
    """What all models together saved against retraining each time."""
    call.need("read")
    with call.database.read() as session:
        return models.all_savings(session)


@router.get("/models/{model_id}", response_model=ModelDocument)
def show(model_id: ModelId, call: Caller) -> Any:
    """A model as its output is now, with its lineage."""
    call.need("read")
    return models.model_document(call.settings, call.database, model_id)


@router.get("/models/{model_id}/checkpoints", response_model=CheckpointPage)
def checkpoints(
    model_id: ModelId, call: Caller, limit: Limit = 50, cursor: Cursor = "", dropped: bool = False
) -> Any:
    """Its checkpoints, the newest first."""
    call.need("read")
    return models.checkpoints_page(
        call.settings, call.database, model_id, limit=limit, cursor=cursor, dropped=dropped
    )


@router.get("/models/{model_id}/checkpoints/{checkpoint}", response_model=CheckpointDocument)
def checkpoint(model_id: ModelId, checkpoint: Named, call: Caller) -> Any:
    """What trained a checkpoint and what it holds. No tensor is read."""
    call.need("read")
    return models.checkpoint_document(call.settings, call.database, model_id, checkpoint)


@router.post(
    "/models/{model_id}/checkpoints/{checkpoint}/verify", response_model=Damage,
    responses={202: {"model": VerificationDocument, "description": "Every byte is being read."}},
)  # fmt: skip
def verify(
    model_id: ModelId, checkpoint: Named, call: Caller, body: VerifyRequest | None = None
) -> Any:
    """Looks for damage; changes nothing. With `every_byte` all that it needs is read, which may
    take hours: the answer is a verification that is under way, and `Location` says where to ask."""
    call.need("write")
    if body is None or not body.every_byte:
        return models.look_for_damage(call.settings, call.database, model_id, checkpoint)
    answer = ask_to_verify(call, model_id, checkpoint)
    id_ = json.loads(bytes(answer.body))["id"]
    answer.headers["Location"] = f"/api/v1/models/{model_id}/verifications/{id_}"
    return answer


def ask_to_verify(call: Call, model_id: str, checkpoint: str) -> JSONResponse:
    """Keeps the wish to read every byte of a checkpoint, once."""
    answered = call.answered()
    if answered is not None:
        return answered
    id_, location = verifying.checkpoint_of(call.settings, call.database, model_id, checkpoint)
    return call.once(
        lambda session: verifying.document(
            verifying.ask(session, model_id, id_, by=call.principal.name)
        ),
        action="model.verify", status=202, about=f"{location} {id_}",
    )  # fmt: skip


@router.get("/models/{model_id}/verifications/{verification}", response_model=VerificationDocument)
def verification(
    model_id: ModelId,
    verification: Annotated[str, Path(pattern=r"^ver-[a-z0-9]{1,28}$")],
    call: Caller,
) -> Any:
    """How far it is, and what it found."""
    call.need("read")
    with call.database.read() as session:
        return verifying.document(verifying.find_verification(session, model_id, verification))


@router.get("/models/{model_id}/learning", response_model=LearningDocument, tags=["learning"])
def learning(model_id: ModelId, call: Caller) -> Any:
    """How increments scored on frozen holdouts, what was forgotten, what the gate said."""
    call.need("read")
    return models.learning_document(call.settings, call.database, model_id)


@router.get(
    "/models/{model_id}/learning.svg", tags=["learning"], response_class=Response,
    responses={200: {"content": {"image/svg+xml": {"schema": {"type": "string"}}}}},
)  # fmt: skip
def learning_picture(model_id: ModelId, call: Caller) -> Response:
    """The same as a heat map."""
    call.need("read")
    picture = models.learning_picture(call.settings, call.database, model_id)
    # Opened by itself, a picture could be a document: this one may run and load nothing.
    headers = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox"}
    return Response(picture.encode("utf-8", "replace"), 200, headers, media_type="image/svg+xml")


@router.get("/models/{model_id}/data", response_model=DataDocument, tags=["data"])
def data(model_id: ModelId, call: Caller) -> Any:
    """What each increment learned from."""
    call.need("read")
    return models.data_document(call.settings, call.database, model_id)


@router.get("/models/{model_id}/data/diff", response_model=DifferenceDocument, tags=["data"])
def difference(
    model_id: ModelId,
    call: Caller,
    first: Annotated[str, Query(pattern=_NAME)],
    second: Annotated[str, Query(pattern=_NAME)],
    loader: Word = "",
) -> Any:
    """How the data of the second checkpoint differs from that of the first."""
    call.need("read")
    return models.data_difference(
        call.settings, call.database, model_id, first, second, loader=loader
    )


@router.get("/models/{model_id}/data/seen", response_model=SeenDocument, tags=["data"])
def seen(
    model_id: ModelId,
    call: Caller,
    item: Annotated[str, Query(min_length=1, max_length=2000, pattern=r"^[^\x00]+$")],
    by: Literal["key", "id"] = "key",
    checkpoint: Annotated[str, Query(pattern=r"^[A-Za-z0-9._-]{0,64}$")] = "",
) -> Any:
    """Which checkpoints learned from an item, by its key (such as a path) or its id."""
    call.need("read")
    return models.data_seen(
        call.settings, call.database, model_id, item, by=by, checkpoint=checkpoint
    )


@router.get("/models/{model_id}/savings", response_model=SavingsDocument, tags=["savings"])
def savings(model_id: ModelId, call: Caller) -> Any:
    """What each increment cost beside a full retrain."""
    call.need("read")
    return models.savings_document(call.settings, call.database, model_id)


# Changes.


@router.post("/models/{model_id}/promote", response_model=Changed)
def promote(model_id: ModelId, call: Caller, body: PromoteRequest | None = None) -> JSONResponse:
    """Makes a checkpoint the champion, if the gate shows that it lost nothing."""
    wanted = body or PromoteRequest()
    return _changed(
        call, model_id,
        Change(
            "promote", checkpoint=wanted.checkpoint, force=wanted.force, margin=wanted.margin
        ),
    )  # fmt: skip


@router.post("/models/{model_id}/rollback", response_model=Changed)
def rollback(model_id: ModelId, call: Caller) -> JSONResponse:
    """Makes the champion before the present one the champion again."""
    return _changed(call, model_id, Change("rollback"))


@router.put("/models/{model_id}/aliases/{name}", response_model=Changed)
def set_alias(model_id: ModelId, name: AliasName, body: AliasRequest, call: Caller) -> JSONResponse:
    """Gives a checkpoint a name, or moves that name. What has a name is not dropped."""
    return _changed(call, model_id, Change("alias", checkpoint=body.checkpoint, name=name))


@router.delete("/models/{model_id}/aliases/{name}", response_model=Changed)
def remove_alias(model_id: ModelId, name: AliasName, call: Caller) -> JSONResponse:
    """Takes a name away."""
    return _changed(call, model_id, Change("unalias", name=name))


@router.put("/models/{model_id}/checkpoints/{checkpoint}/pin", response_model=Changed)
def pin(model_id: ModelId, checkpoint: Named, call: Caller) -> JSONResponse:
    """Keeps a checkpoint, whatever the rules of a job say."""
    return _changed(call, model_id, Change("pin", checkpoint=checkpoint))


@router.delete("/models/{model_id}/checkpoints/{checkpoint}/pin", response_model=Changed)
def unpin(model_id: ModelId, checkpoint: Named, call: Caller) -> JSONResponse:
    """Takes the pin away."""
    return _changed(call, model_id, Change("unpin", checkpoint=checkpoint))


@router.delete("/models/{model_id}/checkpoints/{checkpoint}", response_model=Changed)
def drop(model_id: ModelId, checkpoint: Named, call: Caller) -> JSONResponse:
    """Forgets a checkpoint and frees what only it needs. This cannot be undone."""
    call.need("admin")
    return _changed(call, model_id, Change("drop", checkpoint=checkpoint))


def _changed(call: Call, model_id: str, wanted: Change) -> JSONResponse:
    call.need("write")
    return once_outside(
        call,
        decide=lambda: decide(call.settings, call.database, model_id, wanted),
        carry_out=lambda intent: carry_out(call.settings, call.database, intent),
        action=f"model.{wanted.kind}",
    )
