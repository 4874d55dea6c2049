"""Where data is and how it is read, for the commands that compare it with a ledger."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def source_options(function: F) -> F:
    """--key, --format and --classes: how the script reads its data."""
    for option in (
        click.option("--classes", is_flag=True, help="Of a folder: its folders are classes."),
        click.option("--format", "format_", default="", metavar="NAME",
                     help="Of a table: csv, jsonl, …"),
        click.option("--key", "keys", multiple=True, metavar="COLUMN",
                     help="Of a table: what is the key."),
    ):  # fmt: skip
        function = option(function)
    return function


def snapshot_of(url: str, *, keys: tuple[str, ...], format_: str, classes: bool) -> Any:
    """The `DataSnapshot` of what is at `url` now."""
    # Imported only here: the other commands need no data.
    if classes:
        folder = importlib.import_module("onward.data.folder").Folder(url, classes=True)
        return folder.snapshot()
    sources = importlib.import_module("onward.data.sources")
    key = None if not keys else keys[0] if len(keys) == 1 else list(keys)
    return sources.open_source(url, key=key, format=format_ or None).snapshot()
