"""An output on this machine: the folder itself is what the script sees."""

from __future__ import annotations

from collections.abc import Callable

from onward.jobs.display import Display
from onward.jobs.open_files import FileId
from onward.jobs.output import Pushed, existing_repository, refuse_start_over
from onward.jobs.scanning import Token, grows, move_aside, scan
from onward.jobs.selection import Selection
from onward.jobs.spec import JobSpec
from onward.jobs.torn_versions import newest_torn, torn_versions, versions, without
from onward.repository import History, Repository, Writer, open_or_create
from onward.repository.retention import Retention
from onward.repository.working import Lag
from onward.stores import LocalStore, parse
from onward.training.opening import Asked, Beginning
from onward.training.places import WorkingFolder


class FolderOutput:
    """An output on this machine: the folder itself."""

    def __init__(self, spec: JobSpec, display: Display) -> None:
        self._spec = spec
        self._display = display
        self._store = LocalStore(parse(spec.output).prefix)
        self._generation: int | None = None
        self._before: dict[str, Token] = {}
        self.folder = self._store.folder
        self.working: WorkingFolder | None = None
        self.pushed = Pushed()
        self.selection: Selection | None = None
        # Whatever is impossible must be said before the folder becomes an output.
        existing = existing_repository(self._store)
        refuse_start_over(spec, existing.history if existing else None)
        spec.asked().decide(existing)
        self._repository = open_or_create(self._store, single_writer=spec.single_writer)
        self._store.sweep_temporaries("onward/")

    def look(self) -> History:
        self._repository.refresh()
        return self._repository.history

    def catch_up(self) -> Repository:
        self._repository.refresh()
        return self._repository

    def bytes_to_fetch(self) -> int:
        return 0

    def prepare(self, asked: Asked) -> Beginning:
        tokens, _ = scan(self._store)
        for key, why in newest_torn(self._store, tokens).items():
            self._set_aside(key, why)
        self._before = scan(self._store)[0]
        return asked.decide(self._repository)

    def claim(self, who: str) -> Writer:
        writer = self._repository.claim(who)
        self._generation = writer.generation
        return writer

    def push(self, open_files: Callable[[], set[FileId]]) -> None:
        self._repository.refresh()
        self._repository.log.check_fence(self._generation)

    def push_rest(self, *, in_order: bool) -> None:
        found, _ = scan(self._store)
        changed = {key for key, token in found.items() if self._before.get(key) != token}
        torn = {} if in_order else torn_versions(self._store, changed, versions(found))
        for name, why in torn.items():
            self._set_aside(name, why)
        self.pushed.files += sum(not grows(key) for key in without(changed, torn))
        self._before |= found
        self._repository.refresh()
        self._repository.log.check_fence(self._generation)

    def crown(self, checkpoint: str, expected: str | None) -> None:
        return  # the script does it itself, too

    def keep(self, retention: Retention) -> None:
        return  # the script commits to this very folder, and keeps it to its rules itself

    def unpushed(self) -> list[str]:
        return []

    def lag(self) -> Lag:
        return Lag()

    def release(self) -> None:
        return

    def _set_aside(self, key: str, why: str) -> None:
        aside = move_aside(self._store, key, self.folder / "onward-torn")
        self._display.say(f"{key} is torn ({why}): moved to {aside}")
