"""Answers that are written often: JSON by the quickest writer there is."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

_ENCODER = msgspec.json.Encoder()


def json_answer(document: Any, status: int = 200) -> Response:
    """A document of plain values or of `msgspec` structs. What is not finite becomes null."""
    return Response(_ENCODER.encode(document), status, media_type="application/json")
