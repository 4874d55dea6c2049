"""Between Lightning's loops and Onward: the batches they are given, and where they are.

Lightning has no hook that is called when all is said and done about a batch: callbacks of
`on_train_batch_end` come before validation, before schedulers that look at a metric, before the
batch counts as completed. What is asked for the *next* batch is asked then. So a run counts, saves
and restores there, in the one place where the state of all loops is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lightning.pytorch.loops.loop import _Loop
from lightning.pytorch.loops.progress import _BaseProgress
from lightning.pytorch.utilities import CombinedLoader

from onward.data.torch import Positioned, PositionedLoader
from onward.errors import UsageError
from onward.training.run import Run


@dataclass(frozen=True)
class Wanted:
    """A loader of Onward's that is made once the output is open: what `run.loader` is told."""

    dataset: Any
    options: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        raise UsageError(
            "how many batches an epoch has is not known before the output is open",
            why="what is new in the data, and how much of the old is mixed in, stands in there",
            do="build the scheduler without trainer.estimated_stepping_batches, or leave it away "
            "and let Onward plan: OnwardCallback(…, plan=3)",
        )


class Feed:
    """The train loader that Lightning sees: gives batches, and calls `before_batch` before each.

    It may be iterated as often as Lightning likes; nothing happens before a batch is asked for.
    `before_batch` is told whether the batch is the first one of an iteration.
    """

    def __init__(self, loader: Any, before_batch: Callable[[bool], None]) -> None:
        self.loader = loader
        self.positioned: Any = None
        self._before_batch = before_batch
        self._source: Any = None

    def bind(self, run: Run) -> None:
        """Takes the batches from the run, at its position."""
        if isinstance(self.loader, Wanted):
            self.positioned = run.loader(self.loader.dataset, **self.loader.options)
        elif isinstance(self.loader, PositionedLoader):
            self.positioned = self.loader
        else:
            self.positioned = run.batches(self.loader)

    def __len__(self) -> int:
        return len(self.loader if self.positioned is None else self.positioned)

    def __getattr__(self, name: str) -> Any:
        # Modules read `trainer.train_dataloader.dataset`. The position is the run's to keep.
        if name.startswith("_") or name in ("state_dict", "load_state_dict", "loader"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        return _Iteration(self)

    def begin(self) -> None:
        """Begins an iteration of the run's loader, where that has its position."""
        self.end()
        self._source = iter(self.positioned)

    def end(self) -> None:
        """Breaks off the iteration, if there is one."""
        if self._source is not None:
            self._source.close()
            self._source = None

    def batch(self, first: bool) -> Any:
        self._before_batch(first)
        if self._source is None:
            self.begin()
        return next(self._source)


class _Iteration:
    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._first = True

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        first, self._first = self._first, False
        return self._feed.batch(first)


class Evaluated:
    """A validation loader whose randomness follows from the step, for any number of workers.

    What it draws is not taken from the generators that training goes on with.
    """

    def __init__(self, loader: Any, step: Callable[[], int]) -> None:
        self.loader = loader
        self._positioned = Positioned(loader, seed=0, increment=0)
        self._step = step

    def __len__(self) -> int:
        return len(self.loader)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in ("state_dict", "load_state_dict", "loader"):
            raise AttributeError(name)
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Any]:
        self._positioned.start_at(self._step(), 0)
        yield from self._positioned

    def close(self) -> None:
        """Ends workers that were kept."""
        self._positioned.close()


def evaluated(found: Any, step: Callable[[], int]) -> tuple[Any, list[Evaluated]]:
    """What a `val_dataloader` hook gave, with every loader in it evaluated as above; and those."""
    if found is None:
        return found, []
    combined = found if isinstance(found, CombinedLoader) else CombinedLoader(found, "sequential")
    users = [part.loader if isinstance(part, Evaluated) else part for part in combined.flattened]
    wrapped = [Evaluated(loader, step) for loader in users]
    combined.flattened = wrapped
    return combined, wrapped


# Where the loops are.


def go_back_to_start(loop: Any) -> None:
    """Lets a fit loop that has run in this process, or not, count from zero."""
    for part in vars(loop).values():
        if isinstance(part, _BaseProgress):
            part.reset()
        elif isinstance(part, _Loop):
            go_back_to_start(part)
    if hasattr(loop, "epoch_loop"):
        loop.epoch_loop._batches_that_stepped = 0


def set_epoch(loop: Any, state: Mapping[str, Any]) -> None:
    """Lets a fit loop begin with the epoch that was going on, which it has not entered yet."""
    progress = loop.epoch_progress
    progress.load_state_dict(state["epoch_progress"])
    progress.total.reset_on_restart()
    progress.current.reset_on_restart()


def load_progress(loop: Any, state: Mapping[str, Any]) -> None:
    """Sets every counter of a fit loop, in the midst of it; `state` is from its `state_dict`.

    Lightning's own `load_state_dict` would have it restart as well: guess from the counters in
    which hook it was saved, and pass over a validation that was due.
    """
    for key, value in state.items():
        *path, name = key.split(".")
        owner = loop
        for part in path:
            owner = getattr(owner, part)
        if name == "state_dict":
            owner.on_load_checkpoint(value)
        else:
            getattr(owner, name).load_state_dict(value)
