"""A bar on a terminal for what takes a while; nothing where nobody watches."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def byte_progress(
    label: str, total: Callable[[], int], *, hidden: bool = False
) -> Iterator[Callable[[int], None] | None]:
    """Yields what to call with each number of bytes done, or None if there is no one to see it.

    The bar is on standard error. `total` is asked only if there is a bar.
    """
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total())
        yield lambda done: bar.advance(task, done)
