"""The log of an attempt, and the process that keeps it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from onward.engines.base import EVENTS, LOG, LOG_CUT
from onward.engines.log_file import LogFile

MIB = 1 << 20

KEEPER = """
import os, signal, subprocess, sys
from pathlib import Path
from onward.engines.keeper import keep_log
from onward.engines.redaction import Redactor
folder = Path(sys.argv[1])
lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
keeper = keep_log(folder, Redactor(["canary-1234"]), longest=int(sys.argv[2]), lock=lock)
print("keeper", keeper.pid, flush=True)
"""


def test_places_stay_where_they_are_when_the_middle_goes(tmp_path: Path) -> None:
    """The first lines and the last can be read at their places; the file takes little room."""
    log = LogFile(tmp_path, longest=4 * MIB)
    line = b"%015d\n"
    count = 2 * MIB  # 32 MiB
    for first in range(0, count, 4096):
        log.write(b"".join(line % number for number in range(first, first + 4096)))
    path = tmp_path / LOG
    cut = json.loads((tmp_path / LOG_CUT).read_text())
    assert path.stat().st_size == 16 * count
    assert path.stat().st_blocks * 512 < 6 * MIB
    with path.open("rb") as file:
        assert file.read(16) == line % 0
        file.seek(cut["from"] - 16)
        assert file.read(16) == line % (cut["from"] // 16 - 1)
        assert set(file.read(4096)) == {0}
        file.seek(cut["to"])
        assert file.read(16) == line % (cut["to"] // 16)
        file.seek(-16, os.SEEK_END)
        assert file.read(16) == line % (count - 1)
    assert "its middle is given back" in log.note
    log.close()


def test_a_log_within_its_limit_is_whole(tmp_path: Path) -> None:
    log = LogFile(tmp_path, longest=MIB)
    log.write(b"x" * MIB)
    log.close()
    assert not (tmp_path / LOG_CUT).exists()
    assert (tmp_path / LOG).read_bytes() == b"x" * MIB


def test_where_nothing_can_be_given_back_the_log_ends(tmp_path: Path) -> None:
    """As on file systems without holes: what came first stays, and the end is said."""
    import onward.engines.log_file as module

    before, module._punch = module._punch, lambda fd, start, length: False  # type: ignore[assignment]
    try:
        log = LogFile(tmp_path, longest=MIB)
        for _ in range(40):
            log.write(b"x" * (MIB // 16))
        size = (tmp_path / LOG).stat().st_size
        log.write(b"y" * MIB)
        log.close()
    finally:
        module._punch = before
    assert MIB < size < 2 * MIB
    assert (tmp_path / LOG).stat().st_size == size
    assert json.loads((tmp_path / LOG_CUT).read_text()) == {"from": size, "to": None}


def _agent(folder: Path, rest: str, longest: int = 0) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", KEEPER + rest, str(folder), str(longest)])


def _until_ended(pid: int) -> None:
    end_s = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < end_s
        time.sleep(0.01)


def test_the_keeper_outlives_its_agent_and_ends_with_the_last_writer(tmp_path: Path) -> None:
    """The agent is killed; its script prints a megabyte, and all of it arrives, redacted."""
    rest = (
        "subprocess.Popen([sys.executable, '-c',"
        ' \'import time; time.sleep(0.5); print("x" * 1000000); print("canary-1234 end")\'])\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    agent = _agent(tmp_path, rest)
    agent.wait(30)
    end_s = time.monotonic() + 30
    while b"end" not in (tmp_path / LOG).read_bytes():
        assert time.monotonic() < end_s
        time.sleep(0.01)
    text = (tmp_path / LOG).read_text()
    assert text.count("x") == 1_000_000
    assert text.endswith("[secret] end\n")
    _until_ended(int(text.split()[1]))


def test_finish_waits_until_all_is_in_the_log(tmp_path: Path) -> None:
    agent = _agent(tmp_path, "print('y' * 300000)\nkeeper.finish()\n")
    assert agent.wait(30) == 0
    assert (tmp_path / LOG).read_text().count("y") == 300_000


def test_somebody_who_holds_the_pipe_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """A daemon that left the session keeps the other end: the keeper is told to end."""
    rest = (
        "import onward.engines.keeper as k\nk._DRAIN_S = 0.3\n"
        "child = subprocess.Popen(['sleep', '60'], start_new_session=True)\n"
        "print('last words', flush=True)\nkeeper.finish()\nchild.kill()\n"
    )
    agent = _agent(tmp_path, rest)
    assert agent.wait(30) == 0
    assert "last words" in (tmp_path / LOG).read_text()


def test_a_cut_is_an_event(tmp_path: Path) -> None:
    agent = _agent(tmp_path, "print('z' * 3000000)\nkeeper.finish()\n", longest=MIB)
    assert agent.wait(60) == 0
    [event] = [json.loads(line) for line in (tmp_path / EVENTS).read_text().splitlines()]
    assert event["kind"] == "say"
    assert "longer than 1,048,576 bytes" in event["text"]


def test_memory_does_not_grow_with_a_line(tmp_path: Path) -> None:
    """A line of 100 MiB; the keeper's peak stays below what it began with, and a little."""
    rest = (
        "status = lambda name: int([l for l in open(f'/proc/{keeper.pid}/status')"
        " if l.startswith(name)][0].split()[1])\n"
        "before = status('VmHWM')\n"
        "for _ in range(1600): os.write(1, b'x' * 65536)\n"
        "grown = status('VmHWM') - before\n"
        "print('\\ngrown', grown)\nkeeper.finish()\n"
    )
    agent = _agent(tmp_path, rest)
    assert agent.wait(60) == 0
    with (tmp_path / LOG).open("rb") as file:
        file.seek(-40, os.SEEK_END)
        grown = int(file.read().split()[-1])
    assert grown < 8192
