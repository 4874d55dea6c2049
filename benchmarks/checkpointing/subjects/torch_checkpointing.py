"""torch_checkpointing: copies in a thread into shared memory, writes in a process of its own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager

from torch_checkpointing.checkpoint_manager import CheckpointManager
from torch_checkpointing.checkpoint_writer import CheckpointWriterConfig
from torch_checkpointing.config import (
    AsyncCheckpointSaverConfig,
    CheckpointSaverConfig,
    SyncCheckpointSaverConfig,
)
from torch_checkpointing.storage.filesystem import LocalFileSystemStorageConfig

from benchmarks.checkpointing.subjects.base import Subject


class TorchCheckpointing(Subject):
    name = "torch_checkpointing"
    setup = (
        "`CheckpointManager`, staging prewarmed, `optimizer.step()` under `lock()`, a writing "
        "thread per core, direct I/O off (it does not write files of these sizes)"
    )

    def begin(self) -> None:
        writer = CheckpointWriterConfig(file_write_max_threads=os.cpu_count() or 1)
        self._saver = _manager(AsyncCheckpointSaverConfig(writer_config=writer))
        self._saver.prewarm_staging(self.state())

    def updating(self) -> AbstractContextManager[None]:
        return self._saver.lock()

    def save(self, index: int) -> None:
        writing = self._saver.save(str(self.place(index)), self.state())
        assert writing is not None
        self.settle(index, writing.result)

    def close(self) -> None:
        super().close()
        self._saver.close()

    def prepare_restore(self, variant: str) -> None:
        self._saver = _manager(SyncCheckpointSaverConfig())

    def restore(self, index: int) -> None:
        self.load(self._saver.load(str(self.place(index)), into=self.state()))

    def end_restore(self) -> None:
        self._saver.close()


def _manager(saving: CheckpointSaverConfig) -> CheckpointManager:
    storage = LocalFileSystemStorageConfig(use_direct_io=False)
    return CheckpointManager(CheckpointManager.Config(save=saving, storage_config=storage))
