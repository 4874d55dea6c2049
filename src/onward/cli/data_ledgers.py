"""The ledgers of a checkpoint, for the commands that ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from onward.cli.text import count

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")

SHOWN = 20


def loader_option(function: F) -> F:
    """--loader, where a script has several."""
    return click.option(
        "--loader", default="", metavar="NAME", help="Which loader's items, if there are several."
    )(function)


def unfinished_text(pinned: int | None, label: str) -> list[str]:
    """That what an increment is still about counts as known."""
    if pinned is None:
        return []
    return [f"the increment of {label} counts as finished, with {count(pinned, 'item')} to learn"]


def some(titled: str, names: Iterable[str], total: int, *, sign: str) -> list[str]:
    """A title and a line for each name; `names` may be fewer than `total`."""
    lines = [f"  {sign} {name}" for name in names]
    if not lines:
        return []
    if len(lines) < total:
        lines.append(f"  … {count(total - len(lines), 'more item')}: --all shows them")
    return ["", titled, *lines]
