"""The script as a process: its group ends with it, its progress is heard, its output is its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onward.jobs.leftover import end_leftover_script, note_script
from onward.jobs.open_files import open_for_writing
from onward.jobs.process import ScriptProcess
from onward.jobs.process_table import stat_facts

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and prctl")


def start(code: str, **options: Any) -> ScriptProcess:
    options.setdefault("on_event", lambda _: None)
    return ScriptProcess([sys.executable, "-c", code], dict(os.environ), **options)


def wait_for(condition: Callable[[], bool], *, seconds: float = 20.0) -> None:
    end_s = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end_s, "it did not happen in time"
        time.sleep(0.01)


def runs(pid: int) -> bool:
    facts = stat_facts(pid)
    return facts is not None and facts[0] != "Z"


@pytest.mark.parametrize(("code", "status"), [("", 0), ("raise SystemExit(7)", 7)])
def test_the_exit_status_is_the_scripts(code: str, status: int) -> None:
    """As it is."""
    process = start(code)
    wait_for(process.ended)
    assert process.finish() == status


def test_a_signal_that_ended_it_is_told_as_a_negative_number() -> None:
    """As `subprocess` does."""
    process = start("import os; os.kill(os.getpid(), 9)")
    wait_for(process.ended)
    assert process.finish() == -signal.SIGKILL


def test_what_it_tells_is_heard_and_nonsense_is_not() -> None:
    """Anybody may write into the pipe; only numbers arrive."""
    heard: list[dict[str, Any]] = []
    code = """
import os
fd = int(os.environ["ONWARD_EVENTS_FD"])
for line in (b'{"step": 3, "batches": 10, "metrics": {"loss": 0.5, "x": "y"}, "evil": [1]}',
             b'nonsense', b'[1, 2]', b'{"step": "three"}', b'{"saved": "abcd"}', b'\\xff\\xfe'):
    os.write(fd, line + b"\\n")
"""
    process = start(code, on_event=heard.append)
    wait_for(process.ended)
    process.finish()
    assert heard == [{"step": 3, "batches": 10, "metrics": {"loss": 0.5}}, {"saved": "abcd"}]


def test_its_output_goes_where_it_is_told(tmp_path: Path) -> None:
    """Standard output into a file, as `--json` needs it."""
    with (tmp_path / "out").open("wb") as file:
        process = start("print('hello')", stdout=file)
        wait_for(process.ended)
        process.finish()
    assert (tmp_path / "out").read_bytes() == b"hello\n"


def test_a_relayed_script_sees_a_terminal_and_its_bytes_arrive_unaltered() -> None:
    """Colours, bars and line ends stay as the script wrote them."""
    heard: list[bytes] = []
    code = """
import sys
print(sys.stdout.isatty(), '\\033[1mbold\\033[0m\\r', flush=True)
print('e', file=sys.stderr)
"""
    process = start(code, relay=heard.append)
    wait_for(process.ended)
    process.finish()
    assert b"".join(heard) == b"True \033[1mbold\033[0m\r\ne\n"


@LINUX
def test_nothing_of_the_group_is_left_behind(tmp_path: Path) -> None:
    """Not even a child that ignores SIGTERM."""
    note = tmp_path / "pid"
    child = (
        "import os, signal, time; signal.signal(15, signal.SIG_IGN); "
        f"open({str(note)!r} + '.new', 'w').write(str(os.getpid())); "
        f"os.rename({str(note)!r} + '.new', {str(note)!r}); time.sleep(60)"
    )
    code = f"""
import os, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {child!r}])
while not os.path.exists({str(note)!r}): time.sleep(0.01)
"""
    process = start(code)
    wait_for(process.ended)
    pid = int(note.read_text())
    assert runs(pid)
    assert process.finish() == 0
    wait_for(lambda: not runs(pid))


@LINUX
def test_killing_ends_the_whole_group_at_once(tmp_path: Path) -> None:
    """The script and its workers, whatever they ignore."""
    code = """
import os, signal, time
signal.signal(15, signal.SIG_IGN)
os.fork()
print(flush=True)
time.sleep(60)
"""
    with (tmp_path / "out").open("wb") as file:
        process = start(code, stdout=file)
        wait_for(lambda: (tmp_path / "out").stat().st_size == 2)
        process.kill()
        assert process.finish() == -signal.SIGKILL
    wait_for(lambda: not any(runs(pid) for pid in _group(process.pid)))


def _group(leader: int) -> list[int]:
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (facts := stat_facts(pid)) and facts[1] == leader]


@LINUX
def test_files_that_are_open_for_writing_are_found_by_what_they_are(tmp_path: Path) -> None:
    """Written, appended: yes. Read, closed: no. A new name changes nothing."""
    code = f"""
import os, sys, time
os.chdir({str(tmp_path)!r})
open("closed", "w").write("x")
open("read_", "w").write("x")
a, b, c = open("written", "w"), open("appended", "ab"), open("read_")
os.rename("written", "renamed")
open("ready", "w").close()
sys.stdin.read() or time.sleep(60)
"""
    process = start(code)
    wait_for((tmp_path / "ready").exists)
    found = open_for_writing(process.pid)
    process.kill()
    process.finish()
    ids = {p.name: (p.stat().st_dev, p.stat().st_ino) for p in tmp_path.iterdir()}
    assert {name for name, id_ in ids.items() if id_ in found} == {"renamed", "appended"}


@LINUX
def test_when_the_agent_is_killed_the_script_is_asked_to_stop(tmp_path: Path) -> None:
    """Nobody would push what it saves: it gets SIGTERM, as for any other stop."""
    script = f"""
import signal, sys, time
def stop(*_):
    open({str(tmp_path / "stopped")!r}, "w").close()
    sys.exit(75)
signal.signal(15, stop)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(60)
"""
    agent = f"""
import os, sys, time
from onward.jobs.process import ScriptProcess
ScriptProcess([sys.executable, "-c", {script!r}], dict(os.environ), on_event=print)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", agent])
    wait_for((tmp_path / "ready").exists)
    process.kill()
    process.wait()
    wait_for((tmp_path / "stopped").exists)


@LINUX
def test_the_script_of_an_agent_that_is_gone_is_ended_by_the_next(tmp_path: Path) -> None:
    """Even one that does not listen."""
    code = f"""
import signal, time
signal.signal(15, signal.SIG_IGN)
open({str(tmp_path / "ready")!r}, "w").close()
time.sleep(60)
"""
    process = start(code)
    note_script(tmp_path, process.pid)
    wait_for((tmp_path / "ready").exists)
    said: list[str] = []
    end_leftover_script(tmp_path, grace_s=0.2, say=said.append)
    wait_for(process.ended)
    assert process.finish() == -signal.SIGKILL
    assert "still runs" in said[0]
    end_leftover_script(tmp_path, grace_s=0.2, say=said.append)
    assert len(said) == 1


@LINUX
def test_another_process_with_the_same_number_is_left_alone(tmp_path: Path) -> None:
    """A number that came round again does not belong to the script."""
    process = start("import time; time.sleep(60)")
    (tmp_path / "script.json").write_text(f'{{"pid": {process.pid}, "started": 1}}')
    end_leftover_script(tmp_path, grace_s=0.2, say=lambda _: None)
    assert not process.ended()
    process.kill()
    process.finish()
