"""Changes of names: past the gate, once each, whatever dies in between."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from onward.errors import Conflict, Indeterminate, Regression, UnknownCheckpoint, UsageError
from onward.repository import open_repository
from onward.server.api import outside
from onward.server.app import Parts
from onward.server.database.tables import Answer, Audit
from onward.server.models import Change, change
from onward.server.models.changing import carry_out, decide
from onward.stores import LocalStore
from tests.cli.outputs import Output
from tests.cli.scored import Scored
from tests.server.lab import AddModel


def history_of(output: Output) -> Any:
    return open_repository(LocalStore(output.folder)).history


def test_the_gate_decides_who_is_champion(parts: Parts, digits: Scored, add: AddModel) -> None:
    """The first needs no opponent, a regression is refused, force does not ask; back again."""
    model = add("digits")
    first, second, third = digits.repository.history.commits

    def do(kind: str, **more: Any) -> dict[str, Any]:
        return change(parts.settings, parts.database, model, Change(kind, **more))

    assert do("promote", checkpoint="v1")["champion"] == first
    assert do("promote", checkpoint="v2")["verdict"]["verdict"] == "better"
    with pytest.raises(Regression):
        do("promote")
    assert history_of(digits).aliases == {"champion": second}
    assert do("promote", force=True) == {
        "id": model, "kind": "promote", "checkpoint": third, "champion": third, "before": second,
        "verdict": None,
    }  # fmt: skip
    assert [do("rollback")["champion"] for _ in range(2)] == [second, first]
    with pytest.raises(UnknownCheckpoint):
        do("rollback")


def test_names_and_pins_move_and_protect(parts: Parts, digits: Scored, add: AddModel) -> None:
    """What has a name or a pin is not dropped; the champion is moved by promotions alone."""
    model = add("digits")
    first, second, _ = digits.repository.history.commits

    def do(kind: str, **more: Any) -> dict[str, Any]:
        return change(parts.settings, parts.database, model, Change(kind, **more))

    do("alias", checkpoint="v1", name="shipped")
    do("pin", checkpoint="v2")
    for protected in ("v1", "v2", "latest"):
        with pytest.raises(UsageError):
            do("drop", checkpoint=protected)
    for kind in ("alias", "unalias"):
        with pytest.raises(UsageError):
            do(kind, checkpoint="v1", name="champion")
    do("unpin", checkpoint="v2")
    do("unalias", name="shipped")
    assert do("drop", checkpoint="v2")["checkpoint"] == second
    assert history_of(digits).dropped == {second}
    assert first not in history_of(digits).dropped


@pytest.mark.parametrize(
    "wanted",
    [
        Change("promote", checkpoint="v2", force=True), Change("rollback"),
        Change("alias", checkpoint="v1", name="mine"), Change("unalias", name="other"),
        Change("pin", checkpoint="v1"), Change("unpin", checkpoint="v2"),
        Change("drop", checkpoint="v1"),
    ],
)  # fmt: skip
def test_carrying_out_twice_is_once(parts: Parts, lab: Path, add: AddModel, wanted: Change) -> None:
    """An intent that was kept and never answered may be carried out again."""
    output = Output(lab / "out")
    commits = [commit.checkpoint for commit in output.chain(4)]
    output.repository.set_alias("champion", commits[2])
    output.repository.set_alias("champion", commits[3])
    output.repository.set_alias("other", commits[1])
    output.repository.pin(commits[1])
    model = add("out")
    intent = decide(parts.settings, parts.database, model, wanted)
    carry_out(parts.settings, parts.database, intent)
    after = history_of(output)
    carry_out(parts.settings, parts.database, intent)
    again = history_of(output)
    assert (again.seq, again.aliases, again.pins) == (after.seq, after.aliases, after.pins)


def test_a_champion_that_moved_meanwhile_is_a_conflict(
    parts: Parts, lab: Path, add: AddModel
) -> None:
    """A decision is about the champion that was seen."""
    output = Output(lab / "out")
    commits = [commit.checkpoint for commit in output.chain(3)]
    model = add("out")
    wanted = Change("promote", checkpoint="v1", force=True)
    intent = decide(parts.settings, parts.database, model, wanted)
    output.repository.set_alias("champion", commits[1])
    with pytest.raises(Conflict):
        carry_out(parts.settings, parts.database, intent)
    assert history_of(output).aliases == {"champion": commits[1]}


def test_every_change_sent_twice_has_one_effect(
    client: TestClient, parts: Parts, digits: Scored, add: AddModel
) -> None:
    """The same answer, one record in the log, one entry in the audit log."""
    base = f"/api/v1/models/{add('digits')}"
    for number, (method, path, body) in enumerate(
        [
            ("POST", "/promote", {"checkpoint": "v1"}), ("POST", "/promote", {"checkpoint": "v2"}),
            ("POST", "/rollback", None), ("PUT", "/aliases/mine", {"checkpoint": "latest"}),
            ("DELETE", "/aliases/mine", None), ("PUT", "/checkpoints/v2/pin", None),
            ("DELETE", "/checkpoints/v2/pin", None), ("DELETE", "/checkpoints/v2", None),
        ]
    ):  # fmt: skip
        before = history_of(digits).seq
        headers = {"idempotency-key": f"key {number}"}
        first = client.request(method, base + path, json=body, headers=headers)
        second = client.request(method, base + path, json=body, headers=headers)
        assert first.status_code == 200, first.text
        assert second.json() == first.json()
        assert second.headers["idempotency-replayed"] == "true"
        assert history_of(digits).seq == before + 1
        other = client.request(method, base + path + "?x=1", json=body, headers=headers)
        assert other.status_code == 422
    with parts.database.read() as session:
        noted = list(session.scalars(select(Audit).where(Audit.action.like("model.%"))))
    assert len(noted) == 8
    assert all(each.object.startswith("lab:digits") for each in noted)
    assert noted[0].object.endswith(next(iter(digits.repository.history.commits)))


def test_a_server_that_died_in_between_goes_on_with_the_same_request(
    client: TestClient, parts: Parts, lab: Path, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the record was appended or not, a rollback goes back by one and not by two."""
    output = Output(lab / "out")
    commits = [commit.checkpoint for commit in output.chain(3)]
    for id_ in commits:
        output.repository.set_alias("champion", id_)
    path = f"/api/v1/models/{add('out')}/rollback"
    from onward.server.api import models as routes

    done = routes.carry_out

    def dies_before(*arguments: Any) -> Any:
        raise Indeterminate("the server was killed")

    def dies_after(*arguments: Any) -> Any:
        done(*arguments)
        raise Indeterminate("the server was killed")

    for dying in (dies_before, dies_after):
        monkeypatch.setattr(routes, "carry_out", dying)
        answer = client.post(path, headers={"idempotency-key": "one"})
        assert answer.status_code == 503
    monkeypatch.setattr(routes, "carry_out", done)
    for replayed in (False, True):
        answer = client.post(path, headers={"idempotency-key": "one"})
        assert (answer.status_code, answer.json()["champion"]) == (200, commits[1])
        assert ("idempotency-replayed" in answer.headers) is replayed
    assert history_of(output).aliases == {"champion": commits[1]}


def test_what_is_under_way_is_not_begun_again(
    client: TestClient, parts: Parts, digits: Scored, add: AddModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request meanwhile is told to come back; a refusal is not remembered."""
    base = f"/api/v1/models/{add('digits')}"
    from onward.server.api import models as routes

    done = routes.carry_out
    seen: list[int] = []

    def meanwhile(*arguments: Any) -> Any:
        again = client.post(
            f"{base}/promote", json={"checkpoint": "v1"}, headers={"idempotency-key": "k"}
        )
        seen.append(again.status_code)
        return done(*arguments)

    monkeypatch.setattr(routes, "carry_out", meanwhile)
    headers = {"idempotency-key": "k"}
    assert client.post(f"{base}/promote", json={"checkpoint": "v1"}, headers=headers).is_success
    assert seen == [409]
    monkeypatch.setattr(routes, "carry_out", done)
    refused = client.post(f"{base}/promote", json={}, headers={"idempotency-key": "r"})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:onward:error:Regression")
    with parts.database.read() as session:
        assert session.scalars(select(Answer.key)).all() == ["k"]
    assert not outside._under_way


def test_scopes(client: TestClient, digits: Scored, add: AddModel, tokens: dict[str, str]) -> None:
    """Readers change nothing, writers move names, and only administrators drop."""
    base = f"/api/v1/models/{add('digits')}"
    for scope, status in (("read", 403), ("write", 403), ("admin", 200)):
        headers = {"authorization": f"Bearer {tokens[scope]}"}
        promoted = client.post(f"{base}/promote", json={"checkpoint": "v2"}, headers=headers)
        assert promoted.status_code == (403 if scope == "read" else 200)
        dropped = client.delete(f"{base}/checkpoints/v1", headers=headers)
        assert dropped.status_code == status
