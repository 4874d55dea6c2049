"""Unchanged files are not read again, and no cache, however odd, changes what a snapshot says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from onward.data.files import local_files
from onward.data.folder import Folder
from onward.data.listing import RACY_NS, Listing, keep, read_kept
from onward.data.snapshot import DataSnapshot, snapshot_folder
from onward.data.table import Table
from tests.data.opening import opened_below


def fill(data: Path, count: int = 5) -> None:
    for number in range(count):
        (data / f"{number}.txt").write_text(f"content {number}")


def snapshot(data: Path) -> tuple[DataSnapshot, list[str]]:
    """The snapshot, and which files were read for it."""
    with opened_below(data) as opened:
        found = Folder(data).snapshot()
    return found, opened


@pytest.mark.usefixtures("settled")
def test_only_what_changed_is_read(data: Path) -> None:
    """Added, changed, touched and renamed files are; all else is not."""
    fill(data)
    first, read = snapshot(data)
    assert read == ["0.txt", "1.txt", "2.txt", "3.txt", "4.txt"]
    assert snapshot(data) == (first, [])

    (data / "1.txt").write_text("another")
    (data / "2.txt").unlink()
    (data / "3.txt").rename(data / "3b.txt")
    (data / "5.txt").write_text("more")
    os.utime(data / "4.txt", (1, 1))
    second, read = snapshot(data)
    assert read == ["1.txt", "3b.txt", "4.txt", "5.txt"]
    assert second.items == 5
    assert snapshot(data) == (second, [])


@pytest.mark.usefixtures("settled")
def test_snapshots_of_parts_of_a_folder_share_what_they_know(data: Path) -> None:
    """A job looks at all of it, its script at some."""
    fill(data)
    (data / ".hidden").write_text("x")
    for expected in (6, 0):
        with opened_below(data) as opened:
            snapshot_folder(data)
            Folder(data).snapshot()
            Folder(data, pattern="[0-2].txt").snapshot()
        assert len(opened) == expected


def test_what_changed_just_now_is_not_believed_to_stay(data: Path) -> None:
    """A second change within the clock's tick has the same stamp, as in Git's racy index."""
    fill(data, 1)
    (file,) = local_files(data)
    stamp = file.stamp()
    for wait_ns, reads in ((RACY_NS - 1, 1), (RACY_NS, 1), (RACY_NS, 0)):
        listing = Listing(data.parent / "cache", now_ns=lambda: stamp.changed_ns + wait_ns)  # noqa: B023
        with opened_below(data) as opened:
            listing.digest(file)
        assert len(opened) == reads
        listing.save()


@pytest.mark.usefixtures("settled")
@pytest.mark.parametrize("damage", ["empty", "torn", "flipped", "foreign", "nonsense", "folder"])
def test_a_damaged_cache_only_costs_reading(data: Path, damage: str) -> None:
    """It is found by its digest, passed over and written anew."""
    fill(data, 2)
    (data / "t.csv").write_text("id,x\n1,2\n")
    first, _ = snapshot(data)
    rows = Table(data / "t.csv", key="id").snapshot()
    home = Path(os.environ["ONWARD_HOME"])
    kept = [path for path in home.rglob("*") if path.is_file()]
    assert len(kept) == 3
    for path in kept:
        content = path.read_bytes()
        match damage:
            case "empty":
                path.write_bytes(b"")
            case "torn":
                path.write_bytes(content[: len(content) // 2])
            case "flipped":
                path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
            case "foreign":
                path.write_bytes(b"SQLite format 3\0" + content)
            case "nonsense":
                keep(path, b"\xff\x01\x02 whole, but nothing that anyone wrote")
            case "folder":
                path.unlink()
                path.mkdir()
    again, read = snapshot(data)
    assert again == first
    assert len(read) == 3
    assert Table(data / "t.csv", key="id").snapshot() == rows
    if damage != "folder":
        assert snapshot(data) == (first, [])


def test_a_cache_that_cannot_be_written_is_no_error(data: Path, tmp_path: Path) -> None:
    """A snapshot is then only slower."""
    fill(data)
    cache = tmp_path / "cache"
    cache.mkdir(mode=0o500)
    if os.access(cache, os.W_OK):
        pytest.skip("this user may write everywhere")
    assert Folder(data, cache=cache).snapshot() == Folder(data).snapshot()


def test_a_cache_in_the_place_of_a_file_is_no_error(data: Path, tmp_path: Path) -> None:
    """Nor is one whose folder cannot even be made."""
    fill(data)
    (tmp_path / "file").write_text("")
    assert Folder(data, cache=tmp_path / "file").snapshot() == Folder(data).snapshot()


@pytest.mark.usefixtures("settled")
def test_what_is_not_used_any_more_is_forgotten(data: Path, tmp_path: Path) -> None:
    """Rows of files that have gone, and caches that nobody asked for in two months."""
    table, cache = data / "t.csv", tmp_path / "cache"
    unused, foreign = cache / "snapshots" / ("0" * 32), cache / "snapshots" / "my-models"
    for folder in (unused, foreign):
        folder.mkdir(parents=True)
        (folder / "listing").write_text("")
        os.utime(folder, (1, 1))
    table.write_text("a\n1\n")
    Table(table, cache=cache).snapshot()
    assert not unused.exists()
    assert (foreign / "listing").exists()
    (folder,) = (cache / "snapshots").glob("?" * 32)
    (old,) = [path for path in folder.iterdir() if path.name != "listing"]
    os.utime(old, (1, 1))
    table.write_text("a\n2\n")
    Table(table, cache=cache).snapshot()
    assert not old.exists()
    assert len([*folder.iterdir()]) == 2


def test_processes_at_once_do_no_harm(data: Path) -> None:
    """Each gets the right snapshot, and what they leave is whole."""
    fill(data, 200)
    (data / "t.csv").write_text("id\n" + "".join(f"{number}\n" for number in range(5000)))
    code = (
        "import sys; from onward.data import Folder, Table, listing\n"
        "listing.RACY_NS = -3600 * 10**9\n"
        "for _ in range(5):\n"
        "    files = Folder(sys.argv[1]).snapshot().digest\n"
        "    rows = Table(sys.argv[1] + '/t.csv', key='id').snapshot().digest\n"
        "print(files, rows)\n"
    ).replace("Folder, Table, listing", "Folder, Table; from onward.data import listing")
    command = [sys.executable, "-c", code, str(data)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=60)[0] for process in running}
    files, rows = Folder(data).snapshot().digest, Table(data / "t.csv", key="id").snapshot().digest
    assert answers == {f"{files} {rows}\n"}
    for path in Path(os.environ["ONWARD_HOME"]).rglob("*"):
        assert path.is_dir() or read_kept(path) is not None
