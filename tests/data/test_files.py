"""Files are listed in one order everywhere, and never read as what they are not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onward.data.files import (
    LocalFile,
    Stamp,
    StoredFile,
    digest_of_file,
    files_at,
    glob,
    local_files,
    stored_files,
)
from onward.errors import DataChanged, DataError
from onward.stores import FaultPlan, Faulty, MemoryStore


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("**/*", ["a", "b/c", "b/c/d.txt"], [".a", "b/.c", ".b/c", "b/.c/d"]),
        ("*.csv", ["x.csv"], ["x.csvs", "b/x.csv", ".csv", ".x.csv"]),
        ("**/*.csv", ["x.csv", "b/x.csv", "a/b/x.csv"], ["x.tsv", ".b/x.csv"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a", "a/.b"]),
        ("part-[0-2][!a].p?", ["part-1b.pq"], ["part-3b.pq", "part-1a.pq", "part-1b.p/"]),
        (".git*", [".gitignore"], ["git"]),
        ("a+(b)", ["a+(b)"], ["aab"]),
        ("[", ["["], ["a"]),
    ],
)
def test_globs_fit_whole_names(pattern: str, fitting: list[str], others: list[str]) -> None:
    """A glob means what shells mean by it; leading dots must be written."""
    expression = glob(pattern)
    assert [name for name in fitting + others if expression.fullmatch(name)] == fitting


def test_the_order_is_that_of_the_bytes_of_names(data: Path) -> None:
    """Whatever the file system says first, and whatever the language of the machine."""
    names = ["b", "B", "a-b", "a/b", "a/é", "aa", "a.txt"]
    for name in names:
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_bytes(b"")
    assert [file.name for file in local_files(data)] == sorted(names, key=os.fsencode)


def test_a_name_that_is_not_utf8_is_a_name(data: Path) -> None:
    """It can be listed, read and shown."""
    path = os.path.join(os.fsencode(data), b"caf\xe9.txt")
    with open(path, "wb") as file:
        file.write(b"x")
    (found,) = local_files(data)
    assert os.fsencode(found.name) == b"caf\xe9.txt"
    assert list(found.chunks(found.stamp())) == [b"x"]
    assert found.where.encode().endswith(b"caf\\xe9.txt")


def test_a_circle_a_broken_link_and_a_socket_are_errors(data: Path) -> None:
    """Data that cannot be told is refused, unless a pattern leaves it out."""
    (data / "good.csv").write_text("a\n1\n")
    (data / "lost").symlink_to(data / "nowhere")
    with pytest.raises(DataError, match="broken link"):
        local_files(data)
    assert [file.name for file in local_files(data, "*.csv")] == ["good.csv"]
    (data / "lost").unlink()
    os.mkfifo(data / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        local_files(data)
    with pytest.raises(DataError, match="neither a file nor a folder"):
        files_at(data / "pipe")
    (data / "pipe").unlink()
    (data / "up").symlink_to(data, target_is_directory=True)
    with pytest.raises(DataError, match="circle"):
        local_files(data)


def test_a_file_that_grows_while_it_is_read_is_an_error(data: Path) -> None:
    """A digest of something that never was must not be recorded."""
    path = data / "growing"
    path.write_bytes(b"x" * 100)
    (file,) = local_files(data)
    chunks = file.chunks(file.stamp())
    next(chunks)
    with path.open("ab") as more:
        more.write(b"y")
    with pytest.raises(DataChanged, match="100 bytes, then 101"):
        b"".join(chunks)


def test_a_file_that_changes_or_goes_after_listing_is_an_error(data: Path) -> None:
    """What was listed is what is read, or nothing is."""
    path = data / "file"
    path.write_bytes(b"old")
    (file,) = local_files(data)
    stamp = file.stamp()
    path.write_bytes(b"new!")
    with pytest.raises(DataChanged, match="3 bytes, then 4"):
        digest_of_file(file, stamp)
    path.unlink()
    for read in (file.stamp, lambda: file.open(stamp), lambda: file.read_at(0, 1)):
        with pytest.raises(DataChanged, match="has gone"):
            read()


def test_a_file_that_is_held_open_tells_when_it_is_written_to(data: Path) -> None:
    """Also where it was another one from the beginning."""
    path = data / "file"
    path.write_bytes(b"0123456789")
    for holds in (True, False):
        file = LocalFile(str(path), "file", holds)
        stamp = file.stamp()
        assert file.read_at(2, 3) == b"234"
        assert file.is_still(stamp)
        assert not file.is_still(Stamp(10, "another", 0))
        with path.open("r+b") as edited:
            edited.write(b"x" * (11 + holds))
        assert file.read_at(2, 3) == b"xxx"
        assert not file.is_still(stamp)
        path.write_bytes(b"0123456789")


def test_an_unreadable_file_is_named(data: Path) -> None:
    """With what to do."""
    path = data / "secret"
    path.write_bytes(b"x")
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    (file,) = local_files(data)
    with pytest.raises(DataError, match="secret cannot be read: Permission denied"):
        digest_of_file(file, file.stamp())


def test_an_object_is_read_once_and_whole() -> None:
    """Pieces of it cost the store nothing more; another version meanwhile is an error."""
    store = MemoryStore()
    for key in ("b/two.csv", "b/.hidden.csv", "one.csv"):
        store.put(key, [b"0123456789"], 10)
    plan = FaultPlan()
    faulty = Faulty(store, plan)
    files = stored_files(faulty, [*store.list("")], "**/*.csv")
    assert [file.name for file in files] == ["b/two.csv", "one.csv"]
    stamp = files[0].stamp()
    assert files[0].read_at(2, 3) == b"234"
    assert b"".join(files[0].chunks(stamp)) == files[0].open(stamp).read() == b"0123456789"
    assert plan.count("read") == 1

    store.put("one.csv", [b"9876543210"], 10)
    assert isinstance(files[1], StoredFile)
    with pytest.raises(DataChanged):
        files[1].read_at(0, 1)


def test_a_glob_in_a_path_lists_below_its_fixed_part(data: Path) -> None:
    """A path that is there is meant as it is, wildcards or not."""
    for name in ("part-1.csv", "part-2.csv", "rest.csv", "[1].csv"):
        (data / name).write_text("a\n")
    assert [file.name for file in files_at(data / "part-*.csv")] == ["part-1.csv", "part-2.csv"]
    assert [file.name for file in files_at(data / "[1].csv")] == ["[1].csv"]
    assert files_at(data / "nothing-*") == [] == files_at(data / "nowhere")
