"""`docs/cli.md`, made from the commands' own help: python -m onward.cli.reference > docs/cli.md"""

from __future__ import annotations

import click

from onward.cli.commands import COMMANDS, main

_WIDTH = 80
_HEAD = """# The commands

Made from `onward --help` by `python -m onward.cli.reference > docs/cli.md`; a test keeps it so.
"""


def reference() -> str:
    """The whole page: the help of `onward`, then that of every command."""
    parts = [_HEAD, "\n", _block(main, "onward", None)]
    with click.Context(main, info_name="onward", **main.context_settings) as parent:
        for name in COMMANDS:
            command = main.get_command(parent, name)
            assert command is not None
            parts.append(f"\n## onward {name}\n\n" + _block(command, name, parent))
    return "".join(parts)


def _block(command: click.Command, name: str, parent: click.Context | None) -> str:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH
    )
    return f"```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
