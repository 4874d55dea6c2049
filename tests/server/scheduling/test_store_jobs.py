"""Jobs whose output is on an object store: what is pushed, what is lost, where its keys go."""

from __future__ import annotations

import os
import signal

import pytest

from onward.repository import open_repository
from onward.server.database.tables import Storage
from tests.server.scheduling.scripts import COMMITTING
from tests.server.scheduling.workshop import Workshop
from tests.servers import SECRET_KEY, S3Server

pytestmark = [
    pytest.mark.servers,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


@pytest.fixture
def shop(workshop: Workshop, seaweedfs: S3Server, request: pytest.FixtureRequest) -> Workshop:
    """With a storage `store`, whose keys are secrets."""
    workshop.settings.secrets.mkdir(parents=True)
    for variable, value in seaweedfs.environment.items():
        (workshop.settings.secrets / variable.lower().replace("_", "-")).write_text(value)
    with workshop.database.write() as session:
        session.add(
            Storage(
                alias="store", url=seaweedfs.url(f"engine/{request.node.name[:40]}"),
                single_writer=False, created_at=0.0, created_by="test",
                environment={
                    variable: variable.lower().replace("_", "-")
                    for variable in seaweedfs.environment
                },
            )
        )  # fmt: skip
    return workshop


def _pushed(seaweedfs: S3Server, request: pytest.FixtureRequest) -> list[int]:
    store = seaweedfs.store(f"engine/{request.node.name[:40]}/model")
    return [commit.step for commit in open_repository(store).history.live()]


def test_what_a_killed_agent_left_is_pushed_by_the_next(
    shop: Workshop, seaweedfs: S3Server, request: pytest.FixtureRequest
) -> None:
    """Every commit of both attempts is at the store; the keys are in no file of the attempts."""
    script = COMMITTING + "\nprint('the key is', os.environ['AWS_SECRET_ACCESS_KEY'])\n"
    job = shop.submit(
        script, *shop.ledger("--steps", "12", "--pause", "0.1"), output="model",
        output_options={"location": "store:model"},
    )  # fmt: skip
    shop.until(lambda: shop.job(job).committed)

    os.kill(shop.agent_pid(job), signal.SIGKILL)
    assert shop.finish(job) == ["succeeded"], shop.job(job).reason

    assert shop.ledger_lines()[-1] == "done"
    assert "DOUBLED" not in shop.ledger_lines()
    steps = _pushed(seaweedfs, request)
    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) >= 12
    assert "the key is [secret]" in shop.log(job)
    assert shop.job(job).progress["pushed"]["size_bytes"] > 0
    for path in shop.settings.attempts.rglob("*"):
        assert not path.is_file() or SECRET_KEY.encode() not in path.read_bytes(), path


def test_cancel_waits_for_the_last_push(
    shop: Workshop, seaweedfs: S3Server, request: pytest.FixtureRequest
) -> None:
    """What was committed before the kill is at the store; nothing is said to be lost."""
    job = shop.submit(
        COMMITTING, *shop.ledger("--steps", "999", "--pause", "0.01"), output="model",
        output_options={"location": "store:model"},
    )  # fmt: skip
    shop.until(lambda: shop.job(job).committed)

    shop.ask(job, "cancel")
    assert shop.finish(job) == ["cancelled"]

    [attempt] = shop.attempts(job)
    assert shop.job(job).reason == "cancelled"
    assert attempt.outcome["lost"] == []
    assert _pushed(seaweedfs, request)[-1] == attempt.outcome["newest"]["step"]
