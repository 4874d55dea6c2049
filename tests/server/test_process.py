"""The server as its administrator meets it."""

from __future__ import annotations

from tests.server.process import ServerProcess


def test_a_server_prints_its_first_token_once_and_answers_to_it(server: ServerProcess) -> None:
    """Whoever started it has the token; after another start it is still good, and not shown."""
    with server.client() as client:
        assert client.get("/api/v1/openapi.json").status_code == 200
    server.kill()
    server.start()
    assert server.log.read_text().count("onw_") == 1
    with server.client() as client:
        assert client.get("/api/v1/openapi.json").status_code == 200
    server.stop()
