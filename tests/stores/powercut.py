"""What a disk may hold after a power cut: images made from recorded file operations.

A file's content is certain only as of its last fsync; what was written later may be there, partly
there, or there as zeros. A name is certain only as of the last fsync of its folder; each later
change of a name may have reached the disk or not, whatever happened to the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TypeAlias

from tests.stores.filesystems import Done

Image: TypeAlias = dict[Path, bytes]
_CONTENTS = ("durable", "all", "half", "zeros")
_FOLDER = 0


@dataclass
class _Folder:
    """Names that are certain, and changes of names that are not: name -> file, or `None`."""

    certain: dict[Path, int] = field(default_factory=dict)
    pending: list[dict[Path, int | None]] = field(default_factory=list)


@dataclass
class _File:
    certain: bytes = b""
    written: bytes = b""


def images(done: Sequence[Done], root: Path) -> Iterator[Image]:
    """Every different set of files below `root` that may be found if power goes after `done`."""
    folders, files = _replayed(done, root)
    seen: set[frozenset[tuple[Path, bytes]]] = set()
    kept_choices = [_subsets(len(folder.pending)) for folder in folders.values()]
    for kept in product(*kept_choices):
        names: dict[Path, int] = {}
        for folder, chosen in zip(folders.values(), kept, strict=True):
            names |= _names(folder, chosen)
        reachable = [path for path in names if _is_reachable(path, names, root)]
        for contents in _CONTENTS:
            image = {
                path: _content(files[names[path]], contents)
                for path in reachable
                if names[path] != _FOLDER
            }
            mark = frozenset(image.items())
            if mark not in seen:
                seen.add(mark)
                yield image


def _replayed(done: Sequence[Done], root: Path) -> tuple[dict[Path, _Folder], dict[int, _File]]:
    folders: dict[Path, _Folder] = {root: _Folder()}
    files: dict[int, _File] = {}

    def change(path: Path, changes: dict[Path, int | None]) -> None:
        folders[path.parent].pending.append(changes)

    for each in done:
        if each.verb == "make_folder":
            folders[each.path] = _Folder()
            change(each.path, {each.path: _FOLDER})
        elif each.verb == "open_new":
            files[each.file] = _File()
            change(each.path, {each.path: each.file})
        elif each.verb == "write":
            files[each.file].written += each.data
        elif each.verb == "fsync":
            files[each.file].certain = files[each.file].written
        elif each.verb == "link":
            assert each.target is not None
            change(each.target, {each.target: each.file})
        elif each.verb == "replace":
            assert each.target is not None
            change(each.target, {each.path: None, each.target: each.file})
        elif each.verb == "unlink":
            change(each.path, {each.path: None})
        elif each.verb == "fsync_folder" and each.path in folders:
            folder = folders[each.path]
            folder.certain = _names(folder, range(len(folder.pending)))
            folder.pending = []
    return folders, files


def _names(folder: _Folder, chosen: Sequence[int]) -> dict[Path, int]:
    names = dict(folder.certain)
    for number in chosen:
        for path, file in folder.pending[number].items():
            if file is None:
                names.pop(path, None)
            else:
                names[path] = file
    return names


def _subsets(count: int) -> list[list[int]]:
    assert count <= 6, "too many changes of names without an fsync of their folder"
    return [[n for n in range(count) if mask >> n & 1] for mask in range(1 << count)]


def _is_reachable(path: Path, names: dict[Path, int], root: Path) -> bool:
    return path.parent == root or (path.parent in names and _is_reachable(path.parent, names, root))


def _content(file: _File, contents: str) -> bytes:
    later = file.written[len(file.certain) :]
    if contents == "durable":
        return file.certain
    if contents == "half":
        return file.certain + later[: len(later) // 2]
    if contents == "zeros":
        return file.certain + bytes(len(later))
    return file.written
