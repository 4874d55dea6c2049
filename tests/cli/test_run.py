"""`onward run` as people and programs use it: exit codes, messages, plans, JSON, terminals."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from onward.repository import open_repository
from onward.stores import LocalStore, open_store
from tests.jobs.bench import PLAIN, TRAIN, Bench, tree, wait_for, wait_for_line
from tests.repository.checkpoints import commit, noise, output_with
from tests.servers import S3Server

DEAF = """
import signal, time
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    """A folder of its own, with working copies inside."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    return Bench(tmp_path, os.environ)


@pytest.fixture
def s3_url(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest,
    bench: Bench,
) -> Callable[[str], str]:  # fmt: skip
    """URLs of a place of this test's own on a real server."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)
        bench.environment[name] = value
    place = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name)
    return lambda name: seaweedfs.url(f"cli/{place}/{name}")


def steps_at(folder: Path) -> list[int]:
    return [commit.step for commit in open_repository(LocalStore(folder)).history.live()]


def test_one_command_trains_and_the_same_command_goes_on(bench: Bench) -> None:
    """Defaults only; the summary says what was done and how to go on."""
    arguments = (bench.script(TRAIN), "--data", "data", "--output", "out")
    out, err = bench.command(*arguments)
    assert "saved 2" in out
    assert "2 checkpoints committed, 2 steps" in err
    assert "newest" in err
    assert "increment 1 finished" in err
    (bench.data / "b.txt").write_text("day 2")
    out, err = bench.command(*arguments)
    assert "begin auto at step 2" in out
    again = err.split("when there is more data: ")[1].strip()
    assert again == f"onward run {bench.folder}/train.py --data data --output out"


def test_nothing_new_exits_with_0_and_starts_nothing(bench: Bench) -> None:
    """The same command once more."""
    arguments = (bench.script(TRAIN), "--data", "data", "--output", "out")
    bench.command(*arguments)
    before = tree(bench.output)
    out, err = bench.command(*arguments)
    assert out == ""
    assert "nothing new to learn" in err
    assert "--continue" in err
    assert tree(bench.output) == before


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGHUP, 75)]
)
def test_a_request_to_stop_is_passed_on_and_the_script_saves(
    bench: Bench, number: int, status: int
) -> None:
    """75: run the same command again. 130: a person pressed Ctrl-C."""
    arguments = (bench.script(TRAIN), "--output", "out", "--", "--steps", "100", "--pause", "30")
    process = bench.start(*arguments)
    wait_for_line(process, "saved 1")
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert steps_at(bench.output) == [1, 2]
    assert "Traceback" not in err


def test_a_script_that_does_not_stop_is_killed_after_its_grace(bench: Bench) -> None:
    """Nothing was saved: exit code 1, and it is said."""
    process = bench.start(bench.script(DEAF), "--output", "out", "--grace", "0.2")
    wait_for_line(process, "deaf")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "killing it" in err
    assert "saved nothing" in err


def test_ctrl_c_again_and_again_ends_everything(bench: Bench) -> None:
    """Whoever presses it three times means it."""
    process = bench.start(bench.script(DEAF), "--output", "out", "--grace", "60")
    wait_for_line(process, "deaf")

    def pressed() -> bool:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
        return process.poll() is not None

    wait_for(pressed)
    process.communicate()
    assert process.returncode == 130


def test_the_scripts_output_is_live_and_unaltered(bench: Bench) -> None:
    """Byte for byte on the right stream, without waiting for the end."""
    script = """
import sys, time
print("first")
sys.stderr.write("\\x1b[1mbold\\x1b[0m\\r progress")
sys.stdout.buffer.write(b"\\xc3\\xa9\\n")
sys.stdout.flush()
time.sleep(30)
"""
    process = bench.start(bench.script(script), "--output", "out")
    wait_for_line(process, "first")
    wait_for_line(process, "é")
    process.kill()
    _, err = process.communicate()
    assert "\x1b[1mbold\x1b[0m" in err


def test_plain_progress_lines_where_nobody_watches(bench: Bench) -> None:
    """What the run tells becomes a line now and then."""
    script = """
import json, os
facts = {"step": 3, "epoch": 0, "batch": 3, "batches": 9, "metrics": {"loss": 0.5}}
os.write(int(os.environ["ONWARD_EVENTS_FD"]), json.dumps(facts).encode() + b"\\n")
"""
    _, err = bench.command(bench.script(script), "--output", "out")
    assert "epoch 1, step 3, batch 3/9, loss 0.5" in err


@pytest.mark.skipif(sys.platform != "linux", reason="reads a pseudo-terminal")
def test_a_bar_is_drawn_below_the_scripts_output_on_a_terminal(bench: Bench) -> None:
    """The bar goes away before the script's lines, and at the end."""
    script = """
import json, os, sys, time
fd = int(os.environ["ONWARD_EVENTS_FD"])
for step in range(1, 9):
    facts = {"step": step, "epoch": 0, "batch": step, "batches": 8}
    os.write(fd, json.dumps(facts).encode() + b"\\n")
    print("line", step, sys.stdout.isatty())
    time.sleep(0.06)
"""
    path = bench.script(script)
    code = f"""
import pty, sys
status = pty.spawn([sys.executable, "-m", "onward.cli", "run", {path!r}, "--output", "out"])
sys.exit(status >> 8)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=bench.folder, env={**bench.environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    shown = done.stdout.decode()
    assert done.returncode == 0, shown
    assert "line 8 True" in shown
    assert re.search(r"epoch 1 .*step \d, batch \d/8", shown)
    assert "\x1b[2K" in shown
    # Each of the script's lines begins a line: directly after a line end or an erased bar.
    for step in range(1, 9):
        before = shown.split(f"line {step} True")[0]
        assert before == "" or before.endswith(("\n", "\x1b[2K"))


def test_ctrl_c_does_not_wait_for_a_store_that_does_not_answer(bench: Bench) -> None:
    """Whoever presses it while something is fetched gets the prompt back."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"s3://bucket/x?endpoint=http://127.0.0.1:{silent.getsockname()[1]}"
        bench.environment.update(AWS_ACCESS_KEY_ID="x" * 8, AWS_SECRET_ACCESS_KEY="y" * 8)
        process = bench.start(bench.script(TRAIN), "--output", url)
        silent.settimeout(30)
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=10)
        connection.close()
    assert process.returncode == 130
    assert "stopped by SIGINT" in err


def test_a_stop_between_two_attempts_starts_no_other(bench: Bench) -> None:
    """The pause before a retry ends at once; what the first attempt did is summed up."""
    script = bench.script("import sys; print('x', flush=True); sys.exit(3)")
    process = bench.start(script, "--output", "out", "--retries", "99")
    assert process.stderr is not None
    for line in process.stderr:
        if "attempt 2 of 100 begins" in line:
            break
    process.terminate()
    out, err = process.communicate(timeout=10)
    assert process.returncode == 75
    assert out == "x\n"
    assert "stopped by SIGTERM" in err


# Usage.


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.py", "--output", "out"], "there is no script 'nowhere.py'"),
        (["data", "--output", "out"], "it is a folder"),
        (["train.py"], "--output"),
        (["train.py", "--output", "s3:/bucket/x"], "did you mean s3://bucket/x"),
        (["train.py", "--output", "out", "--data", "nowhere"], "there is no data at"),
        (["train.py", "--output", "out", "--resume"], "cannot resume"),
        (["train.py", "--output", "out", "--continue"], "cannot continue"),
        (["train.py", "--output", "out", "--branch", "data"], "not an Onward output"),
        (["train.py", "--output", "out", "--predownload", "v1"], "no checkpoint 'v1'"),
        (["train.py", "--output", "out", "--retries", "-1"], "--retries"),
        (["train.py", "--output", "out", "--on-damage", "pray"], "--on-damage"),
        (["train.py", "--output", "out", "--epochs", "3"], "--epochs"),
    ],
)
def test_wrong_usage_exits_with_2_and_says_what_to_do(
    bench: Bench, arguments: list[str], says: str
) -> None:
    """No traceback, and nothing is made."""
    bench.script(TRAIN)
    out, err = bench.command(*arguments, status=2)
    assert out == ""
    assert says in err
    assert "Traceback" not in err
    assert not bench.output.exists()


def test_a_script_that_refuses_its_arguments_exits_with_2(bench: Bench) -> None:
    """As argparse does; another try would not help."""
    _, err = bench.command(
        bench.script(TRAIN), "--output", "out", "--retries", "5", "--", "--nonsense", status=2
    )
    assert "--nonsense" in err
    assert "refused its arguments" in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_cannot_be_written_is_said(bench: Bench) -> None:
    """What, why, what to do."""
    (bench.folder / "locked").mkdir(mode=0o500)
    _, err = bench.command(bench.script(TRAIN), "--output", "locked/out", status=1)
    assert "what to do" in err
    assert "Traceback" not in err


def test_an_output_below_a_file_is_said(bench: Bench) -> None:
    """A path that cannot become a folder."""
    _, err = bench.command(bench.script(TRAIN), "--output", "data/a.txt/out", status=None)
    assert "a.txt" in err
    assert "Traceback" not in err


# JSON.


def test_json_is_one_document_and_the_scripts_output_is_elsewhere(bench: Bench) -> None:
    """For programs: standard output holds nothing else."""
    out, err = bench.command(
        bench.script(TRAIN), "--output", "out", "--retries", "1", "--json", "--", "--crash-after",
        "1",
    )  # fmt: skip
    document = json.loads(out)
    assert "saved 1" in err
    assert document["exit_code"] == 0
    assert [attempt["exit_status"] for attempt in document["attempts"]] == [-9, 0]
    assert [found["step"] for found in document["checkpoints"]] == [1, 2, 3]
    assert document["newest"]["finished"] is True
    assert document["steps"] == 3
    assert document["error"] is None
    assert document["command"].startswith("onward run ")


def test_json_of_a_failure_names_the_error(bench: Bench) -> None:
    """Before anything was started."""
    out, _ = bench.command("nowhere.py", "--output", "out", "--json", status=2)
    document = json.loads(out)
    assert document["error"]["type"] == "UsageError"
    assert document["error"]["do"]


def test_json_of_nothing_new(bench: Bench) -> None:
    """A success."""
    arguments = (bench.script(TRAIN), "--data", "data", "--output", "out", "--json")
    bench.command(*arguments)
    out, _ = bench.command(*arguments)
    document = json.loads(out)
    assert document["exit_code"] == 0
    assert document["attempts"] == []
    assert "nothing new" in document["message"]


# The plan.


def plan(bench: Bench, *arguments: str, status: int = 0) -> dict[str, Any]:
    """The plan as JSON; the plan as text must exist as well, and nothing may have changed."""
    before = tree(bench.folder)
    out, _ = bench.command("--dry-run", "--json", *arguments, status=status)
    text, _ = bench.command("--dry-run", *arguments, status=status)
    assert tree(bench.folder) == before
    document: dict[str, Any] = json.loads(out)
    assert document["verb"] in text
    return document


def test_the_plan_of_a_first_run_makes_nothing(bench: Bench) -> None:
    """Not even the folder."""
    found = plan(bench, bench.script(TRAIN), "--data", "data", "--output", "out", "--", "--x", "1")
    assert (found["verb"], found["checkpoint"], found["increment"]) == ("fresh", None, 1)
    assert found["data"]["items"] == 1
    assert found["data"]["new"] is True
    assert found["command"][-2:] == ["--x", "1"]


def test_the_plan_names_the_chosen_and_each_rejected_checkpoint(bench: Bench) -> None:
    """2, 9, 10, 100, and a save at 101 that was cut off before its record."""
    store = LocalStore(bench.output)
    repository = output_with(store, 2, 9, 10, 100)
    newest = repository.history.latest()
    assert newest is not None
    store.put("onward/manifests/00000000000000ff.json", [b"{}"], 2)
    found = plan(bench, bench.script(TRAIN), "--output", "out")
    assert found["verb"] == "resume"
    assert found["checkpoint"]["checkpoint"] == newest.checkpoint
    assert found["checkpoint"]["step"] == 100
    (rejected,) = found["rejected"]
    assert rejected["checkpoint"] == "00000000000000ff"
    assert "cut off" in rejected["reason"]
    assert (found["tensors"], found["restore_bytes"]) == (1, 4)


def test_the_plan_says_that_nothing_is_new(bench: Bench) -> None:
    """And how many batches an epoch had."""
    arguments = (bench.script(TRAIN), "--data", "data", "--output", "out")
    bench.command(*arguments)
    found = plan(bench, *arguments)
    assert found["data"]["new"] is False
    assert "nothing new" in found["nothing_new"]
    assert found["batches"] == {"loader0": 7}


@pytest.mark.servers
def test_the_plan_for_an_object_store_counts_bytes_and_changes_nothing(
    bench: Bench, s3_url: Callable[[str], str]
) -> None:
    """Neither there nor here."""
    store = open_store(s3_url("out"))
    writer = output_with(store).claim("test")
    for step in (1, 2):
        commit(writer, step, state={"w": noise(step, 1000)})
    for number in (9, 10):
        store.put(f"ckpt_{number}.pth", [bytes(500)], 500)
    open_store(s3_url("data")).put("a.txt", [bytes(700)], 700)
    there = {entry.key: entry.version for entry in store.list("")}
    script = bench.script(TRAIN)
    found = plan(bench, script, "--output", s3_url("out"), "--data", s3_url("data"))
    assert 1000 < found["fetch_bytes"] < 1300
    assert found["free_bytes"] > 0
    assert [file["key"] for file in found["files"]["fetch"]] == ["ckpt_10.pth"]
    assert found["files"]["passed_over"] == {"ckpt_9.pth": "ckpt_10.pth"}
    assert (found["data"]["fetch_items"], found["data"]["fetch_bytes"]) == (1, 700)
    assert found["data"]["new"] is None
    everything = plan(bench, script, "--output", s3_url("out"), "--predownload", "all")
    assert everything["fetch_bytes"] > found["fetch_bytes"]
    assert {entry.key: entry.version for entry in store.list("")} == there
    assert not (bench.folder / "home").exists()


@pytest.mark.servers
def test_the_plan_counts_what_an_earlier_job_left_unpushed(
    bench: Bench, s3_url: Callable[[str], str]
) -> None:
    """The newest checkpoint is the one that will be pushed first."""
    script = bench.script(TRAIN)
    bench.command(script, "--output", s3_url("out"))
    (working,) = (bench.folder / "home" / "outputs").iterdir()
    local = open_repository(LocalStore(working / "output"))
    history = local.history
    writer = local.claim("left", generation=history.generation, writer=history.writer)
    left = commit(writer, 50)
    found = plan(bench, script, "--output", s3_url("out"))
    assert found["unpushed"] == [left.checkpoint]
    assert found["checkpoint"]["checkpoint"] == left.checkpoint


# Scripts that know nothing of Onward; those of the tutorials: tests/jobs/test_classic.py.


def test_plain_scripts_may_be_stopped_and_gone_on_with(bench: Bench) -> None:
    """SIGTERM ends it; what it saved is there."""
    script = bench.script(PLAIN)
    process = bench.start(script, "--output", "out", "--", "--wait-at-end", "60")
    wait_for((bench.output / "ckpt_2.pth").exists)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75
    out, _ = bench.command(script, "--output", "out")
    assert "begin at epoch 3" in out
