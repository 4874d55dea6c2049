"""Processes that load batches ahead of the loop, in order, for frameworks without a loader of
their own for Python datasets.

They are forked, so that a dataset costs no copy, and live as long as the loader that uses them. A
worker ends when the process that it works for is gone, however that ended.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from onward.errors import DataError

Job = tuple[int, Any]
"""A batch to load: its seed, and what it holds."""

_LOOK_EVERY_S = 1.0
_AHEAD = 2  # batches for each worker

_load: Callable[[Job], Any] | None = None  # in a worker: what it was forked to do


class Workers:
    """`count` processes that call `load` for jobs; results come in the order of the jobs."""

    def __init__(self, load: Callable[[Job], Any], count: int) -> None:
        self._load = load
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def start(self) -> None:
        """Starts the processes now: they are forked by the thread that calls this."""
        if self._pool is None:
            self._started().submit(_nothing)

    def fetch(self, jobs: Iterator[Job]) -> Iterator[Any]:
        """What `load` gives for each job. Raises `DataError` if a worker dies."""
        pool = self._started()
        waiting: deque[Future[Any]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(_work, job))
                if len(waiting) > _AHEAD * self._count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            self.close()
            raise DataError(
                "a data worker died",
                why="it was killed, ran out of memory, or the dataset crashed it",
                do="load with num_workers=0 to see what happens, or with fewer workers",
            ) from error
        finally:
            for future in waiting:
                future.cancel()

    def close(self) -> None:
        """Ends the workers; others are started when they are needed."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _started(self) -> ProcessPoolExecutor:
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._count,
                mp_context=multiprocessing.get_context("fork"),
                initializer=_begin,
                initargs=(self._load, os.getpid()),
            )
        return self._pool


def _begin(load: Callable[[Job], Any], parent: int) -> None:
    global _load
    _load = load
    # The training process decides what a signal means; its workers go on until it is gone.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(0)


def _nothing() -> None:
    """Executors fork when they are first given work."""


def _work(job: Job) -> Any:
    assert _load is not None
    return _load(job)
