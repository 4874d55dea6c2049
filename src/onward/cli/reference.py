"""`docs/cli.md`, made from the commands' own help: python -m onward.cli.reference > docs/cli.md"""

from __future__ import annotations

from collections.abc import Iterator

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
            parts += _sections(command, name, parent)
    return "".join(parts)


def _sections(command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """The help of a command, and where it is a group, of each command in it."""
    path = f"{parent.command_path} {name}"
    yield f"\n## {path}\n\n" + _block(command, name, parent)
    if isinstance(command, click.Group):
        with click.Context(command, info_name=name, parent=parent) as context:
            for inner in command.list_commands(context):
                found = command.get_command(context, inner)
                assert found is not None
                yield from _sections(found, inner, context)


def _block(command: click.Command, name: str, parent: click.Context | None) -> str:
    context = command.make_context(
        name, [], parent=parent, resilient_parsing=True, terminal_width=_WIDTH
    )
    return f"```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)
