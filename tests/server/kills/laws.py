"""What holds in the end, whenever and however often servers died."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import func, select

from onward.jobs.states import ATTEMPT_MOVES, JOB_MOVES, TERMINAL_ATTEMPTS, TERMINAL_JOBS
from onward.repository import open_repository
from onward.server.database import Database
from onward.server.database.tables import Checkpoint, Delivery, Model, Move
from onward.stores import LocalStore
from tests.server.scheduling.workshop import Workshop
from tests.server.webhooks.receiver import Receiver


def check(shop: Workshop, *jobs: str) -> None:
    """The laws: every move legal, every attempt ended, nothing begun twice, never two at once."""
    lines = (shop.folder / "ledger").read_text().splitlines()
    assert not [line for line in lines if "DOUBLED" in line]
    began = Counter(line.split()[0] for line in lines if line.endswith(" began"))
    assert not [attempt for attempt, count in began.items() if count > 1]
    known = set()
    for job in jobs:
        row, attempts = shop.job(job), shop.attempts(job)
        assert row.state in TERMINAL_JOBS
        assert [attempt.number for attempt in attempts] == list(range(1, row.generation + 1))
        assert {attempt.state for attempt in attempts} <= TERMINAL_ATTEMPTS
        known |= {attempt.id for attempt in attempts}
        at: dict[str | None, str] = {None: "queued"} | {each.id: "created" for each in attempts}
        moves = shop.moves(job)
        for who, before, after in moves:
            assert at[who] == before
            assert after in (JOB_MOVES if who is None else ATTEMPT_MOVES)[before]
            at[who] = after
        assert at[None] == row.state
        ends = sum(who is None and after in TERMINAL_JOBS for who, _, after in moves)
        assert ends == 1
    assert began.keys() <= known


def check_messages(database: Database, receiver: Receiver) -> None:
    """Every move of a job that asks for it is one message; each was received, always the same."""
    with database.read() as session:
        moves = session.scalar(select(func.count()).select_from(Move).where(Move.attempt.is_(None)))
        sent = list(session.scalars(select(Delivery)))
    assert len(sent) == moves
    assert not [each.problem for each in sent if each.problem or each.done_at is None]
    bodies: dict[str, set[bytes]] = {}
    for each in receiver.received:
        bodies.setdefault(each.headers["webhook-id"], set()).add(each.body)
    assert bodies.keys() == {each.id for each in sent}
    assert {len(texts) for texts in bodies.values()} <= {1}


def is_indexed(shop: Workshop, output: str) -> bool:
    """Whether the index holds what the output's log does."""
    with shop.database.read() as session:
        model = session.scalar(select(Model).where(Model.location == f"here:{output}"))
        if model is None or model.problem:
            return False
        found = set(session.scalars(select(Checkpoint.checkpoint)))
    history = open_repository(LocalStore(shop.folder / "outputs" / output)).history
    return model.seq == history.seq and found == set(history.commits)
