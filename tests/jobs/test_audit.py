"""An audit: a full retrain beside, recorded once, whatever happens to whoever trains it."""

from __future__ import annotations

import io
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onward.errors import JobError, OnwardError, UnknownCheckpoint, UsageError
from onward.jobs.audit import Audited, AuditSpec, audit_folder, run_audit
from onward.jobs.display import Lines
from onward.repository import Audit, History, open_repository
from onward.stores import LocalStore, open_store
from tests.jobs.bench import FAST, TRAIN, Bench, wait_for, wait_for_line

_PLACE = '    about["data"] = {'
assert _PLACE in TRAIN
# As a run does that was started by an audit, or by nobody.
SCRIPT = TRAIN.replace(
    _PLACE,
    f"""\
    of = os.environ.get("ONWARD_AUDIT_OF")
    if of and not os.path.exists("deny"):
        share = float(os.environ["ONWARD_AUDIT_SAMPLE"])
        about["audit"] = {{"of": of.rpartition("@")[2], "sample": share}}
    about["learning"] = {{"steps": step, "samples": step * 64, "seconds": step * 0.5}}
{_PLACE}""",
)


def trained(bench: Bench, steps: int = 2) -> History:
    """An output with one finished increment."""
    assert bench.run(SCRIPT, "--steps", str(steps)).outcome.exit_code == 0
    return history(bench)


def history(bench: Bench) -> History:
    return open_repository(LocalStore(bench.output)).history


def audits(bench: Bench) -> list[Audit]:
    return [audit for found in history(bench).audits.values() for audit in found]


def run(bench: Bench, *arguments: str, **spec: Any) -> Audited:
    """An audit within this process."""
    usual = {"output": str(bench.output), "script": bench.script(SCRIPT)}
    with (bench.folder / "script.out").open("ab") as file:
        return run_audit(
            AuditSpec(arguments=arguments, **{**usual, **spec}), Lines(io.StringIO()),
            stdout=file, timing=FAST,
        )  # fmt: skip


def start(bench: Bench, *arguments: str) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "onward.cli", "audit", str(bench.output), bench.script(SCRIPT),
         *arguments],
        cwd=bench.folder, env=bench.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def left(bench: Bench) -> list[Path]:
    return sorted(bench.folder.glob("out.audits/*"))


def test_what_the_retrain_cost_is_on_record_and_nothing_else_is_left(bench: Bench) -> None:
    """The audited output's checkpoints and claims are as before."""
    before = trained(bench)
    found = run(bench, "--steps", "5")
    (audit,) = audits(bench)
    newest = before.latest()
    assert newest is not None
    assert found.audit == audit
    assert audit.checkpoint == newest.checkpoint
    assert (audit.share, audit.steps, audit.samples, audit.seconds) == (1.0, 5, 320, 2.5)
    assert audit.stored > 0
    after = history(bench)
    assert after.commits == before.commits
    assert after.generation == before.generation
    assert found.confirmed
    assert not (bench.folder / "out.audits").exists()
    assert bench.printed().endswith("begin auto at step 0\n" + "".join(
        f"saved {step}\n" for step in range(1, 6)))  # fmt: skip


def test_sample_is_recorded_as_such(bench: Bench) -> None:
    trained(bench)
    run(bench, share=0.25)
    assert [audit.share for audit in audits(bench)] == [0.25]


def test_a_script_that_did_not_take_the_sample_is_refused(bench: Bench) -> None:
    """Its cost would be scaled to four times what it is. The next try begins anew."""
    trained(bench)
    (bench.folder / "deny").touch()
    with pytest.raises(JobError, match="did not train on a sample"):
        run(bench, share=0.25)
    assert audits(bench) == []
    assert left(bench) == []
    assert not run(bench).confirmed


def test_the_newest_finished_checkpoint_is_audited_unless_one_is_named(bench: Bench) -> None:
    trained(bench)
    bench.run(SCRIPT, "--never-finish")
    finished = [commit for commit in history(bench).live() if commit.finished]
    assert run(bench).commit == finished[-1]
    assert run(bench, checkpoint="v1").commit.step == 1
    assert len(audits(bench)) == 2


def test_a_crash_is_gone_on_from(bench: Bench) -> None:
    """Nothing is recorded of the half; the same call resumes."""
    trained(bench)
    first = run(bench, "--steps", "3", "--crash-after", "1")
    assert first.exit_code == 1
    assert first.outcome is not None
    assert "onward audit" in first.outcome.command
    assert audits(bench) == []
    assert len(left(bench)) == 1
    second = run(bench, "--steps", "2", "--crash-after", "1")
    assert "begin auto at step 1" in bench.printed()
    assert second.audit is not None
    assert second.audit.steps == 3
    assert left(bench) == []


def test_killed_altogether_the_same_command_goes_on(bench: Bench) -> None:
    """SIGKILL to the one who trains and to the one who watches."""
    trained(bench)
    process = start(bench, "--", "--steps", "3", "--pause", "0.5")
    wait_for_line(process, "saved 1")
    process.kill()
    process.communicate()
    # Its script ends by itself before long: without its agent it is fenced, or finds no pipe.
    second = start(bench, "--", "--steps", "1")
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert "audited: a full retrain takes" in out
    assert len(audits(bench)) == 1
    assert left(bench) == []


def test_killed_after_its_record_it_is_not_recorded_twice(bench: Bench) -> None:
    trained(bench)
    first = run(bench, keep=True)
    assert not first.before
    assert len(left(bench)) == 1
    again = run(bench)
    assert again.before
    assert again.outcome is None
    assert again.audit == first.audit
    assert len(audits(bench)) == 1
    assert left(bench) == []


def test_stopped_it_says_how_to_go_on(bench: Bench) -> None:
    """SIGTERM: the script saves, and 75 says that the same command goes on."""
    trained(bench)
    process = start(bench, "--", "--steps", "9", "--pause", "5")
    wait_for_line(process, "saved 1")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert "to go on: onward audit" in err
    assert audits(bench) == []


def test_two_at_once(bench: Bench) -> None:
    """The second is told so and touches nothing; of another checkpoint it may."""
    trained(bench)
    process = start(bench, "--", "--steps", "1", "--pause", "3")
    try:
        wait_for(lambda: any((folder / "lock").exists() for folder in left(bench)))
        wait_for_line(process, "begin")
        with pytest.raises(JobError, match="audited already"):
            run(bench)
        assert run(bench, checkpoint="v1").audit is not None
    finally:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert len(audits(bench)) == 2


def test_a_script_that_never_finishes_an_increment(bench: Bench) -> None:
    """There is nothing to compare; what it trained stays, and can be finished."""
    trained(bench)
    with pytest.raises(JobError, match="without a finished increment"):
        run(bench, "--never-finish")
    assert audits(bench) == []
    assert run(bench).audit is not None


@pytest.mark.parametrize("share", [0.0, -1.0, 1.5, float("nan"), float("inf")])
def test_no_share_of_data(bench: Bench, share: float) -> None:
    trained(bench)
    with pytest.raises(UsageError, match="sample"):
        run(bench, share=share)


def test_nothing_to_audit(bench: Bench) -> None:
    """Each is said before a folder is made."""
    with pytest.raises(OnwardError):
        run(bench, output=str(bench.folder / "no"))
    bench.run(SCRIPT, "--never-finish")
    with pytest.raises(UsageError, match="no finished increment"):
        run(bench)
    with pytest.raises(UnknownCheckpoint):
        run(bench, checkpoint="v7")
    assert left(bench) == []


def test_no_script_to_audit_with(bench: Bench) -> None:
    """As `onward run` says it."""
    trained(bench)
    found = run(bench, script="no.py")
    assert found.outcome is not None
    assert isinstance(found.outcome.error, UsageError)
    assert found.exit_code == 2
    assert audits(bench) == []


def test_where_the_retrain_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a folder; for an object store in our own home."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path / "home"))
    id_ = "a" * 16
    assert audit_folder(f"{tmp_path}/out", id_, 1.0) == tmp_path / "out.audits" / id_
    assert audit_folder(f"{tmp_path}/out", id_, 0.5).name == f"{id_}-0.5"
    remote = audit_folder("s3://bucket/models/x", id_, 1.0)
    assert remote.is_relative_to(tmp_path / "home" / "audits")
    assert remote != audit_folder("s3://bucket/models/y", id_, 1.0)


def test_an_output_on_an_object_store(bench: Bench, s3_url: Callable[[str], str]) -> None:
    """The retrain is trained on this machine; its record is appended at the store."""
    url = s3_url("out")
    assert bench.run(SCRIPT, output=url).outcome.exit_code == 0
    found = run(bench, "--steps", "3", output=url)
    history = open_repository(open_store(url)).history
    assert [audit for of_one in history.audits.values() for audit in of_one] == [found.audit]
    assert bench.run(SCRIPT, output=url).outcome.exit_code == 0
    assert len(open_repository(open_store(url)).history.live()) == 4
    assert not list((bench.folder / "home" / "audits").rglob("output"))


def test_the_command_that_goes_on_says_all_of_it() -> None:
    spec = AuditSpec(
        "out", "train.py", data="d", share=0.25, keep=True, retries=2, arguments=("--lr", "0.1"),
        pass_as="env", grace_s=5.0, single_writer=True,
    )  # fmt: skip
    assert spec.command("abcd") == (
        "onward audit out train.py --checkpoint abcd --data d --sample 0.25 --pass-as env "
        "--retries 2 --grace 5.0 --keep --single-writer -- --lr 0.1"
    )
