"""The group of all commands: finds them lazily, and ends every one of them the same way."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from onward._version import __version__
from onward.cli.outcome import as_outcome, report

# name → where the command is, and its summary: `onward --help` imports none of them.
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("onward.cli.run:run", "Train: start a script, or go on where it stopped."),
    "log": ("onward.cli.log:log", "List the checkpoints of an output, newest first."),
    "show": ("onward.cli.show:show", "Show what made one checkpoint, and what it holds."),
    "diff": ("onward.cli.diff:diff", "Compare two checkpoints, down to the values."),
    "data": ("onward.cli.data:data", "Ask what a model has learned from, and what changed."),
    "verify": ("onward.cli.verify:verify", "Look for damage in an output."),
    "export": ("onward.cli.export:export", "Write a checkpoint to one ordinary file."),
    "import": ("onward.cli.importing:import_", "Begin an output with a file from elsewhere."),
    "alias": ("onward.cli.alias:alias", "Give a checkpoint a name of your own."),
    "gate": ("onward.cli.gate:gate", "Compare a checkpoint with the champion."),
    "promote": ("onward.cli.promote:promote", "Make a checkpoint the champion, if it may be."),
    "rollback": ("onward.cli.promote:rollback", "Bring back the champion before this one."),
    "pin": ("onward.cli.pin:pin", "Keep a checkpoint whatever the rules say."),
    "unpin": ("onward.cli.pin:unpin", "Take such a pin away."),
    "drop": ("onward.cli.drop:drop", "Forget checkpoints and free their space."),
    "prune": ("onward.cli.prune:prune", "Keep checkpoints by rules, forget the others."),
    "report": ("onward.cli.report:report", "Show what each increment cost, and a retrain."),
    "audit": ("onward.cli.audit:audit", "Measure what a full retrain costs and scores."),
    "submit": ("onward.cli.submit:submit", "Submit a job to a server."),
    "ps": ("onward.cli.ps:ps", "List the jobs of a server."),
    "logs": ("onward.cli.logs:logs", "Show what a job printed, and follow it."),
    "wait": ("onward.cli.wait:wait", "Wait until jobs have ended."),
    "pause": ("onward.cli.asking:pause", "Save, and let jobs wait."),
    "resume": ("onward.cli.asking:resume", "Let paused jobs go on."),
    "stop": ("onward.cli.asking:stop", "Save, and end jobs."),
    "cancel": ("onward.cli.asking:cancel", "End jobs without another save."),
    "retry": ("onward.cli.asking:retry", "Submit again what jobs asked for."),
    "continue": ("onward.cli.asking:continue_", "Go on from a job that has ended."),
    "schedules": ("onward.cli.schedules:schedules", "Jobs by the clock, or when data changes."),
    "secrets": ("onward.cli.secrets:secrets", "Values that jobs get and nobody is shown."),
    "storages": ("onward.cli.storages:storages", "The places that jobs may name."),
    "tokens": ("onward.cli.tokens:tokens", "Who may use the server."),
    "webhooks": ("onward.cli.webhooks:webhooks", "Where moves of jobs are told."),
    "login": ("onward.cli.login:login", "Keep a server's address and token."),
    "serve": ("onward.cli.serve:serve", "Start the server: jobs for a team, and their console."),
    "server": ("onward.cli.server:server", "Back up a server, restore it, rebuild its index."),
    "doctor": ("onward.cli.doctor:doctor", "Check this machine, and that an output works."),
}


class Onward(click.Group):
    """A group whose commands are imported when called, and whose errors never are tracebacks."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> NoReturn:
        """Runs a command and exits with its status: 0, 1, 2, 3, 75 or 130."""
        given = list(sys.argv[1:] if args is None else args)
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a name that a terminal cannot show is no failure
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            outcome = as_outcome(error)
            if outcome is None:
                raise
            as_json = "--json" in given[: given.index("--") if "--" in given else len(given)]
            code = report(outcome, as_json=as_json)
        sys.exit(code if isinstance(code, int) else 0)


@click.group(
    cls=Onward,
    no_args_is_help=False,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
@click.version_option(__version__, message="onward %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Keep training, never start over.

    OUTPUT is where a model's training state is kept: a folder, or a URL such as
    s3://bucket/prefix (obs://, gs:// and az:// too).

    CHECKPOINT is an id or at least 4 of its digits, vN for the N-th, latest, best (by --metric),
    or an alias.

    Exit status: 0 done; 1 failed, or damage was found; 2 the command or its configuration is
    wrong; 3 a checkpoint lost what the champion knows; 75 stopped safely, the same command goes
    on; 130 stopped by Ctrl-C.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
