"""The client: one effect whatever the network does, streams without a gap, tokens kept safe."""

from __future__ import annotations

import io
import json
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from onward.client import Client, Login, ServerRefused, ServerUnreachable, find_login, save_login
from onward.client.login import checked_address
from onward.client.packing import pack_code
from onward.errors import UsageError

HERE = Login("http://127.0.0.1:1", "onw_secret")


def client(answer: Callable[[httpx2.Request], httpx2.Response]) -> Client:
    return Client(HERE, transport=httpx2.MockTransport(answer), pause=lambda _: None)


def test_a_command_that_got_no_answer_is_sent_again_with_the_same_key() -> None:
    """A new key would be a new job."""
    keys = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        keys.append((request.headers["idempotency-key"], request.content))
        if len(keys) == 1:
            raise httpx2.ReadError("broke off")
        if len(keys) == 2:
            return httpx2.Response(503, json={"what": "not now", "type": "x"})
        if len(keys) == 3:
            return httpx2.Response(409, json={"what": "busy", "type": "urn:onward:error:Busy"})
        return httpx2.Response(201, json={"id": "job-1"})

    with client(answer) as it:
        assert it.submit({"name": "x"}) == {"id": "job-1"}
        assert len(set(keys)) == 1
        it.submit({"name": "x"})
    assert len(set(keys)) == 2, "another command has another key"


def test_a_refusal_says_what_the_server_said() -> None:
    """What, why and do come through; a mistake of the command ends with status 2."""
    problem = {"type": "urn:onward:error:IllegalMove", "what": "w", "why": "y", "do": "d"}
    with client(lambda _: httpx2.Response(409, json=problem)) as it:
        with pytest.raises(ServerRefused) as refused:
            it.act("job-1", "pause")
        error = refused.value
        assert (error.what, error.why, error.do, error.kind) == ("w", "y", "d", "IllegalMove")
        assert error.exit_code == 1
    with client(lambda _: httpx2.Response(401, json=problem)) as it:
        with pytest.raises(ServerRefused) as refused:
            it.job("job-1")
        assert refused.value.exit_code == 2
    page = httpx2.Response(200, text="<html>")
    with client(lambda _: page) as it, pytest.raises(ServerRefused, match="shape"):
        it.job("job-1")


def test_a_server_that_never_answers_is_said() -> None:
    """After a few tries; it says that the same command may be repeated."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused")

    with client(answer) as it, pytest.raises(ServerUnreachable, match="does not answer"):
        it.job("job-1")


def test_a_stream_that_breaks_goes_on_where_it_was() -> None:
    """`Last-Event-ID` is that of the last whole event; half an event is none."""
    asked = []

    class Broken(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield b': still here\n\nid: 1:10\nevent: lines\ndata: {"n": 1}\n\nid: 1:20\nevent: li'
            raise httpx2.ReadError("broke off")

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id"))
        if len(asked) == 1:
            return httpx2.Response(200, stream=Broken())
        text = 'id: 1:20\nevent: lines\ndata: {"n": 2}\n\nevent: end\ndata: {"state": "failed"}\n\n'
        return httpx2.Response(200, text=text)

    with client(answer) as it:
        events = [(each.event, each.data) for each in it.follow_log("job-1")]
    assert events == [("lines", {"n": 1}), ("lines", {"n": 2}), ("end", {"state": "failed"})]
    assert asked == [None, "1:10"]


def test_a_stream_with_nothing_to_tell_is_no_server_that_ends_every_connection() -> None:
    """A job may wait for hours while something between cuts connections every minute."""
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if len(asked) < 30:
            return httpx2.Response(200, text=": still here\n\n")
        return httpx2.Response(200, text='event: end\ndata: {"state": "failed"}\n\n')

    with client(answer) as it:
        assert [each.event for each in it.follow_log("job-1")] == ["end"]
    with client(lambda _: httpx2.Response(200, text="")) as it, pytest.raises(ServerUnreachable):
        list(it.follow_log("job-1"))


def test_a_stream_is_split_where_its_events_are() -> None:
    """JSON may hold characters at which Python ends a line; and an event may come in pieces."""

    class Pieces(httpx2.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            whole = 'event: end\ndata: {"state": "a\u2028b\u0085cd"}\n\n'.encode()
            yield from (whole[at : at + 7] for at in range(0, len(whole), 7))

    with client(lambda _: httpx2.Response(200, stream=Pieces())) as it:
        found = [each.data for each in it.follow_log("job-1")]
    assert found == [{"state": "a\u2028b\u0085cd"}]


def test_an_id_stays_one_part_of_a_path() -> None:
    """Whatever is given as a job, no other route is asked."""
    paths = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        paths.append(request.url.raw_path)
        return httpx2.Response(200, json={})

    with client(answer) as it:
        it.job("../tokens?x=1#y")
    assert paths == [b"/api/v1/jobs/___tokens_x_1_y"]


def test_a_login_is_kept_for_oneself(tmp_path: Path) -> None:
    """Mode 0600; what is given comes first; a saved token goes to its own server alone."""
    home = {"ONWARD_HOME": str(tmp_path)}
    path = save_login(Login("http://127.0.0.1:8420", "onw_saved"), home)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert find_login("", home).token == "onw_saved"
    assert "onw_saved" not in repr(find_login("", home))
    assert find_login("", {**home, "ONWARD_TOKEN": "onw_other"}).token == "onw_other"
    with pytest.raises(UsageError, match="no token"):
        find_login("https://elsewhere.example", home)
    with pytest.raises(UsageError, match="no server"):
        find_login("", {"ONWARD_HOME": str(tmp_path / "empty")})
    with pytest.raises(UsageError, match="no address"):
        find_login("ftp://x", home)
    path.write_text("{")
    with pytest.raises(UsageError, match="log in again"):
        find_login("", home)


def test_a_token_is_not_sent_where_others_listen(tmp_path: Path) -> None:
    """Plain HTTP to another machine needs a word; loopback does not."""
    token = {"ONWARD_HOME": str(tmp_path), "ONWARD_TOKEN": "onw_x"}
    for address in ("http://10.0.0.1", "http://onward.lan", "http://127.0.0.1.example"):
        with pytest.raises(UsageError, match="not encrypted"):
            find_login(address, token)
        assert find_login(address, {**token, "ONWARD_PLAIN_HTTP": "1"}).server == address
    for address in ("https://onward.lan", "http://127.0.0.1", "http://localhost:1", "http://[::1]"):
        assert find_login(address, token).server == address


def packed(folder: Path) -> tuple[bytes, dict[str, Any]]:
    file = io.BytesIO()
    pack_code(folder, file)
    with tarfile.open(fileobj=io.BytesIO(file.getvalue())) as tar:
        return file.getvalue(), {m.name: m for m in tar.getmembers()}


@pytest.mark.parametrize(
    "address",
    ["", "host", "ftp://host", "http://", "http://[::1", "http://h:99999", "http://h:x",
     "http://me@host", "http://@host", "http://host?x=1", "http://host#x"],
)  # fmt: skip
def test_what_is_no_address_is_said(address: str) -> None:
    """As a mistake of the command, whatever is wrong with it."""
    with pytest.raises(UsageError, match="is no address of a server"):
        checked_address(address)


def test_a_repository_sends_what_git_knows(tmp_path: Path) -> None:
    """Tracked and new files; what is ignored and what is deleted stays; twice the same bytes."""
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    for name in ("train.py", "lib/a.py", "data.bin", "gone.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".gitignore").write_text("*.bin\n")
    subprocess.run(["git", "add", "."], cwd=tmp_path, check=True)
    (tmp_path / "gone.py").unlink()
    (tmp_path / "new.py").write_text("new")
    (tmp_path / "train.py").chmod(0o755)
    data, members = packed(tmp_path)
    assert set(members) == {".gitignore", "train.py", "lib/a.py", "new.py"}
    assert members["train.py"].mode == 0o755
    assert members["lib/a.py"].mode == 0o644
    assert packed(tmp_path)[0] == data


def test_a_folder_without_git_sends_what_is_not_hidden(tmp_path: Path) -> None:
    """Caches and hidden things stay; an empty folder is refused."""
    for name in ("train.py", "__pycache__/x.pyc", ".venv/lib.py", ".env"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(name))
    assert set(packed(tmp_path)[1]) == {"train.py"}
    (tmp_path / "train.py").unlink()
    with pytest.raises(UsageError, match="no code"):
        packed(tmp_path)
