"""File systems for tests: one that fails on purpose, one that remembers what was done to it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from onward.stores import FaultPlan, FileSystem, RealFileSystem
from onward.stores.filesystem import Facts, Kind

Answer = TypeVar("Answer")


class FaultyFileSystem:
    """A file system with a plan of faults. Every operation counts, reading ones too."""

    def __init__(self, plan: FaultPlan | None = None, beneath: FileSystem | None = None) -> None:
        self.plan = plan or FaultPlan()
        self._beneath = beneath or RealFileSystem()
        self._open: set[int] = set()

    def end_process(self) -> None:
        """Close what is open, as the kernel does for a process that is gone."""
        for file in self._open:
            with suppress(OSError):
                os.close(file)
        self._open.clear()

    def make_folder(self, path: Path) -> None:
        self.plan.perform("make_folder", str(path), lambda: self._beneath.make_folder(path))

    def open_new(self, path: Path) -> int:
        return self.plan.perform("open_new", str(path), lambda: self._opened(path))

    def write(self, file: int, data: memoryview) -> int:
        return self.plan.perform("write", str(file), lambda: self._beneath.write(file, data))

    def bypass_cache(self, file: int, bypass: bool) -> bool:
        return self._beneath.bypass_cache(file, bypass)

    def fsync(self, file: int) -> None:
        self.plan.perform("fsync", str(file), lambda: self._beneath.fsync(file))

    def close(self, file: int) -> None:
        self.plan.perform("close", str(file), lambda: self._closed(file))

    def link(self, source: Path, target: Path) -> None:
        self.plan.perform("link", str(target), lambda: self._beneath.link(source, target))

    def replace(self, source: Path, target: Path) -> None:
        self.plan.perform("replace", str(target), lambda: self._beneath.replace(source, target))

    def unlink(self, path: Path) -> None:
        self.plan.perform("unlink", str(path), lambda: self._beneath.unlink(path))

    def unlink_abandoned(self, path: Path) -> bool:
        call = lambda: self._beneath.unlink_abandoned(path)  # noqa: E731
        return self.plan.perform("unlink_abandoned", str(path), call)

    def fsync_folder(self, path: Path) -> None:
        self.plan.perform("fsync_folder", str(path), lambda: self._beneath.fsync_folder(path))

    def read(self, path: Path, start: int, size_bytes: int | None, *, beneath: Path) -> bytes:
        call = lambda: self._beneath.read(path, start, size_bytes, beneath=beneath)  # noqa: E731
        return self.plan.perform("read", str(path), call)

    def open_existing(self, path: Path, *, beneath: Path) -> int:
        call = lambda: self._opened_existing(path, beneath)  # noqa: E731
        return self.plan.perform("open_existing", str(path), call)

    def read_into(self, file: int, start: int, target: memoryview) -> int:
        call = lambda: self._beneath.read_into(file, start, target)  # noqa: E731
        return self.plan.perform("read_into", str(file), call)

    def length(self, file: int) -> int:
        return self.plan.perform("length", str(file), lambda: self._beneath.length(file))

    def facts(self, path: Path) -> Facts:
        return self.plan.perform("facts", str(path), lambda: self._beneath.facts(path))

    def scan(self, path: Path) -> list[tuple[str, Kind]]:
        return self.plan.perform("scan", str(path), lambda: self._beneath.scan(path))

    def resolve(self, path: Path) -> Path:
        return self.plan.perform("resolve", str(path), lambda: self._beneath.resolve(path))

    def _opened(self, path: Path) -> int:
        file = self._beneath.open_new(path)
        self._open.add(file)
        return file

    def _opened_existing(self, path: Path, beneath: Path) -> int:
        file = self._beneath.open_existing(path, beneath=beneath)
        self._open.add(file)
        return file

    def _closed(self, file: int) -> None:
        self._open.discard(file)
        self._beneath.close(file)


@dataclass(frozen=True)
class Done:
    """One thing that changed: `verb` on `path`; `file` tells files apart whatever their names."""

    verb: str
    path: Path
    file: int = -1
    target: Path | None = None
    data: bytes = b""


class RecordingFileSystem(RealFileSystem):
    """The real file system, with a list of everything that changed it, in order.

    `deaf_to` names verbs (`fsync`, `fsync_folder`) that do nothing and are not recorded: mistakes
    that a test of durability must find.
    """

    def __init__(self, *, deaf_to: str = "") -> None:
        self.done: list[Done] = []
        self._deaf_to = deaf_to
        self._files: dict[int, int] = {}
        self._paths: dict[Path, int] = {}
        self._count = 0

    def make_folder(self, path: Path) -> None:
        super().make_folder(path)
        self.done.append(Done("make_folder", path))

    def open_new(self, path: Path) -> int:
        descriptor = super().open_new(path)
        self._count += 1
        self._files[descriptor] = self._paths[path] = self._count
        self.done.append(Done("open_new", path, self._count))
        return descriptor

    def write(self, file: int, data: memoryview) -> int:
        size_bytes = super().write(file, data)
        written = bytes(data[:size_bytes])
        self.done.append(Done("write", Path(), self._files[file], data=written))
        return size_bytes

    def fsync(self, file: int) -> None:
        if self._deaf_to != "fsync":
            super().fsync(file)
            self.done.append(Done("fsync", Path(), self._files[file]))

    def close(self, file: int) -> None:
        super().close(file)
        if file in self._files:  # those that are only read change nothing
            self.done.append(Done("close", Path(), self._files.pop(file)))

    def link(self, source: Path, target: Path) -> None:
        super().link(source, target)
        self._paths[target] = self._paths[source]
        self.done.append(Done("link", source, self._paths[source], target))

    def replace(self, source: Path, target: Path) -> None:
        super().replace(source, target)
        self._paths[target] = self._paths.pop(source)
        self.done.append(Done("replace", source, self._paths[target], target))

    def unlink(self, path: Path) -> None:
        super().unlink(path)
        self.done.append(Done("unlink", path, self._paths.pop(path)))

    def fsync_folder(self, path: Path) -> None:
        if self._deaf_to != "fsync_folder":
            super().fsync_folder(path)
            self.done.append(Done("fsync_folder", path))
