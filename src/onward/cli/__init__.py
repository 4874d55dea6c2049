"""The command `onward`. Each subcommand is a file here, imported only when it is used."""

from onward.cli.commands import main

__all__ = ["main"]
