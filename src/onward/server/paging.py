"""Lists a page at a time: an order that never changes, and cursors that name a place in it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute

from onward.errors import UsageError

LARGEST_PAGE = 500


class Order:
    """By some columns, which together name one row; all rising, or all falling."""

    def __init__(self, *columns: InstrumentedAttribute[Any], falling: bool = False) -> None:
        self._columns = columns
        self._falling = falling

    def page(
        self, read: Callable[[Select[Any]], Any], rows: Select[Any], *, limit: int, cursor: str = ""
    ) -> tuple[Sequence[Any], str | None]:
        """A page of rows, and the cursor of the following one; None on the last.

        `read` is `session.scalars`, or `session.execute` for rows of columns that hold those of the
        order. Raises `UsageError` for a cursor that this list never gave.
        """
        if cursor:
            kinds = [column.type.python_type for column in self._columns]
            rows = rows.where(self._beyond(0, read_cursor(cursor, *kinds)))
        rows = rows.order_by(
            *(column.desc() if self._falling else column.asc() for column in self._columns)
        )
        found = read(rows.limit(limit + 1)).all()
        if len(found) <= limit:
            return found, None
        last = found[limit - 1]
        place = write_cursor(*(getattr(last, column.key) for column in self._columns))
        return found[:limit], place

    def _beyond(self, index: int, place: Sequence[Any]) -> ColumnElement[bool]:
        column, value = self._columns[index], place[index]
        beyond: ColumnElement[bool] = column < value if self._falling else column > value
        if index == len(self._columns) - 1:
            return beyond
        # A bound on the first column alone lets the index find the place.
        at_least = column <= value if self._falling else column >= value
        return and_(at_least, or_(beyond, self._beyond(index + 1, place)))


def write_cursor(*values: float | int | str) -> str:
    """Values as text that means nothing to anybody else."""
    text = "\n".join(repr(v) if isinstance(v, float) else str(v) for v in values)
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def read_cursor(cursor: str, *kinds: type) -> tuple[Any, ...]:
    """The values again. Raises `UsageError` for a text that is no cursor of these kinds."""
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        parts = text.split("\n")
        found = tuple(kind(part) for kind, part in zip(kinds, parts, strict=True))
        if (
            write_cursor(*found) != cursor
            or "\0" in text
            or any(isinstance(value, int) and abs(value) >= 2**63 for value in found)
        ):
            raise ValueError(cursor)
        return found
    except (ValueError, binascii.Error) as error:
        raise UsageError(
            "the cursor is none that this list gave",
            do="use `next` of the page before, with the same filters, or leave it away",
        ) from error
