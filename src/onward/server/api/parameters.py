"""Parameters that many routes share. Their bounds keep what no database takes from it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Path, Query

from onward.server.paging import LARGEST_PAGE

LARGEST_PLACE = 2**62

JobId = Annotated[str, Path(pattern=r"^[a-z0-9-]{1,32}$", examples=["job-7k2m9qxw4t8vzc"])]

Limit = Annotated[int, Query(ge=1, le=LARGEST_PAGE, description="Items of a page.")]
Cursor = Annotated[
    str, Query(max_length=400, pattern=r"^[A-Za-z0-9_-]*$", description="`next` of a page.")
]
Word = Annotated[str, Query(max_length=2000, pattern=r"^[^\x00-\x1f\x7f]*$")]
Time = Annotated[float | None, Query(allow_inf_nan=False, description="Seconds since 1970.")]

AttemptNumber = Annotated[
    int | None, Query(ge=1, le=2**31 - 1, description="Which attempt; by default the newest.")
]
Place = Annotated[int, Query(ge=0, le=LARGEST_PLACE, description="A place in it, in bytes.")]
