"""Jobs whose output is a folder: attempts, verbs, signals, crash loops."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onward.errors import Damaged, Fenced, UsageError, WrongVerb
from onward.repository import open_repository
from onward.repository.packs import pack_key
from onward.stores import LocalStore
from tests.jobs.bench import PLAIN, TRAIN, Bench, tree
from tests.repository.checkpoints import output_with


def steps_at(folder: Path) -> list[int]:
    return [commit.step for commit in open_repository(LocalStore(folder)).history.live()]


def test_the_same_command_begins_and_goes_on(bench: Bench) -> None:
    """Fresh, then continue; each attempt under a claim of its own."""
    first = bench.run(TRAIN, data=str(bench.data)).outcome
    (bench.data / "b.txt").write_text("day 2")
    second = bench.run(TRAIN, data=str(bench.data)).outcome
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert [first.attempts[0].verb, second.attempts[0].verb] == ["fresh", "continue"]
    assert second.attempts[0].generation == first.attempts[0].generation + 1
    assert steps_at(bench.output) == [1, 2, 3, 4]
    assert (second.steps, len(second.commits)) == (2, 2)
    assert second.newest is not None
    assert second.newest.finished
    assert "begin auto at step 2" in bench.printed()


def test_a_crashed_script_is_started_again_and_resumes(bench: Bench) -> None:
    """One job, two attempts, nothing lost in between."""
    ended = bench.run(TRAIN, "--steps", "2", "--crash-after", "1", retries=2)
    outcome = ended.outcome
    assert outcome.exit_code == 0
    assert [attempt.exit_status for attempt in outcome.attempts] == [-9, 0]
    assert [attempt.verb for attempt in outcome.attempts] == ["fresh", "resume"]
    assert steps_at(bench.output) == [1, 2, 3]
    assert outcome.steps == 3
    assert "attempt 2 of 3" in ended.said


def test_without_retries_a_crash_ends_the_job(bench: Bench) -> None:
    """Exit code 1; what was committed stays, and the command to go on is named."""
    outcome = bench.run(TRAIN, "--crash-after", "1").outcome
    assert outcome.exit_code == 1
    assert "SIGKILL" in outcome.message
    assert steps_at(bench.output) == [1]
    assert outcome.lines()[-1].startswith("to go on: onward run ")


def test_a_crash_loop_without_new_checkpoints_ends_early(bench: Bench) -> None:
    """Three attempts, not a hundred."""
    outcome = bench.run("raise SystemExit(3)", retries=100).outcome
    assert outcome.exit_code == 1
    assert len(outcome.attempts) == 3
    assert "3 attempts in a row" in outcome.message
    assert "exit status 3" in outcome.message


def test_attempts_that_commit_are_no_crash_loop(bench: Bench) -> None:
    """Each gets a little further."""
    outcome = bench.run(TRAIN, "--crash-after", "1", "--crashes", "4", retries=5).outcome
    assert outcome.exit_code == 0
    assert len(outcome.attempts) == 5


@pytest.mark.parametrize(("status", "code"), [(2, 2), (75, 75), (130, 130)])
def test_ends_that_are_not_tried_again(bench: Bench, status: int, code: int) -> None:
    """Wrong arguments stay wrong; a stop was wanted."""
    outcome = bench.run(f"raise SystemExit({status})", retries=5).outcome
    assert (outcome.exit_code, len(outcome.attempts)) == (code, 1)


def test_a_finished_model_with_nothing_new_starts_nothing(bench: Bench) -> None:
    """Exit code 0, no claim, no process."""
    bench.run(TRAIN, data=str(bench.data))
    before = tree(bench.output)
    ended = bench.run("raise SystemExit(9)", data=str(bench.data))
    assert ended.outcome.exit_code == 0
    assert ended.outcome.attempts == []
    assert "nothing new" in ended.outcome.message
    assert tree(bench.output) == before


def test_insisting_on_continue_trains_on_the_same_data(bench: Bench) -> None:
    """`--continue` says that it is meant."""
    bench.run(TRAIN, data=str(bench.data))
    outcome = bench.run(TRAIN, data=str(bench.data), verb="continue").outcome
    assert outcome.attempts[0].verb == "continue"
    assert steps_at(bench.output) == [1, 2, 3, 4]


def test_the_impossible_verb_is_refused_before_anything_is_made(bench: Bench) -> None:
    """No folder, no claim."""
    outcome = bench.run(TRAIN, verb="resume").outcome
    assert isinstance(outcome.error, WrongVerb)
    assert outcome.exit_code == 2
    assert not bench.output.exists()


def test_missing_data_is_refused_before_anything_is_made(bench: Bench) -> None:
    """No folder, no claim."""
    outcome = bench.run(TRAIN, data=str(bench.folder / "nowhere")).outcome
    assert outcome.exit_code == 2
    assert "there is no data at" in str(outcome.error)
    assert not bench.output.exists()


def test_a_branch_that_crashed_after_its_first_commit_resumes(bench: Bench) -> None:
    """The verb of the first attempt would be impossible at the second."""
    output_with(LocalStore(bench.folder / "origin"), 1, 2)
    outcome = bench.run(
        TRAIN, "--crash-after", "1", retries=1, branch_from=str(bench.folder / "origin")
    ).outcome
    assert [attempt.verb for attempt in outcome.attempts] == ["branch", "resume"]
    assert "begin branch" in bench.printed()
    assert "begin auto" in bench.printed()


def test_a_branch_that_crashed_before_its_first_commit_branches_again(bench: Bench) -> None:
    """It must not become a fresh start."""
    output_with(LocalStore(bench.folder / "origin"), 1, 2)
    outcome = bench.run(
        TRAIN, "--crash-after", "0", retries=1, branch_from=f"{bench.folder / 'origin'}@v1"
    ).outcome
    assert [attempt.verb for attempt in outcome.attempts] == ["branch", "branch"]
    assert outcome.exit_code == 0


def test_a_named_checkpoint_is_gone_on_from_once(bench: Bench) -> None:
    """After a crash the attempt goes on from what the job committed, not from the name again."""
    output_with(LocalStore(bench.output), 1, 2, 3)
    outcome = bench.run(
        TRAIN, "--crash-after", "1", "--steps", "2", retries=1, predownload="v1"
    ).outcome
    assert [attempt.exit_status for attempt in outcome.attempts] == [-9, 0]
    printed = bench.printed()
    assert printed.index("at step 1") < printed.index("at step 2")


def test_no_predownload_refuses_to_bury_checkpoints(bench: Bench) -> None:
    """It could neither go on nor start over."""
    output_with(LocalStore(bench.output), 1)
    outcome = bench.run(TRAIN, predownload="no").outcome
    assert isinstance(outcome.error, UsageError)
    assert "--branch" in outcome.error.do
    assert steps_at(bench.output) == [1]


def test_a_damaged_newest_checkpoint_stops_the_job_unless_told_otherwise(bench: Bench) -> None:
    """The error names how; the fall-back is told."""
    store = LocalStore(bench.output)
    repository = output_with(store, 1, 2)
    newest = repository.history.latest()
    assert newest is not None
    (pack,) = repository.manifest(newest).packs
    store.delete(pack_key(pack))
    refused = bench.run(TRAIN).outcome
    assert isinstance(refused.error, Damaged)
    assert "fall-back" in refused.error.do
    ended = bench.run(
        TRAIN.replace('os.environ.get("ONWARD_CHECKPOINT")', '"v1"'), on_damage="fall-back"
    )
    assert ended.outcome.exit_code == 0
    assert ended.outcome.attempts[0].rejected[0].checkpoint == newest.checkpoint


def test_a_job_that_is_taken_over_is_stopped_and_says_by_whom(bench: Bench) -> None:
    """The script is killed at once; the other's claim stands."""
    script = (
        TRAIN
        + f"""
from onward.repository import open_repository as o
o(LocalStore({str(bench.output)!r})).claim("somebody else")
time.sleep(60)
"""
    )
    outcome = bench.run(script, retries=3).outcome
    assert isinstance(outcome.error, Fenced)
    assert "somebody else" in outcome.error.why
    assert outcome.exit_code == 1
    assert len(outcome.attempts) == 1
    assert outcome.attempts[0].exit_status == -9


def test_a_job_that_is_taken_over_between_attempts_does_not_take_back(bench: Bench) -> None:
    """A crash, another job, then the retry: the retry gives way."""
    script = f"""
from onward.repository import open_repository
from onward.stores import LocalStore
import os
open_repository(LocalStore({str(bench.output)!r})).claim("somebody else")
os._exit(1)
"""
    outcome = bench.run(script, retries=3).outcome
    assert isinstance(outcome.error, Fenced)
    assert open_repository(LocalStore(bench.output)).history.who == "somebody else"


def test_a_plain_script_runs_unchanged(bench: Bench) -> None:
    """It finds its own files, largest number first."""
    for _ in range(6):
        assert bench.run(PLAIN).outcome.exit_code == 0
    assert "begin at epoch 11" in bench.printed()
    names = {path.name for path in bench.output.iterdir()}
    assert names == {"onward", *(f"ckpt_{n}.pth" for n in range(1, 13))}


def test_a_torn_file_of_a_crash_is_moved_aside_and_the_one_before_is_used(bench: Bench) -> None:
    """ckpt_10 is torn, so that the next attempt finds 9, and as a number."""
    bench.run(PLAIN, "--epochs", "9")
    ended = bench.run(PLAIN, "--epochs", "2", "--torn-at", "10")
    assert ended.outcome.exit_code == 1
    assert "ckpt_10.pth is torn" in ended.said
    assert (bench.output / "onward-torn" / "ckpt_10.pth").exists()
    assert bench.run(PLAIN).outcome.exit_code == 0
    assert bench.printed().count("begin at epoch 10") == 2


def test_a_torn_file_that_nobody_saw_is_found_at_the_start(bench: Bench) -> None:
    """The machine went down: 2, 9, 10, 100 and a torn 101."""
    bench.run(PLAIN, "--epochs", "10")
    (bench.output / "ckpt_10.pth").rename(bench.output / "ckpt_100.pth")
    torn = bench.output / "ckpt_101.pth"
    torn.write_bytes((bench.output / "ckpt_100.pth").read_bytes()[:500])
    os.utime(bench.output / "ckpt_2.pth")
    ended = bench.run("")
    assert "ckpt_101.pth is torn" in ended.said
    assert not torn.exists()
    assert (bench.output / "ckpt_100.pth").exists()


def test_a_torn_file_takes_its_checkpoints_folder_with_it(bench: Bench) -> None:
    """Scripts that look for the newest folder find the one before; nothing is lost."""
    for step in (500, 1000):
        folder = bench.output / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        np.savez(folder / "weights.npz", w=np.zeros(1000))
        (folder / "trainer_state.json").write_text("{}")
    os.truncate(bench.output / "checkpoint-1000" / "weights.npz", 2000)
    script = "import os, sys; print(*[n for n in os.listdir(sys.argv[2]) if '-' in n])"
    ended = bench.run(script)
    assert set(bench.printed().split()) == {"checkpoint-500", "onward-torn"}
    assert "checkpoint-1000/ is torn (weights.npz: " in ended.said
    aside = bench.output / "onward-torn" / "checkpoint-1000"
    assert {path.name for path in aside.iterdir()} == {"weights.npz", "trainer_state.json"}


def test_places_go_by_environment_if_asked(bench: Bench) -> None:
    """DATA_URL and TRAIN_URL, and no arguments."""
    script = """
import os, sys
assert sys.argv[1:] == ["--mine"], sys.argv
assert os.path.isdir(os.environ["TRAIN_URL"]) and os.path.isdir(os.environ["DATA_URL"])
assert os.environ["ONWARD_DATA"] == os.environ["DATA_URL"]
"""
    ended = bench.run(script, "--mine", pass_as="env", data=str(bench.data))
    assert ended.outcome.exit_code == 0


def test_what_an_outer_job_told_does_not_reach_an_inner_one(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim belongs to one output."""
    monkeypatch.setenv("ONWARD_CHECKPOINT", "cafe")
    monkeypatch.setenv("ONWARD_BRANCH_FROM", "elsewhere")
    script = """
import os
assert "ONWARD_CHECKPOINT" not in os.environ and "ONWARD_BRANCH_FROM" not in os.environ
"""
    assert bench.run(script).outcome.exit_code == 0


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"output": "s4://bucket/x"}, "did you mean s3://bucket/x"),
        ({"output": "train.py"}, "is a file"),
        ({"data": "s3:/bucket/x"}, "s3://bucket/x"),
        ({"data": "data", "output": "data/out"}, "lies in the data"),
        ({"predownload": "v7"}, "there is no checkpoint 'v7'"),
        ({"branch_from": "nowhere"}, "is not an Onward output"),
        ({"branch_from": "a", "predownload": "v1"}, "--branch a@v1"),
        ({"save_every_seconds": 0.0}, "positive"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_advice(
    bench: Bench, spec: dict[str, object], says: str
) -> None:
    """Exit code 2, and nothing is made."""
    outcome = bench.run(TRAIN, **spec).outcome
    assert outcome.exit_code == 2
    assert says in str(outcome.error)
    assert not bench.output.exists()
