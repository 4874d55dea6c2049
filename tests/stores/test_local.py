"""A folder as a store: the order of its operations, its faults, its links, its leftovers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from onward.errors import (
    AlreadyExists,
    BadURL,
    Missing,
    NoSpace,
    OnwardError,
    ReadOnly,
    StoreError,
    Unreachable,
    UnsafeStore,
)
from onward.stores import (
    Died,
    Fault,
    FaultPlan,
    LocalStore,
    RealFileSystem,
    dies,
    holding,
    honours_create,
    local,
    read_into,
)
from onward.stores.fault import When
from tests.stores.filesystems import FaultyFileSystem, RecordingFileSystem

OLD, NEW = b"old", b"the new one"


def _put(store: LocalStore) -> None:
    store.put("a/b", [NEW[:4], NEW[4:]], len(NEW))


def _create(store: LocalStore) -> None:
    store.create("a/b", NEW)


def _verbs(filesystem: RecordingFileSystem) -> list[str]:
    return [done.verb for done in filesystem.done]


def _leftovers(folder: Path) -> list[Path]:
    return [*folder.rglob(".tmp-*")]


def _error_of(act: Callable[[LocalStore], None], store: LocalStore) -> OnwardError | None:
    try:
        act(store)
    except OnwardError as error:
        return error
    return None


# --- order of operations


def test_order_of_a_create_in_a_new_folder(tmp_path: Path) -> None:
    """Folders first and durable, then the content, then the name, then the temporary goes."""
    filesystem = RecordingFileSystem()
    _create(LocalStore(tmp_path / "out", filesystem=filesystem))
    assert _verbs(filesystem) == [
        *["make_folder", "fsync_folder"] * 2,
        *["open_new", "write", "fsync", "close", "link", "fsync_folder", "unlink"],
    ]
    link = filesystem.done[-3]
    assert link.target == tmp_path / "out/a/b"
    assert link.path.parent == tmp_path / "out/a"


def test_order_of_a_put_in_a_known_folder(tmp_path: Path) -> None:
    """A folder is settled once; then a put is the content, the name, the name's durability."""
    filesystem = RecordingFileSystem()
    store = LocalStore(tmp_path / "out", filesystem=filesystem)
    _create(store)
    filesystem.done.clear()
    _put(store)
    expected = ["open_new", "write", "write", "fsync", "close", "replace", "fsync_folder"]
    assert _verbs(filesystem) == expected


def test_order_of_a_create_that_finds_something(tmp_path: Path) -> None:
    """What stands there is made durable before its existence is reported."""
    filesystem = RecordingFileSystem()
    store = LocalStore(tmp_path / "out", filesystem=filesystem)
    _create(store)
    filesystem.done.clear()
    with pytest.raises(AlreadyExists):
        _create(store)
    assert _verbs(filesystem)[-2:] == ["fsync_folder", "unlink"]


def test_short_writes(tmp_path: Path) -> None:
    """What the system did not take at once is written in the next call."""

    class Short(RealFileSystem):
        def write(self, file: int, data: memoryview) -> int:
            return super().write(file, data[:3])

    store = LocalStore(tmp_path, filesystem=Short())
    _put(store)
    assert store.read("a/b") == NEW


def test_bytes_that_the_system_says_are_not_there(tmp_path: Path) -> None:
    """The length is believed only as the file system reports it."""

    class Losing(RealFileSystem):
        def write(self, file: int, data: memoryview) -> int:
            super().write(file, data[:-1])
            return len(data)

    store = LocalStore(tmp_path, filesystem=Losing())
    with pytest.raises(StoreError, match="10 of 11 bytes"):
        _create(store)
    assert [*store.list("")] == []
    assert _leftovers(tmp_path) == []


# --- faults at every operation


def _operations(tmp_path: Path, act: Callable[[LocalStore], None], *, before: bool) -> int:
    folder = tmp_path / "counted"
    if before:
        LocalStore(folder).put("a/b", [OLD], len(OLD))
    filesystem = FaultyFileSystem()
    act(LocalStore(folder, filesystem=filesystem))
    return filesystem.plan.count()


_SITUATIONS = [
    pytest.param(_create, False, id="create"),
    pytest.param(_put, False, id="put-new"),
    pytest.param(_put, True, id="put-over"),
]
_WHENS: list[When] = ["before", "after"]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EROFS, errno.ESTALE])
@pytest.mark.parametrize("when", _WHENS)
@pytest.mark.parametrize(("act", "before"), _SITUATIONS)
def test_error_at_each_operation(
    tmp_path: Path, act: Callable[[LocalStore], None], before: bool, when: When, code: int
) -> None:
    """Wherever it fails, it says so in a typed error, the key is old or new, and a retry works."""
    for at in range(1, _operations(tmp_path, act, before=before) + 1):
        folder = tmp_path / f"fault-{at}"
        healthy = LocalStore(folder)
        if before:
            healthy.put("a/b", [OLD], len(OLD))
        fault = Fault(at, when, error=lambda: OSError(code, os.strerror(code)))
        filesystem = FaultyFileSystem(FaultPlan(fault))
        raised = _error_of(act, LocalStore(folder, filesystem=filesystem))
        assert raised is None or isinstance(raised.__cause__, OSError)
        filesystem.end_process()

        verbs = [call.verb for call in filesystem.plan.calls]
        assert verbs.count("fsync") <= 1, "a failed fsync is never retried"
        held = {entry.key: healthy.read(entry.key) for entry in healthy.list("")}
        if raised is None:
            assert held == {"a/b": NEW}
        elif before:
            assert held in ({"a/b": OLD}, {"a/b": NEW})
        else:
            assert held in ({}, {"a/b": NEW})
        failed = verbs[at - 1]
        if failed not in ("unlink", "open_new"):  # which may have made a file whose name it lost
            assert _leftovers(folder) == []

        healthy.sweep_temporaries()
        assert _leftovers(folder) == []
        if not (act is _create and held):
            act(healthy)
        assert healthy.read("a/b") == NEW


@pytest.mark.parametrize("when", _WHENS)
@pytest.mark.parametrize(("act", "before"), _SITUATIONS)
def test_death_at_each_operation(
    tmp_path: Path, act: Callable[[LocalStore], None], before: bool, when: When
) -> None:
    """Wherever the process dies, the key is old or new, and what it leaves can be swept."""
    for at in range(1, _operations(tmp_path, act, before=before) + 1):
        folder = tmp_path / f"death-{at}"
        healthy = LocalStore(folder)
        if before:
            healthy.put("a/b", [OLD], len(OLD))
        filesystem = FaultyFileSystem(FaultPlan(dies(at, when=when)))
        with pytest.raises(Died):
            act(LocalStore(folder, filesystem=filesystem))
        filesystem.end_process()

        held = {entry.key: healthy.read(entry.key) for entry in healthy.list("")}
        assert held in ({"a/b": OLD} if before else {}, {"a/b": NEW})
        assert healthy.sweep_temporaries() == len(_leftovers(folder)) or _leftovers(folder) == []
        assert {entry.key: healthy.read(entry.key) for entry in healthy.list("")} == held


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (errno.ENOSPC, NoSpace),
        (errno.EDQUOT, NoSpace),
        (errno.EROFS, ReadOnly),
        (errno.EACCES, ReadOnly),
        (errno.EPERM, ReadOnly),
        (errno.ESTALE, Unreachable),
        (errno.ETIMEDOUT, Unreachable),
        (errno.EIO, StoreError),
        (errno.ENAMETOOLONG, StoreError),
    ],
)
def test_errors_of_a_write_by_number(tmp_path: Path, code: int, expected: type[StoreError]) -> None:
    """Each kind of trouble has its type; the message names the file and the reason."""
    fault = Fault(1, verb="write", error=lambda: OSError(code, os.strerror(code)))
    store = LocalStore(tmp_path, filesystem=FaultyFileSystem(FaultPlan(fault)))
    with pytest.raises(StoreError) as caught:
        _create(store)
    assert type(caught.value) is expected
    assert str(tmp_path / "a/b") in str(caught.value)
    assert errno.errorcode[code] in str(caught.value)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_file_system_without_hard_links(tmp_path: Path, code: int) -> None:
    """Where `link` does not exist the store is unsafe, says what to do, and the probe says no."""
    fault = Fault(1, verb="link", error=lambda: OSError(code, os.strerror(code)))
    store = LocalStore(tmp_path, filesystem=FaultyFileSystem(FaultPlan(fault)))
    with pytest.raises(UnsafeStore, match="single writer"):
        _create(store)
    fault = Fault(1, verb="link", error=lambda: OSError(code, os.strerror(code)))
    store = LocalStore(tmp_path, filesystem=FaultyFileSystem(FaultPlan(fault)))
    assert honours_create(store) is False
    assert _leftovers(tmp_path) == []


def test_link_whose_reply_was_lost_and_repeated(tmp_path: Path) -> None:
    """A network mount that repeats a link reports `EEXIST` for our own file: that is a success."""

    class Repeating(RealFileSystem):
        def link(self, source: Path, target: Path) -> None:
            super().link(source, target)
            super().link(source, target)

    store = LocalStore(tmp_path, filesystem=Repeating())
    _create(store)
    assert store.read("a/b") == NEW


def test_temporary_file_that_somebody_removed(tmp_path: Path) -> None:
    """Losing the unfinished file is `Unreachable`: nothing was stored, trying again may help."""

    class Swept(RealFileSystem):
        def close(self, file: int) -> None:
            super().close(file)
            for leftover in _leftovers(tmp_path):
                leftover.unlink()

    store = LocalStore(tmp_path, filesystem=Swept())
    for act in (_create, _put):
        with pytest.raises(Unreachable, match="removed meanwhile"):
            act(store)
    assert [*store.list("")] == []


# --- real disks that are full or read-only


_IN_A_SMALL_FILE_SYSTEM = """
import subprocess, sys
from onward.errors import NoSpace, ReadOnly
from onward.stores import LocalStore
mount = sys.argv[1]
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", mount], check=True)
store = LocalStore(mount + "/out")
store.create("log/0", b"first")
filled = 0
try:
    while True:
        store.put(f"packs/{filled}", [b"x" * 4096] * 10, 40960)
        filled += 1
except NoSpace as error:
    assert "free some space" in str(error)
assert sorted(e.key for e in store.list("")) == ["log/0", *[f"packs/{n}" for n in range(filled)]]
try:
    store.put("log/0", [b"x" * 4096] * 40, 163840)
except NoSpace:
    assert store.read("log/0") == b"first"
store.delete("packs/0")
store.put("packs/again", [b"y" * 40960], 40960)
assert store.sweep_temporaries() == 0
subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
for key in ("log/0", "log/1", "new/folder"):
    for act in (lambda: store.create(key, b"1"), lambda: store.put(key, [], 0),
                lambda: LocalStore(mount + "/other").create(key, b"1")):
        try:
            act()
        except ReadOnly as error:
            assert "read-only" in str(error).lower(), error
        else:
            raise AssertionError("a read-only file system took " + key)
assert store.read("log/0") == b"first"
print("done")
"""


def test_full_and_then_read_only_disk(tmp_path: Path) -> None:
    """A full disk is `NoSpace`, keeps all it had, and recovers; a read-only one is `ReadOnly`."""
    command = [sys.executable, "-c", _IN_A_SMALL_FILE_SYSTEM, str(tmp_path)]
    namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode != 0:
        pytest.skip("this machine has no user namespaces")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run(
        [*namespace, *command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert ended.stdout == "done\n", ended.stderr


# --- what else may be in the folder


def test_nothing_is_made_by_reading(tmp_path: Path) -> None:
    """The store's folder appears with the first write, not before."""
    store = LocalStore(tmp_path / "deep/out")
    assert [*store.list("")] == []
    with pytest.raises(Missing):
        store.read("a")
    assert not (tmp_path / "deep").exists()
    store.create("a", b"1")
    assert (tmp_path / "deep/out/a").read_bytes() == b"1"


def test_path_of_a_key(tmp_path: Path) -> None:
    """`path` is the very file, for programs that read it themselves."""
    store = LocalStore(tmp_path)
    _create(store)
    assert store.path("a/b").read_bytes() == NEW
    with pytest.raises(BadURL):
        store.path("../a")


def test_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    """A key below another key cannot be stored, and is `Missing` when read."""
    store = LocalStore(tmp_path)
    store.create("a", b"1")
    with pytest.raises(Missing):
        store.read("a/b")
    for act in (_create, _put):
        with pytest.raises(StoreError, match=r"a"):
            act(store)
    assert store.read("a") == b"1"


def test_folder_where_a_file_is_needed(tmp_path: Path) -> None:
    """A folder is no object: not listed, not read, not replaced, not deleted."""
    store = LocalStore(tmp_path)
    _create(store)
    with pytest.raises(Missing):
        store.read("a")
    with pytest.raises(Missing):
        store.size("a")
    with pytest.raises(StoreError):
        store.put("a", [], 0)
    with pytest.raises(AlreadyExists):
        store.create("a", b"")
    store.delete("a")
    assert [entry.key for entry in store.list("a")] == ["a/b"]
    assert _leftovers(tmp_path) == []


@pytest.mark.parametrize("key", ["inward/a", "inward/new", "inward/deep/new"])
def test_parent_that_links_out_of_the_store(tmp_path: Path, key: str) -> None:
    """No key leads out of the store, not to read, not to write, not to delete, not to list."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/a").write_bytes(b"secret")
    store = LocalStore(tmp_path / "store")
    store.create("mine", b"1")
    (tmp_path / "store/inward").symlink_to(tmp_path / "outside")
    acts: list[Callable[[], object]] = [
        lambda: store.read(key),
        lambda: store.size(key),
        lambda: store.create(key, b"1"),
        lambda: store.put(key, [], 0),
        lambda: store.delete(key),
        lambda: store.path(key),
        lambda: [*store.list(key)],
        lambda: store.sweep_temporaries("inward/"),
    ]
    for act in acts:
        with pytest.raises(BadURL, match="symbolic link"):
            act()
    assert [entry.key for entry in store.list("")] == ["mine"]
    assert (tmp_path / "outside/a").read_bytes() == b"secret"
    assert os.listdir(tmp_path / "outside") == ["a"]


def test_file_that_links_out_of_the_store(tmp_path: Path) -> None:
    """It is neither read nor listed; storing under its key replaces the link, not its target."""
    (tmp_path / "outside").write_bytes(b"secret")
    store = LocalStore(tmp_path / "store")
    (tmp_path / "store").mkdir()
    (tmp_path / "store/a").symlink_to(tmp_path / "outside")
    with pytest.raises(BadURL, match="symbolic link"):
        store.read("a")
    assert [*store.list("")] == []
    with pytest.raises(AlreadyExists):
        store.create("a", b"1")
    store.put("a", [b"mine"], 4)
    assert store.read("a") == b"mine"
    assert (tmp_path / "outside").read_bytes() == b"secret"


def test_links_within_the_store(tmp_path: Path) -> None:
    """A link to a file of the store is that file; other links are passed over."""
    store = LocalStore(tmp_path)
    store.create("epochs/3.pth", b"weights")
    (tmp_path / "latest.pth").symlink_to("epochs/3.pth")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "dangling").symlink_to("nothing")
    assert sorted(entry.key for entry in store.list("")) == ["epochs/3.pth", "latest.pth"]
    assert store.read("latest.pth") == b"weights"
    with pytest.raises(Missing):
        store.read("dangling")


def test_store_folder_that_is_a_link(tmp_path: Path) -> None:
    """The store's own folder may be a link to a bigger disk."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    store = LocalStore(tmp_path / "out")
    _create(store)
    assert store.read("a/b") == NEW
    assert (tmp_path / "disk/a/b").read_bytes() == NEW


def test_names_that_are_no_keys(tmp_path: Path) -> None:
    """Pipes and names that no key can have are passed over, and reading a pipe does not wait."""
    store = LocalStore(tmp_path)
    store.create("good", b"1")
    (tmp_path / "bad\\name").write_bytes(b"")
    (tmp_path / "bad\nname").write_bytes(b"")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")).write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    assert [entry.key for entry in store.list("")] == ["good"]
    with pytest.raises(Missing):
        store.read("pipe")


# --- leftovers


def test_leftovers_are_not_listed_and_swept_below_a_prefix(tmp_path: Path) -> None:
    """What died writers left never shows; sweeping removes it, and nothing else."""
    store = LocalStore(tmp_path)
    _create(store)
    names = [f".tmp-{number:032x}" for number in range(3)]
    for name in names:
        (tmp_path / "a" / name).write_bytes(b"half")
    (tmp_path / names[0]).write_bytes(b"half")
    (tmp_path / ".tmp-mine").write_bytes(b"a user's own")
    assert sorted(entry.key for entry in store.list("")) == [".tmp-mine", "a/b"]
    assert store.sweep_temporaries("a/") == 3
    assert store.sweep_temporaries() == 1
    assert sorted(os.listdir(tmp_path)) == [".tmp-mine", "a"]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_sweeping_while_somebody_writes(tmp_path: Path) -> None:
    """An unfinished file that is still being written is left alone."""
    store, other = LocalStore(tmp_path), LocalStore(tmp_path)
    swept: list[int] = []

    def chunks() -> Iterator[bytes]:
        yield NEW[:5]
        swept.append(other.sweep_temporaries())
        yield NEW[5:]

    store.put("a/b", chunks(), len(NEW))
    assert swept == [0]
    assert store.read("a/b") == NEW


def test_key_like_a_temporary_file(tmp_path: Path) -> None:
    """A key that would be swept away cannot be stored."""
    store = LocalStore(tmp_path)
    key = f"a/.tmp-{0:032x}"
    with pytest.raises(BadURL):
        store.create(key, b"")
    with pytest.raises(BadURL):
        store.put(key, [], 0)


# --- reading into memory


class _OneByteAtATime(RealFileSystem):
    def read_into(self, file: int, start: int, target: memoryview) -> int:
        return super().read_into(file, start, target[:1])


def test_short_reads(tmp_path: Path) -> None:
    """A system that gives less than was asked for is asked again, until the end."""
    store = LocalStore(tmp_path, filesystem=_OneByteAtATime())
    _put(store)
    memory = bytearray(20)
    assert store.read_into("a/b", 4, memoryview(memory)) == len(NEW) - 4
    assert memory.rstrip(b"\0") == NEW[4:]


def test_held_files_can_be_read_when_they_are_gone(tmp_path: Path) -> None:
    """Deleted or replaced by anybody, what is held stays as it was; what is not held does not."""
    store = LocalStore(tmp_path)
    for key in ("deleted", "replaced", "other"):
        store.put(key, [OLD], len(OLD))
    with holding(store, ["deleted", "replaced"]) as held:
        LocalStore(tmp_path).delete("deleted")
        LocalStore(tmp_path).delete("other")
        LocalStore(tmp_path).put("replaced", [NEW], len(NEW))
        for key in ("deleted", "replaced"):
            memory = bytearray(20)
            assert held.size(key) == len(OLD)
            assert read_into(held, key, 1, memoryview(memory)) == len(OLD) - 1
            assert memory.rstrip(b"\0") == OLD[1:]
        with pytest.raises(Missing):
            read_into(held, "other", 0, memoryview(bytearray(1)))
    with pytest.raises(Missing):
        store.size("deleted")
    assert store.read("replaced") == NEW


@pytest.mark.parametrize("fails", [False, True])
def test_files_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """However holding ends, and of very many keys only some are held at once."""
    monkeypatch.setattr(local, "_MOST_HELD", 2)
    plan = FaultPlan()
    store = LocalStore(tmp_path, filesystem=FaultyFileSystem(plan))
    for key in ("a", "b", "c"):
        store.put(key, [OLD], len(OLD))
    before = plan.count("close")
    try:
        with holding(store, ["a", "a", "b", "c"]) as held:
            assert plan.count("open_existing") == 2
            for key in ("a", "b", "c"):
                assert read_into(held, key, 0, memoryview(bytearray(3))) == 3
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert plan.count("open_existing") == 3
    assert plan.count("close") - before == 3


@pytest.mark.parametrize("verb", ["open_existing", "read_into", "length"])
@pytest.mark.parametrize("held", [False, True])
def test_errors_of_reading_into_memory(tmp_path: Path, verb: str, held: bool) -> None:
    """A disk that fails is told as such, and no file stays open."""
    _put(LocalStore(tmp_path))
    error = lambda: OSError(errno.EIO, "the disk is ill")  # noqa: E731
    plan = FaultPlan(Fault(1, verb=verb, error=error))
    store = LocalStore(tmp_path, filesystem=FaultyFileSystem(plan))
    if verb == "length" and not held:
        return  # a file that is not held is asked by its name

    def act() -> None:
        with holding(store, ["a/b"] if held else []) as given:
            given.size("a/b")
            read_into(given, "a/b", 0, memoryview(bytearray(3)))

    with pytest.raises(StoreError, match=r"could not read .*a/b: .*EIO"):
        act()
    assert plan.count("close") == plan.count("open_existing") - (verb == "open_existing")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_link_that_is_put_in_the_way_while_one_looks_leads_nowhere(
    tmp_path: Path, what: str
) -> None:
    """Who may write into a folder shows whoever reads it with more rights nothing else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_bytes(b"secret")
    store = LocalStore(tmp_path / "store")
    store.put("a/b", [OLD], len(OLD))

    class Swapping(RealFileSystem):
        """Between the look and the open, as nobody can time it."""

        def open_existing(self, path: Path, *, beneath: Path) -> int:
            if what == "file":
                path.unlink(missing_ok=True)
                path.symlink_to(outside / "b")
            elif not path.parent.is_symlink():
                path.unlink()
                path.parent.rmdir()
                path.parent.symlink_to(outside)
            return super().open_existing(path, beneath=beneath)

    swapped = LocalStore(tmp_path / "store", filesystem=Swapping())
    with pytest.raises(Missing):
        swapped.read("a/b")
    (tmp_path / "again").symlink_to(tmp_path / "store")
    (tmp_path / "store/a").unlink() if what == "folder" else (tmp_path / "store/a/b").unlink()
    LocalStore(tmp_path / "store").put("a/b", [OLD], len(OLD))
    assert LocalStore(tmp_path / "again").read("a/b") == OLD
