"""Onward, as a script uses it: `onward.open`, `run.step`, `run.save`."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from benchmarks.checkpointing.subjects.base import Subject
from onward.frameworks import framework_for
from onward.repository import open_repository, read_state
from onward.stores import LocalStore
from onward.training.run import Run
from onward.training.session import open as open_run


class Onward(Subject):
    name = "onward"
    setup = "`run.save(wait=False)`; `onward.open`, every byte verified"
    variants = ("", "unverified")

    def begin(self) -> None:
        self._run = self._open()

    def _open(self) -> Run:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return open_run(self.folder, **self.training.objects(), **_NEVER)

    @contextmanager
    def updating(self) -> Iterator[None]:
        yield
        self._run.step()

    def save(self, index: int) -> None:
        self._run.wait()  # takes note of the one before, which is durable
        if self._run.save(f"number {index}", wait=False) is None:
            raise RuntimeError("this is no place to save")
        # Polling is not part of its interface; what becomes durable is in its saver's thread.
        self._durable = self._run._saves.saver._future

    def wait(self) -> None:
        super().wait()
        self._run.wait()

    def close(self) -> None:
        super().close()
        self._run.close()

    def prepare_restore(self, variant: str) -> None:
        self._variant = variant
        framework_for(self.training.objects().values())  # importing is not restoring

    def restore(self, index: int) -> None:
        """The newest checkpoint, which is the last that was saved."""
        if not self._variant:
            self._run = self._open()
            return
        objects = self.training.objects()
        framework = framework_for(objects.values())
        repository = open_repository(LocalStore(self.folder))
        newest = repository.history.latest()
        assert newest is not None
        state = read_state(
            repository.store, repository.manifest(newest), keys=objects,
            into=framework.destinations(objects), verify=False,
        )  # fmt: skip
        framework.restore(objects, state)

    def end_restore(self) -> None:
        if not self._variant:
            self._run.close()


_NEVER: dict[str, Any] = {"save_every_seconds": None, "save_every_epoch": False}
