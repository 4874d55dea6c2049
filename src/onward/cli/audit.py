"""`onward audit`: what a full retrain would have cost, and scored, measured by training one."""

from __future__ import annotations

import sys
from typing import Any

import click

from onward.cli.options import (
    json_option,
    output_argument,
    single_writer_option,
    write_json,
    write_lines,
)
from onward.cli.outcome import as_outcome, report
from onward.cli.report_text import audit_lines
from onward.cli.run import leave_threads_behind
from onward.cli.text import clean
from onward.facts.report_document import audit_document
from onward.jobs.audit import Audited, AuditSpec, run_audit
from onward.jobs.display import Display, Lines, Terminal
from onward.jobs.outcome import Outcome


@click.command()
@output_argument
@click.argument("script")
@click.option("--data", default="", help="Folder, file or object-store URL of the data.")
@click.option(
    "--checkpoint", default="", metavar="CHECKPOINT",
    help="What is audited; by default the newest that ends an increment.",
)  # fmt: skip
@click.option(
    "--sample", "share", type=float, default=1.0, metavar="SHARE", show_default=True,
    help="Train on a share of the data only; its cost is then scaled, and marked so.",
)  # fmt: skip
@click.option("--keep", is_flag=True, help="Leave the retrain's own output where it is.")
@click.option(
    "--pass-as", type=click.Choice(["argument", "env"]), default="argument",
    help="Places as --data_url/--train_url, or as DATA_URL/TRAIN_URL in the environment.",
)  # fmt: skip
@click.option("--retries", type=click.IntRange(0), default=0, help="Restarts after a crash.")
@click.option(
    "--grace", "grace_s", type=click.FloatRange(0), default=30.0, metavar="SECONDS",
    show_default=True, help="How long the script may take to save and stop.",
)  # fmt: skip
@single_writer_option
@json_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def audit(as_json: bool, **given: Any) -> int:
    """Train a full retrain beside a checkpoint, and record what it cost and scored.

    SCRIPT is started as `onward run` does, with the ARGUMENTS that follow `--`, in an output of its
    own, fresh, on exactly the data that the checkpoint has learned, and scored on the same frozen
    holdouts. `onward report` then compares with what was measured instead of an estimate.

    Stopped or killed, the same command goes on. Ends as `onward run` does.
    """
    spec = AuditSpec(**{**given, "arguments": tuple(given["arguments"])})
    terminal = sys.stderr.isatty() and sys.stdout.isatty() and not as_json
    display: Display = Terminal() if terminal else Lines()
    found = run_audit(spec, display, stdout=sys.stderr if as_json else None)
    if found.audit is None:
        assert found.outcome is not None
        return _unfinished(found, found.outcome, display, as_json=as_json)
    if as_json:
        write_json(
            {
                "exit_code": 0,
                "audit": audit_document(found.commit, found.audit, found.gaps),
                "folder": str(found.folder) if spec.keep else None,
                "confirmed": found.confirmed,
                "recorded_before": found.before,
            }
        )
    else:
        write_lines(_lines(found, keep=spec.keep))
    return 0


def _unfinished(found: Audited, outcome: Outcome, display: Display, *, as_json: bool) -> int:
    """As `onward run` tells it; nothing is recorded."""
    if outcome.error is not None:
        if not outcome.attempts:
            raise outcome.error
        ending = as_outcome(outcome.error)
        assert ending is not None
        report(ending, as_json=False)
    for line in outcome.lines():
        display.say(line)
    if as_json:
        write_json({**outcome.document(), "audit": None, "folder": str(found.folder)})
    leave_threads_behind(outcome.exit_code)
    return outcome.exit_code


def _lines(found: Audited, *, keep: bool) -> list[str]:
    assert found.audit is not None
    lines = audit_lines(found.commit.checkpoint, found.audit, found.gaps)
    if found.before:
        lines.append("it was on record already; nothing was added")
    if not found.confirmed:
        lines.append(
            "the script's run did not say on which data it trained: if that was not what the "
            "checkpoint had learned, this compares two different things"
        )
    if keep:
        lines.append(f"the retrain's own output stays: {clean(found.folder / 'output')}")
    return lines
