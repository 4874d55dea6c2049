"""Onward, as a script uses it: `onward.open`, `run.step`, `run.save`."""

from __future__ import annotations

import contextlib
import inspect
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

_WAITS = hasattr(Run, "wait")
_UNVERIFIED = "verify" in inspect.signature(read_state).parameters


class Onward(Subject):
    name = "onward"
    asynchronous = _WAITS
    setup = "`run.save(wait=False)`; `onward.open`, every byte verified"
    variants = ("", "unverified") if _UNVERIFIED else ("",)

    def begin(self) -> None:
        self._run = self._open()

    def _open(self) -> Run:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return open_run(self.folder, **self._objects(), **_NEVER)

    def _objects(self) -> dict[str, Any]:
        return {"model": self.training.model, "optimizer": self.training.optimizer}

    @contextmanager
    def updating(self) -> Iterator[None]:
        yield
        self._run.step()

    def save(self, index: int) -> None:
        if _WAITS:
            self._run.save(f"number {index}", wait=False)
            # Polling is not part of its interface: one thread waits, for `done`.
            self._durable = self._settling.submit(self._run.wait)
        elif self._run.save(f"number {index}") is None:
            raise RuntimeError("this is no place to save")

    def close(self) -> None:
        super().close()
        self._run.close()

    def prepare_restore(self, variant: str) -> None:
        self._variant = variant

    def restore(self, index: int) -> None:
        """The newest checkpoint, which is the last that was saved."""
        if not self._variant:
            self._run = self._open()
            return
        repository = open_repository(LocalStore(self.folder))
        newest = repository.history.latest()
        assert newest is not None
        state = read_state(
            repository.store, repository.manifest(newest), keys=self._objects(), verify=False
        )
        framework_for(self._objects().values()).restore(self._objects(), state)

    def end_restore(self) -> None:
        if not self._variant:
            self._run.close()


_NEVER: dict[str, Any] = {"save_every_seconds": None, "save_every_epoch": False}
