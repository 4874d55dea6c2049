"""`onward run`: one command trains; the same command again goes on."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

import click

from onward.cli.options import json_option, single_writer_option, write_json, write_lines
from onward.cli.outcome import as_outcome, report
from onward.cli.text import clean
from onward.jobs.agent import JOB_THREAD, run_job
from onward.jobs.display import Display, Lines, Terminal
from onward.jobs.plan import make_plan
from onward.jobs.spec import DATA_NAME, OUTPUT_NAME, Input, JobSpec
from onward.trackers import NAMES


@click.command("run")
@click.argument("script")
@click.option("--output", required=True, help="Folder or object-store URL of the training state.")
@click.option("--data", default="", help="Folder, file or object-store URL of the data.")
@click.option(
    "--predownload",
    default="latest",
    metavar="no|latest|all|CHECKPOINT",
    help="What is fetched and verified before the script starts; a checkpoint is gone on from.",
)
@click.option(
    "--pass-as",
    type=click.Choice(["argument", "env"]),
    default="argument",
    help="Places as --data_url/--train_url, or as DATA_URL/TRAIN_URL in the environment.",
)
@click.option(
    "--input", "inputs", multiple=True, metavar="NAME=LOCATION[:env]",
    help="A further location that the script reads, as --NAME or, with :env, as NAME in the "
    "environment; fetched like data, but only what is new in --data counts. May be repeated.",
)  # fmt: skip
@click.option(
    "--data-name", default=DATA_NAME, metavar="NAME", show_default=True,
    help="What the script calls the place of the data.",
)  # fmt: skip
@click.option(
    "--data-pass-as", type=click.Choice(["argument", "env"]), default=None,
    help="As --pass-as, for the data alone.",
)  # fmt: skip
@click.option(
    "--output-name", default=OUTPUT_NAME, metavar="NAME", show_default=True,
    help="What the script calls the place of the output.",
)  # fmt: skip
@click.option(
    "--strategy", default="", metavar="NAME[:SAMPLES]",
    help="How not to forget, whatever the script says: uniform, er:1000, lwf, …",
)  # fmt: skip
@click.option(
    "--budget", default="", metavar="BUDGET",
    help='How much this increment trains, whatever the script says: 3, "500 steps", "10 min", '
    '"0.2 x retrain".',
)  # fmt: skip
@click.option(
    "--margin", type=click.FloatRange(0, 1), metavar="SHARE",
    help="How much worse than the champion a checkpoint may be, whatever the script says.",
)  # fmt: skip
@click.option(
    "--no-promote", is_flag=True,
    help="Nothing becomes the champion by itself; the gate's verdict stands in the log.",
)  # fmt: skip
@click.option("--retries", type=click.IntRange(0), default=0, help="Restarts after a crash.")
@click.option("--resume", "verb", flag_value="resume", help="Insist on an unfinished increment.")
@click.option("--continue", "verb", flag_value="continue", help="Insist on a new increment.")
@click.option("--branch", default="", metavar="FROM", help="Weights of OUTPUT[@CHECKPOINT] only.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; change nothing.")
@single_writer_option
@click.option(
    "--on-damage",
    type=click.Choice(["raise", "fall-back"]),
    default="raise",
    help="What to do about a damaged newest checkpoint.",
)
@click.option(
    "--save-every",
    type=click.Choice(["auto"]),
    help="Measure what a save costs and choose the interval that loses the least time.",
)
@click.option(
    "--mtbf-hours", type=float, metavar="H", help="With --save-every auto: hours between failures."
)
@click.option("--keep-last", type=click.IntRange(1), metavar="N", help="Keep the newest N.")
@click.option(
    "--keep-every",
    type=click.IntRange(1),
    metavar="STEPS",
    help="Keep the first at or after each multiple of so many optimizer steps.",
)
@click.option(
    "--keep-best", multiple=True, metavar="METRIC[:min|:max][:N]",
    help="Keep the best by a metric. Without a rule to keep, all checkpoints stay.",
)  # fmt: skip
@click.option("--save-every-steps", type=click.IntRange(1), metavar="N")
@click.option("--save-every-seconds", type=float, metavar="T")
@click.option(
    "--grace", type=click.FloatRange(0), default=30.0, metavar="SECONDS", show_default=True,
    help="How long the script may take to save and stop.",
)  # fmt: skip
@click.option(
    "--space", default="", metavar="SIZE",
    help="Most that checkpoints may take on this machine, such as 20GB (or ONWARD_SPACE).",
)  # fmt: skip
@click.option(
    "--track", multiple=True, type=click.Choice(NAMES),
    help="Tell a tracker the metrics, whatever the script itself asks for; may be repeated.",
)  # fmt: skip
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(as_json: bool, dry_run: bool, **given: Any) -> int:
    """Trains with SCRIPT; the same command again goes on where it stopped.

    SCRIPT gets the local places of data and output, then the ARGUMENTS that follow `--`.
    Ends with 0: done, 1: the job failed, 2: usage or configuration, 75: stopped safely and can be
    gone on with by the same command, 130: Ctrl-C.
    """
    spec = JobSpec(
        script=given["script"],
        output=given["output"],
        data=given["data"],
        arguments=tuple(given["arguments"]),
        predownload=given["predownload"],
        pass_as=given["pass_as"],
        retries=given["retries"],
        verb=given["verb"] or "auto",
        branch_from=given["branch"],
        single_writer=given["single_writer"],
        on_damage=given["on_damage"],
        keep_last=given["keep_last"],
        keep_every=given["keep_every"],
        keep_best=given["keep_best"],
        save_every=given["save_every"],
        mtbf_hours=given["mtbf_hours"],
        save_every_steps=given["save_every_steps"],
        save_every_seconds=given["save_every_seconds"],
        grace_s=given["grace"],
        space=given["space"],
        track=tuple(dict.fromkeys(given["track"])),
        inputs=tuple(map(Input.parse, given["inputs"])),
        data_name=given["data_name"],
        data_pass_as=given["data_pass_as"] or "",
        output_name=given["output_name"],
        strategy=given["strategy"],
        budget=given["budget"],
        margin=given["margin"],
        promote=not given["no_promote"],
    )
    if dry_run:
        return _show_plan(spec, as_json=as_json)
    return _carry_through(spec, as_json=as_json)


def _carry_through(spec: JobSpec, *, as_json: bool) -> int:
    terminal = sys.stderr.isatty() and sys.stdout.isatty() and not as_json
    display: Display = Terminal() if terminal else Lines()
    outcome = run_job(spec, display, stdout=sys.stderr if as_json else None)
    if outcome.error is not None:
        if not outcome.attempts:
            raise outcome.error
        ending = as_outcome(outcome.error)
        assert ending is not None
        report(ending, as_json=False)
    for line in outcome.lines():
        display.say(line)
    if as_json:
        write_json(outcome.document())
    leave_threads_behind(outcome.exit_code)
    return outcome.exit_code


def _show_plan(spec: JobSpec, *, as_json: bool) -> int:
    plan = make_plan(spec)
    if as_json:
        write_json(plan.document())
    else:
        write_lines([clean(line) for line in plan.lines()])
    return plan.exit_code


def leave_threads_behind(code: int) -> None:
    """Ends the process where a job that was interrupted still waits for a store."""
    if any(thread.name == JOB_THREAD for thread in threading.enumerate()):
        # Everything that a job writes is whole or absent, so that it may die now.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
