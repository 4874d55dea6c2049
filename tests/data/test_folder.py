"""A folder is a dataset of files, known by their paths and their content."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from onward.data import Folder
from onward.errors import DataChanged, DataError, UsageError


def write(data: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def known(folder: Folder) -> set[bytes]:
    """The content halves of the items' 16 bytes, by which a rename is nothing."""
    digests = folder.snapshot().identified.digests
    assert digests is not None
    return {row[8:].tobytes() for row in digests}


def new(before: set[bytes], folder: Folder) -> list[str]:
    """The names of the items whose content is not among what was known `before`."""
    found = folder.snapshot()
    assert found.identified.digests is not None
    pairs = zip(found.names, found.identified.digests, strict=True)
    return [name for name, row in pairs if row[8:].tobytes() not in before]


def test_items_are_files_in_the_order_of_their_paths(data: Path) -> None:
    """`folder[i]` is what `read` makes of the path, and the i-th item of the snapshot."""
    write(data, {"b.txt": "2", "a/c.txt": "1", ".hidden": "x", "note.md": "y"})
    folder = Folder(data, pattern="**/*.txt")
    assert [*folder] == [b"1", b"2"]
    assert folder[-1] == b"2"
    assert Folder(data, read=lambda path: path.read_text(), pattern="*.md")[0] == "y"
    found = folder.snapshot()
    assert [*found.names] == ["a/c.txt", "b.txt"]
    assert (found.items, found.size_bytes, found.identified.kind) == (2, 2, "keyed")
    assert found is folder.snapshot()


def test_classes_are_folders_and_new_ones_may_come_last(data: Path) -> None:
    """Labels are indices of classes; the classes that a model knows keep theirs."""
    write(data, {"dog/1": "d", "cat/1": "c", "cat/deep/2": "c"})
    folder = Folder(data, classes=True)
    assert folder.classes == ["cat", "dog"]
    assert folder.labels is not None
    assert folder.labels.dtype == np.int64
    assert folder.labels.tolist() == [0, 0, 1]
    assert folder[2] == (b"d", 1)

    write(data, {"ant/1": "a"})
    grown = Folder(data, classes=folder.classes)
    assert grown.classes == ["cat", "dog", "ant"]
    assert grown[0] == (b"a", 2)


def test_a_file_without_a_class_is_named(data: Path) -> None:
    """Rather than given a class by chance."""
    write(data, {"cat/1": "c", "stray.txt": "?"})
    with pytest.raises(DataError, match=r"1 files lie in no class: .*stray\.txt"):
        Folder(data, classes=True)


def test_a_rename_and_a_touch_are_nothing(data: Path) -> None:
    """What is known is known under another name, and however new its times are."""
    write(data, {"a": "1", "b": "2"})
    before = known(Folder(data))
    (data / "a").rename(data / "z")
    os.utime(data / "b", (1, 1))
    assert new(before, Folder(data)) == []


def test_added_and_changed_files_are_new_and_removed_ones_nothing(data: Path) -> None:
    """Add 30, change 5, remove 2: exactly 35 are new."""
    write(data, {f"{number:03}": f"old {number}" for number in range(100)})
    before = known(Folder(data))
    write(data, {f"{number:03}": f"new {number}" for number in [*range(5), *range(100, 130)]})
    (data / "050").unlink()
    (data / "051").unlink()
    expected = [f"{number:03}" for number in [*range(5), *range(100, 130)]]
    assert new(before, Folder(data)) == expected


def test_with_classes_a_file_in_another_class_is_another_item(data: Path) -> None:
    """A label that was mended must be learned, though no byte of the file has changed."""
    write(data, {"cat/1": "x", "dog/2": "y"})
    before = known(Folder(data, classes=True))
    plain = known(Folder(data))
    (data / "cat" / "1").rename(data / "cat" / "9")
    assert new(before, Folder(data, classes=True)) == []
    (data / "cat" / "9").rename(data / "dog" / "1")
    assert new(before, Folder(data, classes=True)) == ["dog/1"]
    assert new(plain, Folder(data)) == []


def test_an_empty_folder_is_an_error_and_an_empty_file_an_item(data: Path) -> None:
    """Nothing to learn from is said at once."""
    with pytest.raises(DataError, match="the data is empty"):
        Folder(data)
    with pytest.raises(DataError, match="cannot be read"):
        Folder(data / "nowhere")
    (data / "empty").touch()
    assert [*Folder(data)] == [b""]
    with pytest.raises(DataError, match="the data is empty"):
        Folder(data, pattern="*.png")


def test_a_file_that_goes_before_the_snapshot_is_named(data: Path) -> None:
    """Indices would mean other items than the snapshot tells."""
    write(data, {"a": "1", "b": "2"})
    folder = Folder(data)
    (data / "a").unlink()
    with pytest.raises(DataChanged, match=r"a changed while it was read: .* has gone"):
        folder.snapshot()


def test_a_bucket_is_no_folder() -> None:
    """The message says how to get the files here."""
    with pytest.raises(UsageError, match="onward run --data"):
        Folder("s3://bucket/images")
