"""torch.distributed.checkpoint: asynchronous, with one stager that is used again and again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed import checkpoint
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions

from benchmarks.checkpointing.subjects.base import Subject
from benchmarks.checkpointing.training import Training


class Dcp(Subject):
    """Returns when all is copied. The files are synced by the library, the folders here."""

    name = "dcp"
    setup = "`async_save`, a reused `DefaultStager`, a writing thread per core"
    overlapping = False

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self._stager = DefaultStager(
            StagingOptions(
                use_pinned_memory=False,  # these three need an accelerator, or processes
                use_shared_memory=False,
                use_non_blocking_copy=False,
                use_async_staging=self.overlapping,
            )
        )

    def save(self, index: int) -> None:
        self._respond(
            index,
            checkpoint.async_save(
                self._named(),
                storage_writer=checkpoint.FileSystemWriter(
                    self.place(index), thread_count=os.cpu_count() or 1
                ),
                async_stager=self._stager,
                no_dist=True,
            ),
        )

    def _respond(self, index: int, response) -> None:
        self.settle(index, response.result)

    def close(self) -> None:
        super().close()
        self._stager.close()

    def restore(self, index: int) -> None:
        state = self._named()  # shares memory with the live tensors, which are filled in place
        checkpoint.load(
            state, storage_reader=checkpoint.FileSystemReader(self.place(index)), no_dist=True
        )
        optimizer = state["optimizer"]
        entries = {int(number): found for number, found in optimizer["state"].items()}
        self.load({"model": state["model"], "optimizer": optimizer | {"state": entries}})

    def _named(self) -> dict[str, Any]:
        # The library's paths are text: below a number it would put values beside the live ones.
        state = self.state()
        optimizer = state["optimizer"]
        entries = {str(number): found for number, found in optimizer["state"].items()}
        return state | {"optimizer": optimizer | {"state": entries}}


class DcpOverlapping(Dcp):
    """Copies while the next step runs forward and backward, and waits before its update."""

    name = "dcp-overlap"
    setup = "as `dcp`, staging in a thread, waited for before `optimizer.step()`"
    overlapping = True

    def __init__(self, training: Training, folder: Path) -> None:
        super().__init__(training, folder)
        self._staged = None

    def _respond(self, index: int, response) -> None:
        self._staged = response.staging_completion
        self.settle(index, response.upload_completion.result)

    @contextmanager
    def updating(self) -> Iterator[None]:
        if self._staged is not None:
            self._staged.result()
            self._staged = None
        yield
