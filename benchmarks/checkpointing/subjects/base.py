"""The verbs that every library is measured through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.checkpointing.files import make_durable
from benchmarks.checkpointing.training import Training


class Subject:
    """One library, saving and restoring one training below one folder.

    Saves do not queue: the next begins after `wait`. What a library leaves to the operating
    system is made durable here, in a thread that begins when the library says that it is done,
    with the same fsyncs for every library: each file and each folder of the checkpoint.
    """

    name: ClassVar[str]
    asynchronous: ClassVar[bool] = True
    """Whether training goes on while a save is being written."""
    setup: ClassVar[str] = ""
    """How it is used, for the report."""

    def __init__(self, training: Training, folder: Path) -> None:
        self.training = training
        self.folder = folder
        self._settling = ThreadPoolExecutor(1, "settling")
        self._durable: Future[Any] | None = None

    # Saving.

    def begin(self) -> None:
        """What a script does once before its loop."""

    def inside(self, body: Callable[[], None]) -> None:
        """Runs the loop; a library with a loop of its own runs it inside of that."""
        body()

    def updating(self) -> AbstractContextManager[None]:
        """Surrounds `optimizer.step()`: where a library may wait before the state changes."""
        return nullcontext()

    def save(self, index: int) -> None:
        """Asks for checkpoint number `index`, as a loop does after a step."""
        raise NotImplementedError

    def done(self) -> bool:
        """Whether the last save is durable."""
        return self._durable is None or self._durable.done()

    def wait(self) -> None:
        """Returns when the last save is durable; raises if it failed."""
        if self._durable is not None:
            self._durable.result()

    def close(self) -> None:
        """Lets go of threads and processes."""
        self._settling.shutdown()

    # Restoring.

    variants: ClassVar[tuple[str, ...]] = ("",)
    """Ways to restore that are measured apart."""

    def prepare_restore(self, variant: str) -> None:
        """What is not part of restoring. Not timed."""

    def restore(self, index: int) -> None:
        """Brings the live objects, whose tensors exist, to checkpoint `index`."""
        raise NotImplementedError

    def end_restore(self) -> None:
        """Lets go of what a restore opened. Not timed."""

    # For those who write one file or folder per checkpoint; the last two are for PyTorch.

    def place(self, index: int) -> Path:
        return self.folder / f"checkpoint-{index:03d}"

    def settle(self, index: int, finished: Callable[[], Any] = lambda: None) -> None:
        """Makes checkpoint `index` durable in the background, once `finished()` returns."""

        def work() -> None:
            finished()
            make_durable(self.place(index))

        self._durable = self._settling.submit(work)

    def state(self) -> dict[str, Any]:
        """The usual state dictionary of a training script."""
        return {
            "model": self.training.model.state_dict(),
            "optimizer": self.training.optimizer.state_dict(),
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.training.model.load_state_dict(state["model"])
        self.training.optimizer.load_state_dict(state["optimizer"])
