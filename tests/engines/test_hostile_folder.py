"""An attempt's folder in the hands of its script: it hangs nobody, leads nowhere, ends no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onward.engines.base import AGENT, CONTROL, EVENTS, LOCK, LOG, LOG_CUT, OUTCOME, SCRIPT
from onward.engines.folder import read_request, sight
from onward.engines.keeper import _write
from onward.engines.log_file import LogFile
from onward.engines.machine import ThisMachine
from onward.engines.processes import start_time
from onward.server.logs.cuts import give_back
from onward.server.scheduling.events import read_news

FILES = (AGENT, CONTROL, EVENTS, LOCK, OUTCOME, SCRIPT)
KINDS = ("pipe", "link", "endless", "folder", "loop", "words", "numbers")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As an agent leaves it."""
    found = tmp_path / "att-x"
    found.mkdir()
    (found / AGENT).write_text(json.dumps({"host": "here", "pid": 0, "started": 0}))
    return found


def put(path: Path, kind: str, secret: Path) -> None:
    path.unlink(missing_ok=True)
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "link":
            path.symlink_to(secret)
        case "endless":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "loop":
            path.symlink_to(path)
        case "words":
            path.write_text(json.dumps({"pid": "1", "started": [], "host": {}, "exit_code": "x"}))
        case "numbers":
            path.write_text(json.dumps({"pid": -1, "started": 1e300, "host": 7}))


def in_time(act: Callable[[], object]) -> object:
    """What it returns, unless it waits for somebody who never comes."""
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(act()), daemon=True)
    thread.start()
    thread.join(20)
    assert said, "it hangs, or it raised"
    return said[0]


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_the_place_of_a_file_stops_or_misleads_who_looks(
    folder: Path, tmp_path: Path, kind: str
) -> None:
    """Pipes, endless files, links to what others may not see: each attempt is looked at in turn,
    and the next one has to be as well."""
    secret = tmp_path / "secret"
    secret.write_text(json.dumps({"host": "canary", "pid": 1, "kind": "say", "text": "canary"}))
    machine = ThisMachine()
    for name in FILES:
        put(folder / name, kind, secret)
        found = repr(in_time(lambda: (sight(folder), read_request(folder), machine.look(folder))))
        found += repr(in_time(lambda: read_news(folder, 0)))
        assert "canary" not in found, name
        in_time(lambda: machine.destroy(folder) or True)
        (folder / name).rmdir() if kind == "folder" else (folder / name).unlink(missing_ok=True)
        (folder / AGENT).unlink(missing_ok=True)
        (folder / AGENT).write_text("{}")
    assert "canary" in secret.read_text()


def test_who_writes_beside_a_script_writes_through_no_link(folder: Path, tmp_path: Path) -> None:
    """The log's keeper and the server may write where the job's user may not."""
    target = tmp_path / "theirs"
    target.write_text("theirs\n")
    log = LogFile(folder, longest=64 << 10)
    for name in (f".{LOG_CUT}", LOG_CUT, ".log.freed.json", "log.freed.json", EVENTS):
        (folder / name).symlink_to(target)
    for _ in range(40):
        _write(folder, log, b"a line\n" * 1000)
    log.close()
    assert json.loads((folder / LOG_CUT).read_text())["from"] > 0
    assert give_back(folder, 0) > 0
    assert not (folder / LOG_CUT).is_symlink()
    assert target.read_text() == "theirs\n"
    (folder / LOG).unlink()
    (folder / LOG).symlink_to(target)
    with pytest.raises(Exception, match="no plain file"):
        give_back(folder, 0)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, which has nothing to do with any job."""
    found = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    yield found
    found.kill()
    found.wait()


@pytest.mark.skipif(os.getuid() != 0, reason="only root ends others' processes")
@pytest.mark.parametrize("name", [AGENT, SCRIPT])
def test_a_folder_of_the_jobs_user_names_no_process_of_others(
    folder: Path, bystander: subprocess.Popen[bytes], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An attempt whose script wrote another process down as its own ends only its own."""
    about = {"host": "here", "pid": bystander.pid, "started": start_time(bystander.pid)}
    (folder / name).write_text(json.dumps(about))
    ended: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: ended.append(pid))
    os.chown(folder, 65534, 65534)
    ThisMachine().destroy(folder)
    assert ended == []
    os.chown(folder, 0, 0)
    ThisMachine().destroy(folder)
    assert ended == [bystander.pid]
