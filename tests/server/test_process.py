"""The server as its administrator meets it."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx2
import pytest

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
    assert server.stop() == 0


def test_whoever_has_the_folder_makes_a_token_where_all_are_lost(server: ServerProcess) -> None:
    """While the server runs, which knows it at once; the audit log tells of it."""
    command = [
        sys.executable, "-m", "onward.cli", "server", "token", "found again",
        "--folder", str(server.folder / "server"),
    ]  # fmt: skip
    if server.database:
        command += ["--database", server.database]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lost = replace(server, token=done.stdout.strip())
    with lost.client() as client:
        entries = client.get("/api/v1/audit").json()["items"]
    assert ("token.make", "onward server token") in {(e["action"], e["by"]) for e in entries}


def test_no_token_is_made_for_a_folder_without_a_server(tmp_path: Path) -> None:
    """A wrong --folder makes no second, empty database."""
    command = [sys.executable, "-m", "onward.cli", "server", "token", "x", "--folder", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, list(tmp_path.iterdir())) == (2, [])
    assert "there is no server" in done.stderr


def test_a_second_server_for_the_same_folder_or_database_is_refused(server: ServerProcess) -> None:
    """Two schedulers would start every attempt twice."""
    again = replace(server, process=None, port=0)
    with pytest.raises(AssertionError, match="another server uses"):
        again.start()
    if server.database.startswith("postgresql"):
        elsewhere = replace(again, folder=server.folder / "elsewhere")
        with pytest.raises(AssertionError, match="another server uses this database"):
            elsewhere.start()
    server.kill()
    server.start()  # nothing that a killed server held is left


def test_metrics_and_health_need_a_token(server: ServerProcess) -> None:
    """Whoever scrapes has a token; the figures are in Prometheus' format."""
    assert httpx2.get(f"{server.url}/metrics").status_code == 401
    with server.client() as client:
        assert client.get("/api/v1/health").json()["database"] in ("sqlite", "postgresql")
        text = client.get("/metrics").text
    assert 'onward_jobs{state="queued"} 0.0' in text
    assert 'onward_requests_total{method="GET",route="none",status="401"}' in text
    assert "onward_request_seconds_bucket" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--host", "0.0.0.0"), "can be reached from other machines"),
        (("--tls-key", "/nowhere"), "a certificate and its key"),
        (("--host", "192.0.2.1", "--insecure-without-tls"), "cannot listen on 192.0.2.1"),
        (("--database", "mysql://x"), "use sqlite"),
    ],
)
def test_a_server_that_would_be_unsafe_or_cannot_be_says_why(
    tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    """Exit status 2, one typed error, no traceback."""
    process = ServerProcess(tmp_path, options=options)
    with pytest.raises(AssertionError) as caught:
        process.start()
    assert message in str(caught.value)
    assert "Traceback" not in process.log.read_text()
    assert process.process is not None
    assert process.process.wait(10) == 2


def test_tls_is_spoken_with_the_certificate_given(tmp_path: Path) -> None:
    """On an address for others, with a certificate of one's own."""
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    process = ServerProcess(
        tmp_path / "served",
        options=("--host", "0.0.0.0", "--tls-certificate", str(certificate), "--tls-key", str(key)),
        certificate=certificate,
    )
    process.start()
    try:
        assert "serving https://0.0.0.0:" in process.log.read_text()
        with process.client() as client:
            assert client.get("/api/v1/health").status_code == 200
    finally:
        assert process.stop() == 0


def test_what_users_write_cannot_begin_a_line_of_the_log(server: ServerProcess) -> None:
    """A path with line breaks and escapes is shown within its line, in both formats."""
    with server.client() as client:
        client.delete("/api/v1/x%0aonward: fooled%1b%5b31m")
    server.stop()  # a request is logged after it was answered
    lines = server.log.read_text().splitlines()
    assert not [line for line in lines if "fooled" in line and line.startswith("onward:")]
    assert [line for line in lines if "fooled" in line]
    assert "\x1b" not in server.log.read_text()


def test_a_program_that_starts_a_server_reads_where_it_is(tmp_path: Path) -> None:
    """One JSON object on stdout: the address, on a free port, and the first token."""
    command = [sys.executable, "-m", "onward.cli", "serve", "--json", "--port", "0",
               "--folder", str(tmp_path / "server")]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        try:
            answer = httpx2.get(
                f"{told['url']}api/v1/health", headers={"authorization": f"Bearer {told['token']}"}
            )
            assert answer.status_code == 200
        finally:
            process.terminate()
