"""A snapshot of a folder changes if and only if what is in it changes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from onward.data.snapshot import snapshot_folder
from onward.errors import DataError


def folder(root: Path) -> Path:
    root.mkdir()
    (root / "b").mkdir()
    (root / "b" / "one.txt").write_bytes(b"1" * 3_000_000)
    (root / "b.txt").write_bytes(b"22")
    (root / "empty").mkdir()
    return root


def test_copies_have_one_digest_and_every_change_another(tmp_path: Path) -> None:
    """Names, contents and borders between files matter; times and places do not."""
    first = snapshot_folder(folder(tmp_path / "first"))
    root = folder(tmp_path / "second")
    os.utime(root / "b.txt", (0, 0))
    assert snapshot_folder(root) == first
    assert (first.items, first.size_bytes) == (2, 3_000_002)

    (root / "b.txt").write_bytes(b"23")
    changed = snapshot_folder(root)
    (root / "b.txt").rename(root / "c.txt")
    renamed = snapshot_folder(root)
    (root / "c.txt").unlink()
    removed = snapshot_folder(root)
    assert len({first.digest, changed.digest, renamed.digest, removed.digest}) == 4
    assert removed.items == 1


def test_a_single_file_is_a_snapshot_of_one_item(tmp_path: Path) -> None:
    """Data may be one file, as in `--data train.csv`."""
    file = tmp_path / "train.csv"
    file.write_bytes(b"a,b\n")
    found = snapshot_folder(file)
    assert (found.items, found.size_bytes, list(found.names)) == (1, 4, ["train.csv"])
    assert found == snapshot_folder(str(file))


def test_the_digest_of_known_data_never_changes(tmp_path: Path) -> None:
    """Outputs remember digests for years: a newer Onward must find the same."""
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "one.txt").write_bytes(b"1")
    (tmp_path / "b.txt").write_bytes(b"")
    whole = blake3(b"".join(
        b"%d:%s:%d:%s\n" % (len(name), name, len(content), blake3(content).digest())
        for name, content in [(b"b.txt", b""), (b"b/one.txt", b"1")]
    ))  # fmt: skip
    assert snapshot_folder(tmp_path).digest == whole.hexdigest()


def test_links_are_followed_unless_they_make_a_circle(tmp_path: Path) -> None:
    """A link counts as what it leads to; a circle and a broken link are typed errors."""
    root, copy = folder(tmp_path / "data"), folder(tmp_path / "copy")
    (root / "link").symlink_to(root / "b", target_is_directory=True)
    (copy / "link").mkdir()
    (copy / "link" / "one.txt").write_bytes(b"1" * 3_000_000)
    assert snapshot_folder(root) == snapshot_folder(copy)

    (root / "b" / "up").symlink_to(root, target_is_directory=True)
    with pytest.raises(DataError, match="circle"):
        snapshot_folder(root)
    (root / "b" / "up").unlink()
    (root / "b" / "lost").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match="broken link"):
        snapshot_folder(root)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    """A missing location is an error of data that names it."""
    with pytest.raises(DataError, match="nowhere cannot be read"):
        snapshot_folder(tmp_path / "nowhere")
