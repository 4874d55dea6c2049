"""Plain files: whole ones only, both ways, and no deletion on either side."""

from __future__ import annotations

import io
import os
import shutil
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from onward.errors import NoSpace, Unreachable
from onward.jobs.display import Lines
from onward.jobs.files import PlainFiles
from onward.jobs.numbers import RULE
from onward.jobs.open_files import FileId
from onward.jobs.scanning import scan
from onward.jobs.torn_versions import newest_torn
from onward.stores import Fault, Faulty, LocalStore, MemoryStore, Store
from tests.servers import S3Server


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Side:
    """One machine with a working folder for the output at `remote`."""

    def __init__(self, remote: Store, folder: Path) -> None:
        self.remote = remote
        self.folder = folder
        self.output = folder / "output"
        self.output.mkdir(parents=True, exist_ok=True)
        self.said: list[str] = []
        self.clock = Clock()
        self.open_files: set[FileId] = set()
        self.display = Lines(io.StringIO())
        self.restart()

    def restart(self) -> None:
        """The agent is a new process."""
        self.files = PlainFiles(self.remote, self.folder, say=self.said.append, clock=self.clock)

    def write(self, key: str, data: bytes) -> Path:
        path = self.output / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def round(self, seconds: float = 1.0) -> None:
        """A scan, some time after the one before."""
        self.clock.now_s += seconds
        self.files.push_whole(lambda: self.open_files, allowed=lambda: None)

    def end(self, *, in_order: bool) -> None:
        """The script ends."""
        self.files.judge(in_order=in_order)
        self.files.push_rest(self.display)
        self.files.note_versions()

    def pull(self, predownload: str = "latest") -> None:
        self.files.pull(self.files.select(predownload), self.display)

    def names(self) -> set[str]:
        return set(scan(LocalStore(self.output))[0])


@pytest.fixture
def remote() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def side(remote: MemoryStore, tmp_path: Path) -> Side:
    return Side(remote, tmp_path / "here")


def stored(store: Store) -> dict[str, bytes]:
    return {entry.key: store.read(entry.key) for entry in store.list("")}


def put(store: Store, key: str, data: bytes) -> None:
    store.put(key, [data], len(data))


def zip_bytes(note: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", note * 100)
    return buffer.getvalue()


# While the script runs.


def test_a_file_is_pushed_once_it_looked_the_same_for_a_second(
    side: Side, remote: MemoryStore
) -> None:
    """Not at the first sight, not before a second has passed."""
    side.write("a.txt", b"one")
    side.round()
    side.round(0.5)
    assert stored(remote) == {}
    side.round(0.6)
    assert stored(remote) == {"a.txt": b"one"}
    assert side.files.pushed_files == 1


def test_a_file_that_grows_waits_until_it_stands_still(side: Side, remote: MemoryStore) -> None:
    """Every change starts the second anew."""
    for length in range(1, 5):
        side.write("a.txt", b"x" * length)
        side.round()
    assert stored(remote) == {}
    side.round()
    assert stored(remote) == {"a.txt": b"xxxx"}


def test_a_file_that_is_open_for_writing_is_not_pushed(side: Side, remote: MemoryStore) -> None:
    """However long it stands still."""
    path = side.write("a.bin", b"half")
    status = path.stat()
    side.open_files = {(status.st_dev, status.st_ino)}
    for _ in range(5):
        side.round()
    assert stored(remote) == {}
    side.open_files = set()
    side.round()
    assert stored(remote) == {"a.bin": b"half"}


def test_a_cut_checkpoint_that_stands_still_is_not_pushed(side: Side, remote: MemoryStore) -> None:
    """A writer that pauses, on a system that does not tell who writes."""
    side.write("ckpt_1.pth", zip_bytes()[:-10])
    for _ in range(4):
        side.round()
    assert stored(remote) == {}


def test_unfinished_names_wait_for_the_end(side: Side, remote: MemoryStore) -> None:
    """`x.tmp` will be renamed, usually."""
    side.write("a.pth.tmp", b"x")
    for _ in range(4):
        side.round()
    assert stored(remote) == {}
    (side.output / "a.pth.tmp").rename(side.output / "a.pth")
    side.round()
    side.round()
    assert stored(remote) == {"a.pth": b"x"}


def test_a_file_that_changes_while_it_is_copied_is_not_pushed_torn(
    side: Side, remote: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store sees one version or the other, never both in one."""
    path = side.write("a.txt", b"first")
    side.round()
    real = shutil.copyfile

    def meddled(source: Path, target: Path) -> None:
        real(source, target)
        path.write_bytes(b"second")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", meddled)
        side.round()
    assert stored(remote) == {}
    side.round()
    side.round()
    assert stored(remote) == {"a.txt": b"second"}


def test_overwriting_in_place_and_by_renaming_are_both_seen(
    side: Side, remote: MemoryStore
) -> None:
    """Equal length and equal times do not hide a new file under the old name."""
    path = side.write("best.txt", b"one")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    side.round()
    side.round()
    other = side.write("other", b"two")
    os.utime(other, ns=times)
    other.rename(path)
    side.round()
    side.round()
    assert stored(remote)["best.txt"] == b"two"


def test_nothing_of_onwards_own_is_moved(side: Side, remote: MemoryStore) -> None:
    """The log goes by its own rules."""
    side.write("onward/log/0.json", b"{}")
    side.write("onward-torn/x.pth", b"x")
    side.end(in_order=True)
    assert stored(remote) == {}


def test_links_that_lead_out_are_not_followed_and_others_are_files(
    side: Side, remote: MemoryStore, tmp_path: Path
) -> None:
    """Nothing outside of the folder is ever read."""
    (tmp_path / "secret").write_bytes(b"secret")
    (side.output / "out").symlink_to(tmp_path / "secret")
    (side.output / "folder").symlink_to(tmp_path)
    side.write("ckpt_3.bin", b"three")
    (side.output / "latest.bin").symlink_to("ckpt_3.bin")
    side.end(in_order=True)
    assert stored(remote) == {"ckpt_3.bin": b"three", "latest.bin": b"three"}


def test_a_name_that_no_store_could_hold_is_told(side: Side, remote: MemoryStore) -> None:
    """Once, not at every scan."""
    side.write("a\nb.txt", b"x")
    side.end(in_order=True)
    side.end(in_order=True)
    assert stored(remote) == {}
    assert len(side.said) == 1
    assert "cannot be stored" in side.said[0]


def test_nothing_is_pushed_when_it_is_not_allowed(side: Side, remote: MemoryStore) -> None:
    """Another writer has taken over: asked before the first byte."""

    class TakenOver(Exception):
        pass

    def refuse() -> None:
        raise TakenOver

    side.write("a.txt", b"x")
    side.round()
    side.clock.now_s += 2
    with pytest.raises(TakenOver):
        side.files.push_whole(set, allowed=refuse)
    assert stored(remote) == {}


# When it has ended.


def test_at_an_orderly_end_everything_is_pushed_at_once(side: Side, remote: MemoryStore) -> None:
    """Nobody writes any more: no second to wait."""
    side.write("ckpt_1.pth", zip_bytes())
    side.write("deep/er/notes", b"n")
    side.end(in_order=True)
    assert stored(remote) == {"ckpt_1.pth": zip_bytes(), "deep/er/notes": b"n"}
    assert side.files.unpushed() == []


def test_after_a_crash_a_torn_file_is_moved_aside_and_whole_ones_are_pushed(
    side: Side, remote: MemoryStore
) -> None:
    """The script must find ckpt_100 at its next start, not half of ckpt_101."""
    side.write("ckpt_100.pth", zip_bytes())
    side.write("ckpt_101.pth", zip_bytes()[:60])
    side.write("train.log", b"line\n")
    side.write("unknown.dat", b"half?")
    side.end(in_order=False)
    assert set(stored(remote)) == {"ckpt_100.pth", "train.log"}
    assert (side.folder / "torn" / "ckpt_101.pth").read_bytes() == zip_bytes()[:60]
    assert side.names() == {"ckpt_100.pth", "train.log", "unknown.dat"}
    said = "\n".join(side.said)
    assert "ckpt_101.pth is torn" in said
    assert "unknown.dat is not pushed" in said


def test_a_file_that_was_found_whole_before_the_crash_is_pushed_after_it(
    side: Side, tmp_path: Path
) -> None:
    """The store was away when the file stood still: it is not under suspicion now."""
    faulty = Faulty(MemoryStore())
    side = Side(faulty, tmp_path / "there")
    side.write("w.dat", b"whole")
    side.round()
    faulty.plan.faults = (Fault(1, verb="put"),)
    with pytest.raises(Unreachable):
        side.round()
    assert side.files.unpushed() == ["w.dat"]
    side.end(in_order=False)
    assert stored(faulty) == {"w.dat": b"whole"}


def test_what_is_held_back_goes_once_it_is_written_anew(side: Side, remote: MemoryStore) -> None:
    """And not before, not by the next agent either."""
    side.write("unknown.dat", b"half")
    side.end(in_order=False)
    side.restart()
    side.end(in_order=False)
    side.round()
    side.round()
    assert stored(remote) == {}
    side.write("unknown.dat", b"all of it")
    side.round()
    side.round()
    assert stored(remote) == {"unknown.dat": b"all of it"}


def test_a_second_torn_file_of_the_same_name_does_not_replace_the_first(side: Side) -> None:
    """Nothing that was set aside is lost."""
    for note in ("a", "b"):
        side.write("ckpt_1.pth", zip_bytes(note)[:50])
        side.end(in_order=False)
    assert {p.name for p in (side.folder / "torn").iterdir()} == {"ckpt_1.pth", "ckpt_1.pth.2"}


def test_what_could_not_be_pushed_is_pushed_by_the_next_agent(tmp_path: Path) -> None:
    """An orderly end, but the store was away: a new process remembers that the file is whole."""
    faulty = Faulty(MemoryStore())
    side = Side(faulty, tmp_path)
    side.write("w.dat", b"whole")
    faulty.plan.faults = (Fault(1, verb="put"),)
    with pytest.raises(Unreachable):
        side.end(in_order=True)
    assert side.files.unpushed() == ["w.dat"]
    side.restart()
    side.files.catch_up(1, side.display)
    assert stored(faulty) == {"w.dat": b"whole"}


# From the store.


def test_latest_fetches_the_highest_number_and_all_without(side: Side, remote: MemoryStore) -> None:
    """Ten comes after nine."""
    for key in ("ckpt_2.pth", "ckpt_9.pth", "ckpt_10.pth", "ckpt_100.pth", "vocab.txt"):
        put(remote, key, key.encode())
    put(remote, "onward/log/0.json", b"{}")
    side.pull()
    assert side.names() == {"ckpt_100.pth", "vocab.txt"}


@pytest.mark.parametrize(("predownload", "count"), [("all", 3), ("no", 0)])
def test_all_and_no(side: Side, remote: MemoryStore, predownload: str, count: int) -> None:
    """Everything, or nothing."""
    for key in ("ckpt_1.pth", "ckpt_2.pth", "vocab.txt"):
        put(remote, key, b"x")
    side.pull(predownload)
    assert len(side.names()) == count


def test_no_deletion_goes_either_way(side: Side, remote: MemoryStore) -> None:
    """Deleted here: still there. Deleted there: still here, and not pushed again."""
    side.write("a.txt", b"a")
    side.write("b.txt", b"b")
    side.end(in_order=True)
    (side.output / "a.txt").unlink()
    remote.delete("b.txt")
    side.round()
    side.end(in_order=True)
    side.restart()
    side.pull()
    side.end(in_order=True)
    assert stored(remote) == {"a.txt": b"a"}
    assert (side.output / "b.txt").read_bytes() == b"b"


def test_a_local_change_that_was_not_pushed_wins(side: Side, remote: MemoryStore) -> None:
    """Over whatever the store holds."""
    side.write("a.txt", b"old")
    side.end(in_order=True)
    side.write("a.txt", b"ours, newer")
    put(remote, "a.txt", b"theirs")
    side.pull()
    assert (side.output / "a.txt").read_bytes() == b"ours, newer"
    side.end(in_order=True)
    assert stored(remote) == {"a.txt": b"ours, newer"}


def test_a_change_at_the_store_wins_over_an_unchanged_file(side: Side, remote: MemoryStore) -> None:
    """And what is in step is not fetched again."""
    side.write("a.txt", b"old")
    side.write("b.txt", b"same")
    side.end(in_order=True)
    put(remote, "a.txt", b"theirs")
    selection = side.files.select("latest")
    assert [entry.key for entry in selection.fetched] == ["a.txt"]
    assert selection.here == ["b.txt"]
    side.files.pull(selection, side.display)
    assert (side.output / "a.txt").read_bytes() == b"theirs"


def test_another_jobs_version_wins_over_what_a_superseded_one_left(
    side: Side, remote: MemoryStore
) -> None:
    """Its own is kept aside; files that only it had are pushed."""
    side.files.written_in(1)
    side.write("model.pth", zip_bytes("old"))
    side.end(in_order=True)
    side.write("model.pth", zip_bytes("ours"))
    side.write("mine.pth", zip_bytes("mine"))
    side.files.judge(in_order=True)
    put(remote, "model.pth", zip_bytes("theirs"))
    side.restart()
    side.files.catch_up(2, side.display)
    assert stored(remote) == {"model.pth": zip_bytes("theirs"), "mine.pth": zip_bytes("mine")}
    assert (side.folder / "stranded-files" / "model.pth").read_bytes() == zip_bytes("ours")


def test_files_of_another_output_at_the_same_place_are_not_taken_for_in_step(
    side: Side, remote: MemoryStore
) -> None:
    """The output was removed and made anew: what is here is pushed again."""
    side.files.belong_to("one")
    side.write("a.txt", b"a")
    side.end(in_order=True)
    remote.delete("a.txt")
    side.restart()
    side.files.belong_to("two")
    side.end(in_order=True)
    assert stored(remote) == {"a.txt": b"a"}


def test_hiding_removes_only_what_is_safe_at_the_store(side: Side, remote: MemoryStore) -> None:
    """A start from nothing loses nothing."""
    side.write("ckpt_1.pth", zip_bytes())
    side.end(in_order=True)
    side.write("ckpt_2.pth", zip_bytes())
    assert side.files.hide_pushed() == 1
    assert side.names() == {"ckpt_2.pth"}
    assert "ckpt_1.pth" in stored(remote)


def test_too_little_disk_is_said_before_the_first_byte(
    side: Side, remote: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For all files together."""
    for key in ("a", "b", "c"):
        put(remote, key, bytes(1000))
    selection = side.files.select("all")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 0, 2500))
    with pytest.raises(NoSpace):
        side.files.pull(selection, side.display)
    assert side.names() == set()


def test_a_key_cannot_lead_out_of_the_folder(
    side: Side, remote: MemoryStore, tmp_path: Path
) -> None:
    """A folder that is a link to elsewhere is not written through."""
    (tmp_path / "elsewhere").mkdir()
    (side.output / "sub").symlink_to(tmp_path / "elsewhere")
    put(remote, "sub/a.txt", b"x")
    with pytest.raises(Exception, match="is not in"):
        side.pull()
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_lost_memory_costs_a_push_and_nothing_else(side: Side, remote: MemoryStore) -> None:
    """The state file is gone or garbled: local files count as changed."""
    side.write("a.txt", b"a")
    side.end(in_order=True)
    (side.folder / "files.json").write_text('{"format": 1, "synced": []}')
    side.restart()
    side.pull()
    side.end(in_order=True)
    assert stored(remote) == {"a.txt": b"a"}


def test_the_newest_torn_files_are_found_until_a_whole_one_comes(tmp_path: Path) -> None:
    """101 and 102 are torn: 100 is what a script may find."""
    store = LocalStore(tmp_path)
    for number in (2, 9, 10, 100):
        (tmp_path / f"ckpt_{number}.pth").write_bytes(zip_bytes())
    for number in (101, 102):
        (tmp_path / f"ckpt_{number}.pth").write_bytes(zip_bytes()[:-5])
    assert sorted(newest_torn(store, scan(store)[0])) == ["ckpt_101.pth", "ckpt_102.pth"]


# Folders that are one checkpoint.


def write_folder(side: Side, step: int, *, torn: bool = False) -> dict[str, bytes]:
    """As transformers writes one: weights first, what the trainer knows last."""
    weights = zip_bytes(str(step))
    files = {
        f"checkpoint-{step}/pytorch_model.bin": weights[:-9] if torn else weights,
        f"checkpoint-{step}/trainer_state.json": b"{}",
    }
    for key, data in files.items():
        side.write(key, data)
    return files


def test_nothing_of_a_folder_is_pushed_while_it_is_written(side: Side, remote: MemoryStore) -> None:
    """Another machine must not find half of the newest checkpoint."""
    files = write_folder(side, 500)
    side.round()
    side.write("checkpoint-500/scheduler.pt", zip_bytes())
    side.write("train.log", b"line")
    side.round()
    assert stored(remote) == {}
    side.round()
    assert set(stored(remote)) == {*files, "checkpoint-500/scheduler.pt", "train.log"}


def test_after_a_crash_an_unfinished_folder_stays_here(side: Side, remote: MemoryStore) -> None:
    """Its files may each be whole: nobody can tell whether all of them are there."""
    files = write_folder(side, 500)
    side.round()
    side.round()
    side.write("checkpoint-1000/pytorch_model.bin", zip_bytes())
    side.end(in_order=False)
    assert stored(remote) == files
    assert side.names() == {*files, "checkpoint-1000/pytorch_model.bin"}
    assert [line for line in side.said if "not pushed" in line] == [
        "checkpoint-1000/ is not pushed: it was being written when the script ended"
    ]


def test_a_torn_file_moves_its_whole_folder_aside(side: Side, remote: MemoryStore) -> None:
    """A script that looks for the newest folder must find the one before."""
    whole = write_folder(side, 500)
    side.round()
    side.round()
    torn = write_folder(side, 1000, torn=True)
    side.end(in_order=False)
    assert stored(remote) == whole
    assert side.names() == set(whole)
    assert {path.name for path in (side.folder / "torn" / "checkpoint-1000").iterdir()} == {
        key.partition("/")[2] for key in torn
    }
    assert any("checkpoint-1000/ is torn (pytorch_model.bin: " in line for line in side.said)


@pytest.mark.parametrize("in_order", [False, True])
def test_a_torn_file_among_numbered_ones_leaves_their_folder_alone(
    side: Side, remote: MemoryStore, in_order: bool
) -> None:
    """`step_2/` may be the second part of a training, with checkpoints of its own."""
    whole = {f"step_2/ckpt_{epoch}.pth" for epoch in (1, 2)}
    for key in whole:
        side.write(key, zip_bytes())
    side.write("step_2/ckpt_3.pth", zip_bytes()[:-9])
    side.end(in_order=in_order)
    assert set(stored(remote)) == whole
    assert (side.names() == whole) != in_order
    assert "step_2/ckpt_3.pth is" in side.said[0]


def test_a_torn_folder_of_an_orderly_end_is_not_pushed(side: Side, remote: MemoryStore) -> None:
    """Named once; it stays where the script left it."""
    files = write_folder(side, 500, torn=True)
    side.end(in_order=True)
    assert stored(remote) == {}
    assert side.names() == set(files)
    assert len(side.said) == 1
    assert side.said[0].startswith("checkpoint-500/ is not pushed: pytorch_model.bin: ")


# Torn at the store.


@pytest.mark.parametrize(
    ("predownload", "names"), [("latest", {"ckpt_8.pth"}), ("all", {"ckpt_1.pth", "ckpt_8.pth"})]
)
def test_the_newest_whole_one_is_fetched(
    side: Side, remote: MemoryStore, predownload: str, names: set[str]
) -> None:
    """Uploads of 9 and 10 broke off: they stay at the store, and 8 is what the script finds."""
    for number in (1, 8, 9, 10):
        put(remote, f"ckpt_{number}.pth", zip_bytes()[: None if number < 9 else -9])
    selection = side.files.pull_whole(predownload, side.display)
    assert side.names() == names
    assert {entry.key for entry in selection.fetched} == names
    assert set(selection.torn) == {"ckpt_9.pth", "ckpt_10.pth"}
    assert "ckpt_10.pth is torn at the store" in "\n".join(side.said)
    side.end(in_order=True)
    assert len(stored(remote)) == 4
    side.restart()
    assert side.files.pull_whole(predownload, side.display).torn == selection.torn


def test_a_torn_folder_at_the_store_gives_way_whole(side: Side, remote: MemoryStore) -> None:
    """Not one file of it is here."""
    for step, end in ((500, None), (1000, -9)):
        put(remote, f"checkpoint-{step}/model.bin", zip_bytes()[:end])
        put(remote, f"checkpoint-{step}/trainer_state.json", b"{}")
    side.files.pull_whole("latest", side.display)
    assert {name.partition("/")[0] for name in side.names()} == {"checkpoint-500"}


def test_of_what_is_passed_over_the_newest_are_named(side: Side, remote: MemoryStore) -> None:
    """By the rule, with what the numbers mean; folders once."""
    for key in ("net-9_391.ckpt", "net-12_391.ckpt", "net_1-2_391.ckpt"):
        put(remote, key, b"x")
    for step in (1, 2, 10, 20, 30):
        put(remote, f"checkpoint-{step}/a", b"a")
        put(remote, f"checkpoint-{step}/b", b"b")
    lines = side.files.select("latest").lines()
    assert lines[0] == f"plain files: {RULE}"
    assert lines[1:] == [
        "plain files: checkpoint-30/, not checkpoint-20/, checkpoint-10/, checkpoint-2/ and 1 more",
        "plain files: net_1-2_391.ckpt (restart 1, epoch 2, step 391), "
        "not net-12_391.ckpt, net-9_391.ckpt",
    ]


# On a real server.


@pytest.fixture
def s3(seaweedfs: S3Server, request: pytest.FixtureRequest) -> Store:
    return seaweedfs.store(f"files/{request.node.name}")


@pytest.mark.servers
def test_two_machines_share_files_through_s3(s3: Store, tmp_path: Path) -> None:
    """Versions of a real store: nothing is fetched twice, a new version is."""
    first, second = Side(s3, tmp_path / "first"), Side(s3, tmp_path / "second")
    first.write("ckpt_1.pth", zip_bytes("one"))
    first.write("big.bin", os.urandom(9 << 20))
    first.end(in_order=True)
    second.pull()
    assert second.names() == {"ckpt_1.pth", "big.bin"}
    assert (second.output / "big.bin").read_bytes() == (first.output / "big.bin").read_bytes()
    second.restart()
    assert second.files.select("all").fetched == []
    second.write("ckpt_1.pth", zip_bytes("two"))
    second.end(in_order=True)
    first.restart()
    first.pull()
    assert (first.output / "ckpt_1.pth").read_bytes() == zip_bytes("two")
