"""Lists a page at a time: every route has the same cursors, which lose and double nothing."""

from __future__ import annotations

import pytest
from sqlalchemy import select
from sqlalchemy.orm import InstrumentedAttribute
from starlette.testclient import TestClient

from onward.errors import UsageError
from onward.server.database import Database
from onward.server.database.tables import Audit
from onward.server.paging import Order, write_cursor


def entry(at: float, by: str) -> Audit:
    return Audit(at=at, by=by, action="test", object="", remote="", detail={})


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("columns", [(Audit.id,), (Audit.at, Audit.id), (Audit.by, Audit.id)])
def test_pages_are_the_list_whatever_is_added_meanwhile(
    database: Database, columns: tuple[InstrumentedAttribute[object], ...], falling: bool
) -> None:
    """Rows of one moment among them. What is added before the place moves nothing."""
    with database.write() as session:
        session.add_all([entry(float(n // 3), "abcd"[n % 4]) for n in range(11)])
    order, shown = Order(*columns, falling=falling), []
    cursor: str | None = ""
    with database.read() as session:
        wanted = set(session.scalars(select(Audit.id)))
    while cursor is not None:
        with database.write() as session:
            page, cursor = order.page(session.scalars, select(Audit), limit=4, cursor=cursor)
            shown += [tuple(getattr(row, column.key) for column in columns) for row in page]
            session.add(entry(99.0 if falling else -1.0, "z" if falling else "0"))
    assert shown == sorted(shown, reverse=falling)
    ids = [place[-1] for place in shown]
    assert len(ids) == len(set(ids))
    assert wanted <= set(ids)


def test_a_place_of_another_list_is_refused(database: Database) -> None:
    """Not read as the first page, which would come again and again."""
    order = Order(Audit.at, Audit.id)
    with database.read() as session:
        for cursor in ("x", write_cursor(1), write_cursor("x", "y"), write_cursor(1.0, 2**64)):
            with pytest.raises(UsageError, match="none that this list gave"):
                order.page(session.scalars, select(Audit), limit=4, cursor=cursor)


def test_every_list_refuses_what_is_no_cursor(client: TestClient) -> None:
    """As the API says of all of them: found in its document."""
    document = client.get("/api/v1/openapi.json").json()
    lists = [
        path for path, item in document["paths"].items()
        if any(each["name"] == "cursor" for each in item.get("get", {}).get("parameters", ()))
    ]  # fmt: skip
    assert {"/api/v1/jobs", "/api/v1/code", "/api/v1/audit", "/api/v1/models"} <= set(lists)
    for path in lists:
        if "{" not in path:
            assert client.get(path, params={"cursor": "bm9uZQ"}).status_code == 422, path
