"""What the server's log and its metrics tell of requests."""

from __future__ import annotations

import socket
from pathlib import Path

from structlog.testing import capture_logs

from onward.server.database import Database
from tests.server.api.house import House, wait_for


def test_a_client_that_goes_away_is_no_failure_of_the_server(
    tmp_path: Path, database: Database
) -> None:
    """Before all of its request was here: nothing is done, and no 5xx is counted."""
    house = House(tmp_path, database)
    path = f"/api/v1/jobs/{house.job()}/pause"
    with capture_logs() as logged, house.served() as client:
        token = house.headers["authorization"]
        head = (
            f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
            f"authorization: {token}\r\ncontent-length: 1000\r\n\r\n"
        )
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as gone:
            gone.sendall(head.encode() + b"{")
        wait_for(lambda: any(each.get("path") == path for each in logged))
        metrics = client.get("/metrics").text
    [told] = [each for each in logged if each.get("path") == path]
    assert (told["event"], told["status"]) == ("request", 499)
    assert 'status="499"' in metrics
    assert 'status="5' not in metrics
