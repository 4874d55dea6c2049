"""`onward data`: what a model has learned from. A group of commands, imported with them."""

from __future__ import annotations

import click

from onward.cli.data_diff import diff
from onward.cli.data_log import log
from onward.cli.data_seen import seen
from onward.cli.data_withdrawn import withdrawn

_SUMMARIES = {
    "seen": "Ask whether a model has learned from an item.",
    "diff": "Compare data, or a checkpoint, with what is learned.",
    "log": "List what each increment learned from.",
    "withdrawn": "Find the checkpoints that learned what is gone.",
}


class _Data(click.Group):
    """Names its commands in the order in which they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_SUMMARIES.items()))


@click.group(cls=_Data, no_args_is_help=False, invoke_without_command=True)
@click.pass_context
def data(ctx: click.Context) -> None:
    """Ask what a model has learned from, and what data changed since.

    Every checkpoint of a script that uses run.loader holds a ledger of the items it learned from.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


for _command in (seen, diff, log, withdrawn):
    data.add_command(_command)
