"""Arguments and options that several commands share, and the JSON they all can write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def output_argument(function: F) -> F:
    """OUTPUT: a folder or a URL."""
    return click.argument("output", metavar="OUTPUT")(function)


def json_option(function: F) -> F:
    """--json, which every command has."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON object instead of text.")(
        function
    )


def best_options(function: F) -> F:
    """What `best` means: a metric, and which end of it."""
    lowest = click.option("--lowest", is_flag=True, help="For CHECKPOINT best: lower is better.")
    metric = click.option(
        "--metric", default="", metavar="NAME", help="For CHECKPOINT best: the metric that decides."
    )
    return metric(lowest(function))


def single_writer_option(function: F) -> F:
    """The promise that a store without create-if-absent needs."""
    return click.option(
        "--single-writer",
        is_flag=True,
        help="Promise that nothing else writes there, for stores that cannot keep two apart.",
    )(function)


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """A callback for options such as 90s, 30m, 2h or 1d: seconds."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smhd]?)", value)
    if match is None:
        message = f"{value!r} is not a duration such as 0, 90s, 30m, 2h or 1d"
        raise click.BadParameter(message, ctx, param)
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}[match[2]]


def size_bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """A callback for options such as 0, 500kB or 10MB: bytes, in units of a thousand."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15})(|k|kB|M|MB|G|GB|B)", value)
    if match is None:
        raise click.BadParameter(f"{value!r} is not a size such as 0, 500kB or 10MB", ctx, param)
    return int(match[1]) * {"": 1, "k": 1000, "M": 10**6, "G": 10**9}[match[2].removesuffix("B")]


def grace_option(function: F) -> F:
    """How long bytes that nobody needs any more stay for whoever is reading them."""
    return click.option(
        "--grace",
        "grace_s",
        callback=duration,
        metavar="DURATION",
        help="How long dropped bytes stay for readers: 90s, 30m, 2h; 0 deletes at once. "
        "By default 1h on object stores, 0 in folders, where readers hold files open.",
    )(function)


def write_json(document: Any) -> None:
    """One line on standard output; plain ASCII, so that nothing in it acts on a terminal."""
    click.echo(json.dumps(document, allow_nan=False, separators=(",", ":")))


def write_lines(lines: list[str]) -> None:
    """Lines on standard output, all at once."""
    if lines:
        click.echo("\n".join(lines))
