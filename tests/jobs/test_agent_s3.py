"""Jobs whose output is on an object store: predownload, push, take-over, what a dead agent left."""

from __future__ import annotations

import shutil
import signal
import socket
import threading
from collections import namedtuple
from collections.abc import Callable

import pytest

from onward.errors import Damaged, NoSpace, SpaceLimit, StoreError, UsageError
from onward.jobs import data as job_data
from onward.jobs import store_output
from onward.repository import open_repository, verify
from onward.repository import repository as repository_module
from onward.repository.packs import pack_key
from onward.stores import Fault, FaultPlan, Faulty, open_store
from tests.jobs.bench import PLAIN, TRAIN, Bench, wait_for, wait_for_line
from tests.repository.checkpoints import commit, noise, output_with
from tests.servers import S3Server

pytestmark = pytest.mark.servers
URLs = Callable[[str], str]


@pytest.fixture(autouse=True)
def known_to_be_safe(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Jobs within this process do not probe the store: the race takes this server a second."""
    if "rclone" not in request.fixturenames:
        monkeypatch.setattr(repository_module, "honours_create", lambda _: True)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> FaultPlan:
    """Every call of jobs to an output's store, and faults to be planned."""
    plan = FaultPlan()
    monkeypatch.setattr(store_output, "open_store", lambda url: Faulty(open_store(url), plan))
    return plan


def steps_at(url: str) -> list[int]:
    return [commit.step for commit in open_repository(open_store(url)).history.live()]


def forget_working_copies(bench: Bench) -> None:
    """As if the next job ran on another machine."""
    shutil.rmtree(bench.folder / "home")


def test_every_commit_is_at_the_store_when_the_job_ends(bench: Bench, s3_url: URLs) -> None:
    """And the next job, on another machine, goes on from the newest."""
    first = bench.run(TRAIN, output=s3_url("out")).outcome
    assert (first.exit_code, first.unpushed) == (0, [])
    forget_working_copies(bench)
    second = bench.run(TRAIN, "--steps", "3", output=s3_url("out")).outcome
    assert second.attempts[0].verb == "continue"
    assert steps_at(s3_url("out")) == [1, 2, 3, 4, 5]
    assert verify(open_repository(open_store(s3_url("out"))), every_byte=True).intact
    assert second.pushed_bytes >= second.stored_bytes > 0


def test_the_output_is_kept_to_the_jobs_rules(bench: Bench, s3_url: URLs) -> None:
    """What no rule keeps is dropped at the store after it was pushed; the next job goes on."""
    bench.run(TRAIN, "--steps", "6", "--pause", "0.2", output=s3_url("out"), keep_last=2)
    history = open_repository(open_store(s3_url("out"))).history
    assert steps_at(s3_url("out")) == [5, 6]
    assert len(history.commits) == 6
    bench.run(TRAIN, "--steps", "1", output=s3_url("out"), keep_last=1)
    assert steps_at(s3_url("out")) == [6, 7]  # the last of each finished increment stays
    assert verify(open_repository(open_store(s3_url("out"))), every_byte=True).intact


def test_commits_are_pushed_while_training_runs(bench: Bench, s3_url: URLs) -> None:
    """The script sees its first commit at the store before it makes the second."""
    script = TRAIN.replace(
        "    end = time.monotonic() + args.pause",
        f"""
    from onward.stores import open_store
    deadline = time.monotonic() + 20
    while True:
        try:
            seen = open_repository(open_store({s3_url("out")!r})).history.commits
        except Exception:
            seen = {{}}
        if parent in seen: break
        assert time.monotonic() < deadline
        time.sleep(0.05)
    end = time.monotonic()""",
    )
    assert bench.run(script, output=s3_url("out")).outcome.exit_code == 0


def test_of_fifty_checkpoints_latest_moves_only_what_one_needs(
    bench: Bench, s3_url: URLs, watched: FaultPlan
) -> None:
    """Two packs of fifty: the frozen tensor's and the newest."""
    store = open_store(s3_url("out"))
    writer = output_with(store).claim("test")
    for step in range(1, 51):
        newest = commit(writer, step, state={"frozen": noise(0, 50_000), "n": noise(step, 100)})
    needed = {pack_key(pack) for pack in open_repository(store).manifest(newest).packs}
    ended = bench.run("", output=s3_url("out"))
    moved = {call.key for call in watched.calls if call.verb == "read" and "/packs/" in call.key}
    assert ended.outcome.exit_code == 0
    assert moved == needed
    assert len(moved) == 2
    fetched = next(line for line in ended.said.splitlines() if "fetching checkpoint" in line)
    assert newest.checkpoint in fetched


def test_all_fetches_every_live_checkpoint(bench: Bench, s3_url: URLs) -> None:
    """For scripts that compare them."""
    output_with(open_store(s3_url("out")), 1, 2, 3)
    script = """
import sys
from onward.repository import open_repository, verify
from onward.repository import repository as repository_module
from onward.stores import LocalStore
assert verify(open_repository(LocalStore(sys.argv[2])), every_byte=True).checkpoints == 3
assert verify(open_repository(LocalStore(sys.argv[2])), every_byte=True).intact
"""
    assert bench.run(script, output=s3_url("out"), predownload="all").outcome.exit_code == 0


def test_all_of_more_than_the_limit_is_refused_with_the_sizes(
    bench: Bench, s3_url: URLs, watched: FaultPlan
) -> None:
    """Before anything is fetched."""
    writer = output_with(open_store(s3_url("out"))).claim("test")
    for step in (1, 2, 3):
        commit(writer, step, state={"w": noise(step, 50_000)})
    outcome = bench.run("", output=s3_url("out"), predownload="all", space="120 kB").outcome
    assert isinstance(outcome.error, UsageError)
    assert "3 checkpoints take 150." in outcome.error.what
    assert "120.0 kB" in outcome.error.why
    assert not [call for call in watched.calls if call.verb == "read" and "/packs/" in call.key]


def test_a_new_newest_checkpoint_takes_the_place_of_older_ones_here(
    bench: Bench, s3_url: URLs
) -> None:
    """Another machine trained meanwhile; the limit is the script's too."""
    store = open_store(s3_url("out"))
    writer = output_with(store).claim("test")
    old = commit(writer, 1, state={"w": noise(1, 50_000)})
    script = """
import os, sys
print("limit", os.environ["ONWARD_SPACE"], len(os.listdir(sys.argv[2] + "/onward/packs")))
"""
    for made in (old, commit(writer, 2, state={"w": noise(2, 50_000)})):
        ended = bench.run(script, output=s3_url("out"), space="90kB").outcome
        assert ended.exit_code == 0, ended
        assert ended.newest is not None
        assert ended.newest.checkpoint != old.checkpoint or made is old
    assert bench.printed().splitlines() == ["limit 90000 1"] * 2
    refused = bench.run(script, output=s3_url("out"), space="40kB").outcome
    assert refused.exit_code == 0  # it is here already: nothing is fetched
    forget_working_copies(bench)
    refused = bench.run(script, output=s3_url("out"), space="40kB").outcome
    assert isinstance(refused.error, SpaceLimit)


def test_a_named_checkpoint_is_fetched_and_gone_on_from(bench: Bench, s3_url: URLs) -> None:
    """By version, alias or id."""
    repository = output_with(open_store(s3_url("out")), 1, 2, 3)
    repository.set_alias("good", repository.history.resolve("v2").checkpoint)
    outcome = bench.run(TRAIN, output=s3_url("out"), predownload="good").outcome
    assert "begin auto at step 2" in bench.printed()
    assert outcome.exit_code == 0


def test_damage_is_found_before_the_script_starts(bench: Bench, s3_url: URLs) -> None:
    """A flipped bit that no length tells: the script never runs, unless told to fall back."""
    store = open_store(s3_url("out"))
    repository = output_with(store, 1, 2)
    newest = repository.history.latest()
    assert newest is not None
    (pack,) = repository.manifest(newest).packs
    data = bytearray(store.read(pack_key(pack)))
    data[-1] ^= 1
    store.put(pack_key(pack), [bytes(data)], len(data))
    refused = bench.run(TRAIN, output=s3_url("out")).outcome
    assert isinstance(refused.error, Damaged)
    assert bench.printed() == ""
    ended = bench.run(TRAIN, output=s3_url("out"), on_damage="fall-back")
    assert ended.outcome.exit_code == 0
    assert "begin auto at step 1" in bench.printed()
    assert f"not {newest.checkpoint}: damaged" in ended.said


def test_all_passes_over_damage_only_if_told(bench: Bench, s3_url: URLs) -> None:
    """An old checkpoint has a flipped bit: an error, or named and left away."""
    store = open_store(s3_url("out"))
    repository = output_with(store, 1, 2, 3)
    oldest = repository.history.live()[0]
    (pack,) = repository.manifest(oldest).packs
    data = bytearray(store.read(pack_key(pack)))
    data[-1] ^= 1
    store.put(pack_key(pack), [bytes(data)], len(data))
    refused = bench.run(TRAIN, output=s3_url("out"), predownload="all").outcome
    assert isinstance(refused.error, Damaged)
    assert bench.printed() == ""
    ended = bench.run(TRAIN, output=s3_url("out"), predownload="all", on_damage="fall-back")
    assert ended.outcome.exit_code == 0
    assert f"not fetched: checkpoint {oldest.checkpoint}" in ended.said
    assert "begin auto at step 3" in bench.printed()


def test_too_little_disk_is_said_before_any_transfer(
    bench: Bench, s3_url: URLs, watched: FaultPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoint and files would fit alone, but not together; nothing is claimed."""
    store = open_store(s3_url("out"))
    writer = output_with(store).claim("test")
    commit(writer, 1, state={"w": noise(1, 6000)})
    store.put("vocab.txt", [bytes(6000)], 6000)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10_000, 0, 10_000))
    outcome = bench.run(TRAIN, output=s3_url("out")).outcome
    assert isinstance(outcome.error, NoSpace)
    assert not any("/packs/" in c.key or c.key == "vocab.txt" for c in watched.calls
                   if c.verb == "read")  # fmt: skip
    assert open_repository(store).history.generation == writer.generation


def test_a_store_that_is_away_meanwhile_only_delays(
    bench: Bench, s3_url: URLs, watched: FaultPlan
) -> None:
    """Two pushes fail; training is not disturbed and everything arrives in order."""
    watched.faults = (Fault(1, verb="put"), Fault(2, verb="put"))
    ended = bench.run(TRAIN, "--pause", "0.3", output=s3_url("out"))
    assert ended.outcome.exit_code == 0
    assert "delayed" in ended.said
    assert steps_at(s3_url("out")) == [1, 2]


def test_what_could_not_be_pushed_is_named_and_goes_with_the_next_command(
    bench: Bench, s3_url: URLs, watched: FaultPlan
) -> None:
    """Exit code 1 although the script was fine; nothing is lost."""
    watched.faults = tuple(Fault(n, verb="put") for n in range(1, 200))
    first = bench.run(TRAIN, output=s3_url("out")).outcome
    assert first.exit_code == 1
    assert isinstance(first.error, StoreError)
    assert [line.split()[0] for line in first.unpushed] == ["checkpoint", "checkpoint"]
    assert "the same command pushes it later" in "\n".join(first.lines())
    assert steps_at(s3_url("out")) == []
    watched.faults = ()
    ended = bench.run(TRAIN, "--steps", "1", output=s3_url("out"))
    assert ended.said.count("pushed checkpoint") == 3
    assert ended.outcome.attempts[0].verb == "continue"
    assert steps_at(s3_url("out")) == [1, 2, 3]


def test_records_reach_the_store_after_what_they_name(
    bench: Bench, s3_url: URLs, watched: FaultPlan
) -> None:
    """Pack, manifest, record: at every moment the store is a whole output."""
    bench.run(TRAIN, output=s3_url("out"))
    written = [
        call.key.split("/")[1] for call in watched.calls
        if call.verb in ("put", "create") and "/probe/" not in call.key
    ]  # fmt: skip
    assert written == ["log", "log", *["packs", "manifests", "log"] * 2]


def test_two_agents_on_one_output_one_proceeds_and_the_other_is_told(
    bench: Bench, s3_url: URLs
) -> None:
    """The second one takes over; the first is stopped and names it."""
    script = bench.script(TRAIN)
    first = bench.start(
        script, "--output", s3_url("out"), "--", "--steps", "1000", "--pause", "0.1"
    )
    wait_for_line(first, "saved 1")
    wait_for(lambda: len(steps_at(s3_url("out"))) > 0)
    bench.command(script, "--output", s3_url("out"), "--", "--steps", "2")
    _, first_err = first.communicate(timeout=60)
    assert first.returncode == 1
    assert "took over" in first_err
    assert "onward run train.py" in first_err.split("took over")[1]
    assert "Traceback" not in first_err
    history = open_repository(open_store(s3_url("out"))).history
    assert history.generation == 2
    latest = history.latest()
    assert latest is not None
    assert latest.finished
    assert latest.generation == 2


def test_commits_of_an_agent_that_was_killed_are_pushed_by_the_next(
    bench: Bench, s3_url: URLs
) -> None:
    """SIGKILL on the agent: its script saves and stops, and the next job pushes that."""
    script = bench.script(TRAIN)
    first = bench.start(script, "--output", s3_url("out"), "--", "--steps", "1000", "--pause", "30")
    wait_for_line(first, "saved 1")
    wait_for(lambda: steps_at(s3_url("out")) == [1])
    first.kill()
    first.communicate()
    _, err = bench.command(script, "--output", s3_url("out"), "--", "--steps", "1")
    assert steps_at(s3_url("out")) == [1, 2, 3]
    assert "(step 2," in err


def test_a_script_that_outlives_its_agent_cannot_commit_any_more(
    bench: Bench, s3_url: URLs
) -> None:
    """It ignores SIGTERM: the next agent ends it before it claims."""
    script = bench.script(TRAIN)
    arguments = (script, "--output", s3_url("out"), "--grace", "0.3", "--")
    first = bench.start(*arguments, "--steps", "1000", "--pause", "0.2", "--deaf")
    wait_for_line(first, "saved 1")
    first.kill()
    first.wait()  # not for its output: the script still holds that
    out, err = bench.command(*arguments, "--steps", "1")
    first.communicate(timeout=10)
    assert "still runs" in err
    steps = steps_at(s3_url("out"))
    assert steps == sorted(set(steps))
    history = open_repository(open_store(s3_url("out"))).history
    latest = history.latest()
    assert latest is not None
    assert latest.finished
    assert f"begin auto at step {latest.step - 1}" in out


def test_plain_files_go_both_ways(bench: Bench, s3_url: URLs) -> None:
    """The classic script on two machines: the second fetches the newest alone."""
    first = bench.run(PLAIN, "--epochs", "10", output=s3_url("out"))
    assert first.outcome.exit_code == 0
    assert first.outcome.pushed_files == 10
    forget_working_copies(bench)
    second = bench.run(PLAIN, "--epochs", "1", output=s3_url("out"))
    assert "begin at epoch 11" in bench.printed()
    assert "ckpt_10.pth, not ckpt_9.pth" in second.said
    (working,) = (bench.folder / "home" / "outputs").iterdir()
    assert {p.name for p in (working / "output").glob("*.pth")} == {"ckpt_10.pth", "ckpt_11.pth"}
    keys = {entry.key for entry in open_store(s3_url("out")).list("ckpt")}
    assert keys == {f"ckpt_{number}.pth" for number in range(1, 12)}


def test_a_whole_file_is_pushed_while_the_script_still_runs(bench: Bench, s3_url: URLs) -> None:
    """Its agent and its machine may be gone a moment later."""
    script = bench.script(PLAIN)
    process = bench.start(
        script, "--output", s3_url("out"), "--", "--epochs", "2", "--wait-at-end", "60"
    )
    store = open_store(s3_url("out"))
    wait_for(lambda: {e.key for e in store.list("ckpt")} == {"ckpt_1.pth", "ckpt_2.pth"})
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err


def test_a_torn_plain_file_never_reaches_the_store(bench: Bench, s3_url: URLs) -> None:
    """The crash leaves half of ckpt_3: the next attempt writes it anew."""
    ended = bench.run(PLAIN, "--epochs", "3", "--torn-at", "3", output=s3_url("out"), retries=1)
    assert [attempt.exit_status for attempt in ended.outcome.attempts] == [-9, 0]
    assert "ckpt_3.pth is torn" in ended.said
    keys = sorted(entry.key for entry in open_store(s3_url("out")).list("ckpt"))
    assert keys == [f"ckpt_{number}.pth" for number in range(1, 6)]
    assert bench.printed().count("begin at epoch 3") == 1


def test_no_predownload_of_plain_files_begins_from_nothing(bench: Bench, s3_url: URLs) -> None:
    """Whether or not this machine ran the job before."""
    bench.run(PLAIN, output=s3_url("out"))
    ended = bench.run(PLAIN, "--epochs", "1", output=s3_url("out"), predownload="no")
    assert ended.outcome.exit_code == 0
    assert bench.printed().count("begin at epoch 1\n") == 2
    keys = {entry.key for entry in open_store(s3_url("out")).list("ckpt")}
    assert keys == {"ckpt_1.pth", "ckpt_2.pth"}


def test_a_crashed_script_resumes_from_the_working_copy(bench: Bench, s3_url: URLs) -> None:
    """Both attempts push; each under its own claim."""
    outcome = bench.run(
        TRAIN, "--crash-after", "1", "--steps", "2", output=s3_url("out"), retries=1
    ).outcome
    assert [attempt.verb for attempt in outcome.attempts] == ["fresh", "resume"]
    assert [attempt.generation for attempt in outcome.attempts] == [1, 2]
    assert steps_at(s3_url("out")) == [1, 2, 3]


def test_what_another_writer_committed_before_the_claim_is_gone_on_from(
    bench: Bench, s3_url: URLs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the choice and the claim a newer checkpoint appeared: it is fetched as well."""
    store = open_store(s3_url("out"))
    other = output_with(store).claim("other")
    commit(other, 1)
    claim = store_output.StoreOutput.claim

    def late(self: store_output.StoreOutput, who: str) -> object:
        if len(steps_at(s3_url("out"))) == 1:
            commit(other, 2)
        return claim(self, who)

    monkeypatch.setattr(store_output.StoreOutput, "claim", late)
    outcome = bench.run(TRAIN, output=s3_url("out")).outcome
    assert outcome.exit_code == 0
    assert "begin auto at step 2" in bench.printed()
    assert [commit.step for commit in outcome.commits] == [3, 4]


def test_a_single_writer_store_needs_the_promise(
    bench: Bench, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ignores conditions: refused, unless promised."""
    for name, value in rclone.environment.items():
        monkeypatch.setenv(name, value)
    url = rclone.url("jobs/single")
    refused = bench.run(TRAIN, output=url).outcome
    assert "--single-writer" in str(refused.error)
    assert bench.printed() == ""
    ended = bench.run(TRAIN, output=url, single_writer=True)
    assert ended.outcome.exit_code == 0, ended.said
    assert steps_at(url) == [1, 2]


# Data.


def test_data_is_fetched_once_and_follows_the_store(
    bench: Bench, s3_url: URLs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New and changed objects are fetched, removed ones go away, the rest stays."""
    plan = FaultPlan()
    monkeypatch.setattr(job_data, "open_store", lambda url: Faulty(open_store(url), plan))
    store = open_store(s3_url("data"))
    for key in ("a.txt", "sub/b.txt", "c.txt"):
        store.put(key, [key.encode()], len(key))
    script = """
import os, sys
root = sys.argv[2]
found = {os.path.relpath(os.path.join(d, n), root): open(os.path.join(d, n)).read()
         for d, _, names in os.walk(root) for n in names}
print(sorted(found.items()), flush=True)
"""

    def fetched() -> list[str]:
        keys = [call.key for call in plan.calls if call.verb == "read"]
        plan.calls.clear()
        return sorted(keys)

    assert bench.run(script, data=s3_url("data")).outcome.exit_code == 0
    assert fetched() == ["a.txt", "c.txt", "sub/b.txt"]
    store.delete("c.txt")
    store.put("a.txt", [b"changed"], 7)
    store.put("new.txt", [b"n"], 1)
    assert bench.run(script, data=s3_url("data")).outcome.exit_code == 0
    assert fetched() == ["a.txt", "new.txt"]
    last = bench.printed().splitlines()[-1]
    assert last == "[('a.txt', 'changed'), ('new.txt', 'n'), ('sub/b.txt', 'sub/b.txt')]"
    assert bench.run(script, data=s3_url("data")).outcome.exit_code == 0
    assert fetched() == []


def test_a_single_object_is_data_too(bench: Bench, s3_url: URLs) -> None:
    """The script gets the path of a file."""
    open_store(s3_url("data")).put("train.npz", [b"bytes"], 5)
    script = "import sys; assert open(sys.argv[2], 'rb').read() == b'bytes'"
    url = s3_url("data").replace("/data?", "/data/train.npz?")
    assert bench.run(script, data=url).outcome.exit_code == 0


def test_unchanged_data_on_a_store_is_nothing_new(bench: Bench, s3_url: URLs) -> None:
    """Recognised on another machine as well: by content, not by place."""
    open_store(s3_url("data")).put("a.txt", [b"a"], 1)
    bench.run(TRAIN, output=s3_url("out"), data=s3_url("data"))
    forget_working_copies(bench)
    ended = bench.run(TRAIN, output=s3_url("out"), data=s3_url("data"))
    assert "nothing new" in ended.outcome.message
    assert ended.outcome.exit_code == 0
    assert ended.outcome.attempts == []


def test_data_that_is_not_there_is_refused_before_anything_is_made(
    bench: Bench, s3_url: URLs
) -> None:
    """Neither output nor claim."""
    outcome = bench.run(TRAIN, output=s3_url("out"), data=s3_url("nowhere")).outcome
    assert outcome.exit_code == 2
    assert "there is no data at" in str(outcome.error)
    assert list(open_store(s3_url("out")).list("")) == []


# A connection that breaks.


class Cutting:
    """A proxy that breaks off the first connections once so many bytes came back on them."""

    def __init__(self, server: str, *, after_bytes: int, cuts: int) -> None:
        host, _, port = server.removeprefix("http://").rpartition(":")
        self._server = (host, int(port))
        self._after_bytes, self.cuts_left = after_bytes, cuts
        self.passed_bytes = 0
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, back: bool) -> None:
        seen = 0
        try:
            while data := source.recv(1 << 16):
                seen += len(data)
                if back and seen > self._after_bytes and self.cuts_left > 0:
                    self.cuts_left -= 1
                    break
                target.sendall(data)
                if back:
                    self.passed_bytes += len(data)
        except OSError:
            pass
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def test_a_connection_that_is_cut_goes_on_where_it_stopped(
    bench: Bench, s3_url: URLs, seaweedfs: S3Server
) -> None:
    """Three cuts in the middle of a pack of 30 MB cost less than 30 MB again."""
    store = open_store(s3_url("out"))
    writer = output_with(store).claim("test")
    newest = commit(writer, 1, state={"w": noise(1, 30_000_000)})
    proxy = Cutting(seaweedfs.endpoint, after_bytes=3_000_000, cuts=3)
    try:
        url = s3_url("out").replace(seaweedfs.endpoint, proxy.endpoint)
        ended = bench.run("", output=url)
    finally:
        proxy.close()
    assert ended.outcome.exit_code == 0, ended.said
    assert proxy.cuts_left == 0
    assert proxy.passed_bytes < 45_000_000
    (working,) = (bench.folder / "home" / "outputs").iterdir()
    (pack,) = open_repository(store).manifest(newest).packs
    assert (working / "output" / pack_key(pack)).stat().st_size > 30_000_000
