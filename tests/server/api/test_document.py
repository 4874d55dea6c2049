"""The API does what its document says, whatever is sent: no case ends in an error of the server.

By default a sample; with ONWARD_TEST_SCALE=full at least 5,000 cases.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import (
    content_type_conformance,
    not_a_server_error,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.python import asgi

from onward.server.database import open_database
from onward.server.database.migrating import migrate
from tests.server.api.house import House

FULL = os.environ.get("ONWARD_TEST_SCALE") == "full"
CASES = 6000 if FULL else 360
CHECKS: list[Any] = [
    not_a_server_error, status_code_conformance, content_type_conformance,
    response_schema_conformance,
]  # fmt: skip


def test_every_operation_says_how_it_answers(house: House) -> None:
    """A schema or a media type for success, problem+json for each refusal; a token for all."""
    document = house.app.openapi()
    assert document["openapi"].startswith("3.1")
    assert document["security"] == [{"token": []}]
    for path, item in document["paths"].items():
        for method, operation in item.items():
            name = f"{method} {path}"
            assert operation["summary"], name
            answers = operation["responses"]
            good = [status for status in answers if status.startswith("2")]
            assert good, name
            for status in good:
                told = answers[status].get("content", {})
                assert status == "204" or (told and all(c["schema"] for c in told.values())), name
            for status in answers.keys() - set(good):
                if not status.startswith("3"):
                    assert list(answers[status]["content"]) == ["application/problem+json"], name


@pytest.mark.timeout(3600 if FULL else 300)
def test_no_case_ends_in_an_error_of_the_server(tmp_path: Path) -> None:
    """Good and bad requests to every operation, much of it about jobs that exist: the answer is one
    of those that the document tells, in the shape that it tells."""
    database = open_database(f"sqlite:///{tmp_path}/onward.db")
    migrate(database)
    house = House(tmp_path, database)
    jobs = [house.job() for _ in range(4)]
    for job in jobs[:3]:
        attempt = house.attempt(job)
        attempt.prints("one\ntwo\nthree")
        attempt.trains(*range(1, 50))
        attempt.ends()
    house.end(jobs[0])
    house.end(jobs[1], "failed")
    schema = schemathesis.openapi.from_dict(house.app.openapi())
    schema.app = house.app
    operations = [found.ok() for found in schema.get_all_operations()]
    dice = random.Random(7)
    seen: Counter[int] = Counter()
    with asgi.get_client(house.app) as client:
        for operation in operations:
            _try(operation, client, dice, jobs, house.headers, seen, CASES // len(operations) + 1)
    print(f"{sum(seen.values())} cases, {len(operations)} operations: {sorted(seen.items())}")
    assert sum(seen.values()) >= (5000 if FULL else 200)
    assert any(status < 300 for status in seen)
    database.close()


def _try(
    operation: Any, client: Any, dice: random.Random, jobs: list[str], headers: dict[str, str],
    seen: Counter[int], cases: int,
) -> None:  # fmt: skip
    strategy = operation.as_strategy()

    @settings(
        max_examples=cases, deadline=None, database=None, derandomize=True,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=strategy)
    def one(case: Any) -> None:
        if "job_id" in case.path_parameters and dice.random() < 0.8:
            # What streams or waits is asked about what has ended, so that it has an end.
            ended = operation.path.endswith(("/follow", "/wait"))
            case.path_parameters["job_id"] = dice.choice(jobs[:2] if ended else jobs)
        if operation.path.endswith("/wait"):
            case.query["timeout_s"] = 0
        answer = case.call(base_url="http://127.0.0.1:8420", session=client, headers=headers)
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    one()
