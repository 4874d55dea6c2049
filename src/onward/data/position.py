"""What every loader of Onward offers to a run: a position, and hooks where the run sets in."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from onward.data.isolation import forget_spare_gaussian
from onward.errors import Mismatch


class PositionedLoader(ABC):
    """Iterates epoch by epoch, knows where it is, and can begin anywhere.

    The position is `epoch` and `batches_taken`: the batches of that epoch that were handed to the
    training loop, not those prefetched. At the end of an iteration the position stays at the end of
    its epoch, because the loop's own epoch may not be over; the next iteration begins the next
    epoch. So does one that follows an iteration that was broken off.

    `on_start` is called when an iteration begins, before anything is loaded.
    `on_first_batch` is called right before the first batch of an iteration is handed out (loaded
    already, so that loading cannot disturb what the hook sets up), or before the iteration ends if
    no batch was left. `on_wait` is called before every batch is handed out. An iteration ends early
    once `spent` says that the budget is.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.batches_taken = 0
        self.iterating = False
        """Whether a batch was handed out and the iteration has not ended."""
        self.on_start: Callable[[], None] | None = None
        self.spent: Callable[[], bool] | None = None
        self.on_first_batch: Callable[[], None] | None = None
        self.on_wait: Callable[[], None] | None = None
        self._placed = True

    def start_at(self, epoch: int, batch: int = 0) -> None:
        """Lets the next iteration begin at this batch, without loading the ones before it."""
        self.epoch, self.batches_taken = epoch, batch
        self._placed = True

    def __iter__(self) -> Iterator[Any]:
        if self.on_start is not None:
            self.on_start()
        if not self._placed and self.batches_taken:
            self.start_at(self.epoch + 1)
        self._placed = False
        first = self.batches_taken
        try:
            for number, batch in enumerate(self._batches(self.epoch, first), first):
                if self.spent is not None and self.spent():
                    break
                if self.on_wait is not None:
                    self.on_wait()
                if number == first and self.on_first_batch is not None:
                    self.on_first_batch()
                forget_spare_gaussian()
                self.batches_taken = number + 1
                self._handed_out()
                self.iterating = True
                yield batch
        finally:
            self.iterating = False
        if self.batches_taken == first and self.on_first_batch is not None:
            self.on_first_batch()

    def close(self) -> None:  # noqa: B027 - most have nothing to let go of
        """Ends data workers that were kept. The loader may be iterated again: it starts others."""

    def state_dict(self) -> dict[str, Any]:
        """The position, and the settings on which its meaning depends."""
        return {
            "epoch": self.epoch,
            "batch": self.batches_taken,
            "settings": self._settings(),
            **self._extra_state(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Lets the next iteration begin where `state_dict` was taken.

        Raises `Mismatch` if that is within an epoch and this loader would go on differently.
        """
        if state_dict["batch"]:
            self._check_settings(state_dict["settings"])
        self.start_at(state_dict["epoch"], state_dict["batch"])
        self._load_extra_state(state_dict)

    @abstractmethod
    def __len__(self) -> int:
        """The batches of a whole epoch."""

    @abstractmethod
    def _batches(self, epoch: int, first: int) -> Iterator[Any]:
        """The batches of `epoch` from `first` on."""

    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """What must be the same for a position within an epoch to mean the same."""

    def _handed_out(self) -> None:  # noqa: B027 - most need not count
        """A batch is about to be handed out, and counts as taken."""

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _load_extra_state(self, state_dict: Mapping[str, Any]) -> None:
        return None

    def _check_settings(self, stored: Mapping[str, Any]) -> None:
        live = self._settings()
        differences = [
            f"{name}: {stored.get(name)!r} in the checkpoint, {live.get(name)!r} now"
            for name in {**stored, **live}
            if stored.get(name) != live.get(name)
        ]
        if differences:
            raise Mismatch(
                "the loader cannot go on within the epoch that was interrupted",
                differences=differences,
                why="its batches would be other ones",
                do="resume with the same data and loader settings, and change them afterwards",
            )
