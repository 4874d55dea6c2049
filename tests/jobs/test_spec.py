"""What a user asks of a job, and the command that goes on with it."""

from __future__ import annotations

import shlex

import click
import pytest

from onward.cli.run import run
from onward.jobs.spec import JobSpec


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec("train.py", "out"),
        JobSpec("my train.py", "s3://b/x?endpoint=http://h:1&region=r", data="d d", retries=3),
        JobSpec("t.py", "o", arguments=("--epochs", "3", "a b"), pass_as="env", grace_s=1.5),
        JobSpec("t.py", "o", single_writer=True, on_damage="fall-back", predownload="all"),
        JobSpec("t.py", "o", save_every_steps=10, save_every_seconds=0.5),
        JobSpec("t.py", "o", space="1.5 TB"),
    ],
)
def test_the_command_to_go_on_is_the_command(spec: JobSpec) -> None:
    """Read back by the command line itself, it asks for the same."""
    words = shlex.split(spec.command())
    assert words[:2] == ["onward", "run"]
    given = run.make_context("run", words[2:]).params
    again = JobSpec(
        script=given["script"], output=given["output"], data=given["data"],
        arguments=tuple(given["arguments"]), predownload=given["predownload"],
        pass_as=given["pass_as"], retries=given["retries"], verb=given["verb"] or "auto",
        branch_from=given["branch"], single_writer=given["single_writer"],
        on_damage=given["on_damage"], save_every_steps=given["save_every_steps"],
        save_every_seconds=given["save_every_seconds"], grace_s=given["grace"],
        space=given["space"],
    )  # fmt: skip
    assert again == spec


@pytest.mark.parametrize(
    "spec",
    [
        JobSpec("t.py", "o", verb="continue"),
        JobSpec("t.py", "o", branch_from="other@v2"),
        JobSpec("t.py", "o", predownload="v3"),
    ],
)
def test_what_insists_on_a_beginning_is_not_repeated(spec: JobSpec) -> None:
    """The job has begun: the same command must not begin again."""
    assert spec.command() == JobSpec("t.py", "o").command()


def test_options_of_the_script_need_two_dashes() -> None:
    """A mistyped option of ours is not silently the script's."""
    with pytest.raises(click.UsageError, match="--epochs"):
        run.make_context("run", ["t.py", "--output", "o", "--epochs", "3"])
