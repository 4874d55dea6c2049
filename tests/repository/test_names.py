"""Which checkpoint goes by which name, and that nothing but the log decides it."""

from __future__ import annotations

import os
import random
from itertools import count
from pathlib import Path

import pytest

from onward.errors import UnknownCheckpoint, UsageError
from onward.repository import Commit, History, Repository, open_repository, verify
from onward.repository import writer as writer_module
from onward.stores import Died, FaultPlan, Faulty, LocalStore, MemoryStore, Store, dies
from tests.repository.outputs import facts, going_on, look, new_output, opened, state

_STEPS = (2, 9, 10, 100)


def _save_steps(store: Store, steps: tuple[int, ...] = _STEPS) -> list[Commit]:
    writer = new_output(store).claim("the writer")
    return [writer.commit(state(step), facts(step)) for step in steps]


def _tear_off(store: Store, step: int) -> None:
    """A save that dies when its pack and manifest are stored, before its record."""
    torn = Faulty(store, FaultPlan(dies(1, verb="create")))
    with pytest.raises(Died):
        going_on(opened(torn)).commit(state(step), facts(step))


def _latest_step(store: Store) -> int:
    latest = open_repository(store).history.latest()
    assert latest is not None
    return latest.step


# --- the newest


def test_numbers_of_odd_widths_and_a_torn_save(tmp_path: Path) -> None:
    """Of 2, 9, 10, 100 and a torn 101 the newest is 100, and 101 is a leftover."""
    store = LocalStore(tmp_path)
    _save_steps(store)
    _tear_off(store, 101)
    assert _latest_step(store) == 100
    assert list(look(store).checkpoints) == list(_STEPS)
    leftovers = verify(open_repository(store)).leftovers
    assert [key.split("/")[1] for key in leftovers] == ["manifests", "packs"]


@pytest.mark.parametrize("seed", range(5))
def test_file_times_say_nothing(tmp_path: Path, seed: int) -> None:
    """However the times of the files are set, equal or shuffled, the log decides."""
    store = LocalStore(tmp_path)
    _save_steps(store)
    _tear_off(store, 101)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    chosen = random.Random(seed)
    for path in files:
        seconds = 0 if seed == 0 else chosen.randrange(2_000_000_000)
        os.utime(path, (seconds, seconds))
    assert _latest_step(store) == 100


@pytest.mark.parametrize("steps", [(100, 10, 9, 2), (5, 5, 5), (0,), (2**53 - 1, 1)])
def test_steps_say_nothing(steps: tuple[int, ...]) -> None:
    """After going back to an older checkpoint, the newest is the one that was saved last."""
    store = MemoryStore()
    commits = _save_steps(store, steps)
    assert open_repository(store).history.latest() == commits[-1]
    assert [c.step for c in open_repository(store).history.newest_first()] == list(steps[::-1])


def test_clock_that_runs_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times are for people; a clock set back by years changes nothing."""
    years = count(2100, -10)
    monkeypatch.setattr(writer_module, "now", lambda: f"{next(years)}-01-01T00:00:00.000000Z")
    store = MemoryStore()
    commits = _save_steps(store)
    assert [c.time[:4] for c in commits] == ["2100", "2090", "2080", "2070"]
    assert _latest_step(store) == 100


@pytest.mark.parametrize("order", [1, -1])
def test_ids_that_sort_in_any_order(monkeypatch: pytest.MonkeyPatch, order: int) -> None:
    """Names of files say nothing either."""
    ids = iter([f"{number:016x}" for number in range(16, 24)][::order])
    monkeypatch.setattr(writer_module, "new_checkpoint_id", lambda: next(ids))
    store = MemoryStore()
    _save_steps(store)
    assert _latest_step(store) == 100


def test_files_that_nobody_recorded(tmp_path: Path) -> None:
    """Copies, backups and stray folders beside the log are not looked at."""
    store = LocalStore(tmp_path)
    _save_steps(store)
    log = tmp_path / "onward/log"
    head = sorted(log.iterdir())[-1]
    for name in ("99999999999999999999.json", "00000000000000000099.json.bak", "6.json", "x"):
        (log / name).write_bytes(head.read_bytes())
    (tmp_path / "ckpt_999.pth").write_bytes(b"")
    assert _latest_step(store) == 100
    findings = verify(open_repository(store), every_byte=True)
    assert findings.intact
    assert len(findings.leftovers) == 4


def test_no_checkpoint_yet() -> None:
    """Names of an empty output are unknown, and the error says that training comes first."""
    repository = new_output(MemoryStore())
    assert repository.history.latest() is None
    for name in ("latest", "v1", "best", "champion", "abcd"):
        with pytest.raises(UnknownCheckpoint, match="train first"):
            repository.history.resolve(name)


# --- names


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch) -> Repository:
    """Checkpoints v1 … v5 with ids that begin alike, metrics of all sorts; v2 is dropped."""
    ids = iter(["aaaa111122223333", "aaaa444455556666", "bbbb000000000001", "bbbb000000000002",
                "cccc000000000000"])  # fmt: skip
    monkeypatch.setattr(writer_module, "new_checkpoint_id", lambda: next(ids))
    repository = new_output(MemoryStore())
    writer = repository.claim("the writer")
    losses = [0.5, 0.1, 0.3, None, 0.3]
    for step, loss in enumerate(losses, start=1):
        writer.commit(state(step), facts(step, metrics={"loss": loss} if step != 1 else {}))
    repository.set_alias("champion", "bbbb000000000001")
    repository.drop(["aaaa444455556666"])
    return repository


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("latest", 5),
        ("v1", 1),
        ("v3", 3),
        ("v5", 5),
        ("champion", 3),
        ("aaaa111122223333", 1),
        ("aaaa1", 1),
        ("cccc", 5),
        ("bbbb000000000002", 4),
    ],
)
def test_name_of_a_checkpoint(repository: Repository, name: str, step: int) -> None:
    """`latest`, `vN` (counted with dropped ones), aliases, ids and their beginnings."""
    assert repository.history.resolve(name).step == step


def test_beginning_shared_with_a_dropped_checkpoint(repository: Repository) -> None:
    """What is gone does not make a beginning ambiguous."""
    assert repository.history.resolve("aaaa").step == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("bbbb", "2 checkpoint ids"),
        ("v2", "was dropped"),
        ("aaaa444455556666", "was dropped"),
        ("aaaa4", "was dropped"),
        ("v0", "no checkpoint 'v0'"),
        ("v6", "latest, v5"),
        ("v05", "no checkpoint"),
        ("v" + "9" * 5000, "no checkpoint"),
        ("ccc", "no checkpoint"),
        ("dddd", "no checkpoint"),
        ("CCCC", "no checkpoint"),
        ("nobody", "champion"),
        ("", "no checkpoint"),
        ("best", "name the metric"),
    ],
)
def test_name_of_nothing(repository: Repository, name: str, says: str) -> None:
    """The error says why, and which names there are."""
    with pytest.raises(UnknownCheckpoint) as caught:
        repository.history.resolve(name)
    assert says in str(caught.value)


def test_best_by_a_metric(repository: Repository) -> None:
    """Either way round; of equals the newer one; without a value, or dropped, none counts."""
    history = repository.history
    assert history.resolve("best", metric="loss", lowest=True).step == 5
    assert history.resolve("best", metric="loss").step == 5
    with pytest.raises(UnknownCheckpoint):
        history.resolve("best", metric="accuracy")


@pytest.mark.parametrize(
    "name",
    ["latest", "best", "v1", "v0", "v007", "abcd", "cafe0123", "beef", "a" * 65, "1st", ".x", "-x",
     "a/b", "../x", "a b", "é", "a\n", ""],
)  # fmt: skip
def test_name_that_cannot_be_assigned(repository: Repository, name: str) -> None:
    """Computed names, what reads as an id, and what no file or command could hold."""
    with pytest.raises(UsageError):
        repository.set_alias(name, "cccc000000000000")


@pytest.mark.parametrize("name", ["abc", "v", "version-2", "a" * 64, "Latest", "face_0", "x.y"])
def test_name_that_can_be_assigned(repository: Repository, name: str) -> None:
    """It is moved, and removed, and everybody sees that."""
    for target in ("cccc000000000000", "bbbb000000000002"):
        repository.set_alias(name, target)
        history = open_repository(repository.store).history
        assert history.resolve(name).checkpoint == target
        assert name in history.names_of(target)
    repository.set_alias(name, None)
    assert name not in open_repository(repository.store).history.aliases
    with pytest.raises(UnknownCheckpoint):
        repository.set_alias(name, None)


@pytest.mark.parametrize("target", ["dddd000000000000", "aaaa444455556666", "cccc", "latest"])
def test_alias_to_nothing(repository: Repository, target: str) -> None:
    """An alias points to a checkpoint that exists, by its whole id."""
    with pytest.raises(UnknownCheckpoint):
        repository.set_alias("name", target)


# --- dropping by name


def test_drop_of_what_is_needed(repository: Repository) -> None:
    """The newest and the named ones stay; nothing of a refused drop happens."""
    before = look(repository.store)
    for ids, says in [
        (["cccc000000000000"], "the newest"),
        (["bbbb000000000001"], "called champion"),
        (["aaaa111122223333", "bbbb000000000001"], "called champion"),
        (["aaaa444455556666"], "no checkpoint"),
        (["dddd000000000000"], "no checkpoint"),
    ]:
        with pytest.raises(UsageError, match=says):
            repository.drop(ids)
    assert look(repository.store) == before
    assert repository.drop([]) == 0


def test_versions_after_a_drop(repository: Repository) -> None:
    """Numbers are never given again."""
    history: History = repository.history
    assert [history.versions()[c.checkpoint] for c in history.live()] == [1, 3, 4, 5]
