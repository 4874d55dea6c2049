"""What an attempt may use of its machine, and what it cannot do there."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from onward.engines import Launch
from onward.engines.control_groups import Groups, make_room
from onward.engines.folder import prepare_folder
from onward.engines.machine import ThisMachine
from onward.jobs.spec import JobSpec


def run_in(base: Path, script: str, **more: Any) -> tuple[dict[str, Any], str]:
    """Runs a script in an attempt; returns its outcome document and its log."""
    engine = ThisMachine()
    name = f"att-{os.getpid()}-{time.monotonic_ns()}"
    code = base / f"code-{name}"
    code.mkdir()
    (code / "train.py").write_text(script)
    folder = base / name
    spec = JobSpec("train.py", str(base / "out"))
    prepare_folder(folder, {"spec": spec.document(), "code": str(code), **more})
    engine.start(Launch(name, folder, {**os.environ, "ONWARD_HOME": str(base / "home")}))
    end_s = time.monotonic() + 60
    while engine.look(folder).state != "ended":
        assert time.monotonic() < end_s
        time.sleep(0.02)
    return json.loads((folder / "outcome.json").read_text()), (folder / "log").read_text()


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[dict[str, Any], str]]:
    """`run_in` a folder of this test's own."""
    return partial(run_in, tmp_path)


def _can_limit(what: str) -> bool:
    groups = Groups("att-probe")
    groups.make({})
    can = groups.limits(what)
    groups.remove()
    return can


@pytest.mark.skipif(not _can_limit("memory"), reason="no control group can be made here")
def test_memory_is_limited_as_a_whole_and_said_to_be_the_cause(run: Any) -> None:
    """Two processes that fit one by one, but not together: the kernel ends them, and we say so."""
    script = (
        "import os, time\n"
        "child = os.fork()\n"
        "held = bytearray(b'x') * (80 << 20)\n"
        "if child == 0: time.sleep(60)\n"
        "_, status = os.waitpid(child, 0)\n"
        "raise SystemExit(1)\n"
    )
    document, _ = run(script, resources={"memory_bytes": 120 << 20})
    assert document["cause"] == "out-of-memory"


@pytest.mark.skipif(not _can_limit("pids"), reason="no control group can be made here")
def test_processes_are_limited(run: Any) -> None:
    script = (
        "import os, time\n"
        "for n in range(50):\n"
        "    try:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "    except BlockingIOError:\n"
        "        print('refused at', n); raise SystemExit(0)\n"
    )
    document, log = run(script, resources={"processes": 10})
    assert document["exit_code"] == 0
    assert "refused at 9" in log


def test_limits_of_each_process_are_the_scripts_alone(run: Any) -> None:
    script = (
        "import resource, pathlib\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0],"
        " resource.getrlimit(resource.RLIMIT_FSIZE)[0],"
        " resource.getrlimit(resource.RLIMIT_CPU)[0])\n"
        "agent = pathlib.Path(f'/proc/{__import__(\"os\").getppid()}/limits').read_text()\n"
        "print([line for line in agent.splitlines() if 'file size' in line])\n"
    )
    _, log = run(script, resources={"open_files": 99, "file_bytes": 12345, "cpu_seconds": 77})
    assert "99 12345 77" in log
    assert "unlimited" in log


def test_more_than_the_machine_allows_is_what_it_allows(run: Any) -> None:
    """A limit above the hard one is no reason to fail."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    script = "import resource\nprint(resource.getrlimit(resource.RLIMIT_NOFILE))\n"
    document, log = run(script, resources={"open_files": most + 1000})
    assert document["exit_code"] == 0
    assert str(most) in log


def test_nothing_gains_rights_and_everything_is_in_its_own_session(run: Any) -> None:
    script = (
        "import os, pathlib\n"
        "print([l for l in pathlib.Path('/proc/self/status').read_text().splitlines()"
        " if l.startswith('NoNewPrivs')])\n"
        "print(os.getsid(0) == os.getpid() == os.getpgrp())\n"
    )
    _, log = run(script)
    assert "NoNewPrivs:\\t1" in log
    assert "True" in log


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_the_users_own_rights_are_all_that_is_left(tmp_path: Path) -> None:
    """After `become` there is no way back, and root's files are closed."""
    tmp_path.chmod(0o755)
    closed = tmp_path / "closed"
    closed.write_text("root's")
    closed.chmod(0o600)
    user = pwd.getpwnam("nobody")
    answer, told = os.pipe()
    child = os.fork()
    if child == 0:
        from onward.engines.own_user import become

        become(user)
        words = [f"{os.getuid()} {os.geteuid()} {os.getgid()}"]
        for trial in (lambda: closed.read_text(), lambda: os.setuid(0)):
            try:
                trial()
                words.append("done")
            except PermissionError:
                words.append("refused")
        os.write(told, " ".join(words).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(answer, 1000).decode()
    assert found == f"{user.pw_uid} {user.pw_uid} {user.pw_gid} refused refused"


def _python_for_all() -> tuple[str, str] | None:
    """A Python that another user can run, and where it finds what this one finds."""
    path = os.pathsep.join([*os.environ.get("PYTHONPATH", "").split(os.pathsep), *sys.path])
    for python in (sys.executable, "/usr/bin/python3"):
        probe = [python, "-c", "import onward.jobs.agent"]
        with contextlib.suppress(OSError):
            if not subprocess.run(
                probe, user="nobody", cwd="/", capture_output=True,
                env={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
            ).returncode:  # fmt: skip
                return python, path
    return None


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_job_runs_as_its_own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Script and agent are that user's; what is the server's is closed to them."""
    found = _python_for_all()
    if found is None:
        pytest.skip("another user can run no Python here")
    monkeypatch.setattr(sys, "executable", found[0])
    monkeypatch.setenv("PYTHONPATH", found[1])
    user = pwd.getpwnam("nobody")
    # Not below pytest's own folders, which are closed to everybody else.
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        base.chmod(0o711)
        for each in ("out", "home"):
            (base / each).mkdir()
            os.chown(base / each, user.pw_uid, -1)
        (base / "secret").write_text("x")
        (base / "secret").chmod(0o600)
        script = (
            "import os, pathlib\n"
            "print('user', os.getuid(), os.getgroups())\n"
            f"try: pathlib.Path({str(base / 'secret')!r}).read_text()\n"
            "except PermissionError: print('closed')\n"
        )
        document, log = run_in(base, script, user="nobody", resources={"memory_bytes": 1 << 30})
    assert document["exit_code"] == 0, log
    assert f"user {user.pw_uid} [{user.pw_gid}]" in log
    assert "closed" in log


def test_a_user_that_does_not_exist_is_named(run: Any) -> None:
    document, log = run("print(1)", user="no-such-user")
    assert document["cause"] == "infrastructure"
    assert "there is no user 'no-such-user'" in log


def test_groups_of_version_2_are_written_as_the_kernel_reads_them(tmp_path: Path) -> None:
    """On a tree that stands for the kernel's: where limits go, and who joins what."""
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    base = mount / "system.slice" / "onward.service"
    leaf = base / "server"
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/system.slice/onward.service/server\n")
    (proc / "self" / "mountinfo").write_text(f"30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    script = base / "onward-att-1" / "script"
    for group in (leaf, script, script.parent / "agent"):
        group.mkdir(parents=True)
    for group in (base, leaf, script.parent, script, script.parent / "agent"):
        for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.controllers"):
            (group / name).write_text("")
    for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
        (script / name).write_text("max")
    (leaf / "cgroup.controllers").write_text("memory cpu pids")
    (script / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")

    groups = Groups("att-1", proc=proc)
    groups.make({"memory_bytes": 1000, "cpus": 1.5, "processes": 7})

    assert groups.made == [script]
    assert (script / "memory.max").read_text().startswith("1000")
    assert (script / "cpu.max").read_text() == "150000 100000"
    assert (script / "pids.max").read_text().startswith("7")
    assert (script.parent / "agent" / "cgroup.procs").read_text() == "0"
    assert "+pids" in (script.parent / "cgroup.subtree_control").read_text()
    groups.leave()
    assert (leaf / "cgroup.procs").read_text() == "0"
    assert groups.kernel_kills() == 2
    assert groups.limits("memory")


@pytest.mark.skipif(not _can_limit("memory"), reason="no control group can be made here")
def test_groups_that_are_empty_for_now_are_left_to_their_attempt(
    run: Callable[..., tuple[dict[str, Any], str]],
) -> None:
    """Another attempt that starts and ends meanwhile takes nothing away from one that prepares."""
    waiting = Groups("att-still-fetching")
    waiting.make({"memory_bytes": 1 << 30})
    try:
        run("print(1)")
        assert waiting.made
    finally:
        waiting.remove()
    assert not waiting.made


@pytest.mark.parametrize(
    "own", ["/user.slice/session-1.scope", "/system.slice/onward.service", "/"]
)
def test_nobody_is_moved_out_of_a_group_that_is_not_ours(tmp_path: Path, own: str) -> None:
    """Version 2, where the server is in no leaf: there are no groups, and nothing is written."""
    proc, mount = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "1").mkdir()
    (proc / "1" / "comm").write_text("systemd\n")
    (proc / "self" / "cgroup").write_text(f"0::{own}\n")
    (proc / "self" / "mountinfo").write_text(f"30 1 0:26 / {mount} rw - cgroup2 cgroup2 rw\n")
    group = mount / own.strip("/")
    group.mkdir(parents=True)
    for name in ("cgroup.procs", "cgroup.subtree_control", "cgroup.controllers"):
        (group / name).write_text("memory cpu pids" if "controllers" in name else "")
    make_room(proc=proc)
    groups = Groups("att-1", proc=proc)
    groups.make({"memory_bytes": 1000})
    assert not groups.made
    assert (group / "cgroup.subtree_control").read_text() == ""
    assert not (group / "server").exists()
