"""A script that opens an output on a real S3 server by itself, without an agent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import onward
from onward import errors
from onward.repository import open_repository, verify
from onward.repository.mirror import Mirror
from onward.stores import parse
from onward.training.places import claim_working_copy, working_copies
from tests.servers import S3Server
from tests.training.test_run import DATA, MORE, Training

pytestmark = pytest.mark.servers


@pytest.fixture
def machine(
    seaweedfs: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], None]:
    """Makes this process look like another machine: an empty home of working copies."""
    for name, value in seaweedfs.environment.items():
        monkeypatch.setenv(name, value)

    def move_to(name: str) -> None:
        monkeypatch.setenv("ONWARD_HOME", str(tmp_path / name))

    return move_to


def train(url: str, *, data: Any = DATA, epochs: int = 2, finish: bool = True) -> onward.Run:
    training = Training()
    run = training.open(url, save_every_steps=2)  # type: ignore[arg-type]
    loader = run.loader(data, batch_size=4)
    for _epoch in run.epochs(epochs):
        for values, labels in loader:
            run.step(loss=training.step(values, labels))
    (run.finish if finish else run.close)()
    return run


def test_checkpoints_are_pushed_and_another_machine_goes_on(
    seaweedfs: S3Server, machine: Callable[[str], None]
) -> None:
    """All that was saved is remote when the run ends; resume and continue work elsewhere."""
    url = seaweedfs.url("alone")
    machine("one")
    train(url, finish=False)
    remote = open_repository(seaweedfs.store("alone"))
    steps = [c.step for c in remote.history.live()]
    assert steps[0] == 2
    assert {3, 6} <= set(steps) <= {2, 3, 5, 6}  # step 5 may be merged into the epoch's end
    machine("two")
    resumed = train(url)
    assert (resumed.verb, resumed.global_step) == ("resume", 6)
    machine("three")
    continued = train(url, data=MORE)
    assert (continued.verb, continued.increment) == ("continue", 2)
    remote.refresh()
    findings = verify(remote, every_byte=True)
    assert findings.intact
    assert findings.leftovers == []
    assert remote.history.latest().finished  # type: ignore[union-attr]


def test_a_take_over_elsewhere_fences_the_first_run(
    seaweedfs: S3Server, machine: Callable[[str], None]
) -> None:
    """Two machines on one bucket: exactly one proceeds, the other says who took over."""
    url = seaweedfs.url("two-writers")
    machine("one")
    first = Training()
    run = first.open(url)  # type: ignore[arg-type]
    machine("two")
    second = Training()
    other = second.open(url)  # type: ignore[arg-type]
    run.step(loss=first.step(*DATA[:4]))
    saved = run.save()
    with pytest.raises(errors.Fenced, match="took over"):
        run.close()
    other.step(loss=second.step(*DATA[:4]))
    kept = other.save()
    other.close()
    commits = open_repository(seaweedfs.store("two-writers")).history.commits
    assert kept in commits
    assert saved not in commits


def test_a_store_that_ignores_conditions_needs_a_promise(
    rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused by default with what to do; opened for a single writer; nothing is lost."""
    for name, value in {**rclone.environment, "ONWARD_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(errors.UnsafeStore, match="single_writer"):
        Training().open(rclone.url("unsafe"))  # type: ignore[arg-type]
    training = Training()
    run = training.open(rclone.url("unsafe"), single_writer=True)  # type: ignore[arg-type]
    run.step(loss=training.step(*DATA[:4]))
    saved = run.save()
    run.close()
    assert list(open_repository(rclone.store("unsafe")).history.commits) == [saved]


def test_a_script_may_name_its_output_by_url_under_an_agent(
    seaweedfs: S3Server, machine: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It works in the agent's working copy under the agent's claim, and fences nobody."""
    machine("one")
    url = seaweedfs.url("by-url")
    folder, mirror, writer = claim_working_copy(
        url, "the agent", single_writer=False, checkpoint="", fall_back=False, say=print
    )
    monkeypatch.setenv("ONWARD_OUTPUT", str(folder.output))
    monkeypatch.setenv("ONWARD_OUTPUT_URL", parse(url).url)
    monkeypatch.setenv("ONWARD_CLAIM", f"{writer.writer}:{writer.generation}")
    run = train(url)
    assert [commit.checkpoint for commit in mirror.push()][-1] == run.checkpoint
    assert mirror.remote.history.generation == writer.generation
    folder.release()


def test_a_save_waits_for_pushes_to_make_room(
    seaweedfs: S3Server,
    machine: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Within its limit the working copy holds few packs; nothing that was saved is lost for it.

    While the store does not take pushes, a save that finds no room is postponed, and training
    goes on; it is stored once there is room.
    """
    let_push, push = Event(), Mirror.push

    def when_let(self: Mirror, **options: Any) -> Any:
        return push(self, **options) if let_push.is_set() else []

    machine("one")
    train(seaweedfs.url("unlimited"))
    sizes = [c.stored for c in open_repository(seaweedfs.store("unlimited")).history.live()]
    limit = sizes[0] + 2 * max(sizes[1:])
    monkeypatch.setattr(Mirror, "push", when_let)
    url = seaweedfs.url("limited")
    training = Training()
    run = training.open(url, save_every_steps=1, save_every_epoch=False, space=limit)
    loader = run.loader(DATA, batch_size=4)
    for _epoch in run.epochs(4):
        for values, labels in loader:
            run.step(loss=training.step(values, labels))
            if run.global_step == 8:
                assert not open_repository(seaweedfs.store("limited")).history.commits
                let_push.set()
            elif run.global_step < 8:
                run._saves.saver.let_pass()  # so that each step begins a save, while there is room
    run.finish()
    assert "waits for pushes to make room" in capsys.readouterr().err
    remote = open_repository(seaweedfs.store("limited"))
    assert remote.history.live()[-1].finished
    assert len(remote.history.live()) >= 3
    assert verify(remote, every_byte=True).intact
    (folder,) = working_copies(url)
    assert sum(path.stat().st_size for path in folder.glob("onward/packs/*")) <= limit


def test_the_champion_of_an_output_in_a_bucket_is_challenged_from_another_machine(
    seaweedfs: S3Server, machine: Callable[[str], None]
) -> None:
    """Its evidence is read where it is; the name moves there, and a memory comes along."""
    from tests.training.test_champion import train as train_scored

    url = seaweedfs.url("champion")
    machine("one")
    assert train_scored(url, 1) is None
    remote = open_repository(seaweedfs.store("champion"))
    first = remote.history.latest()
    assert first is not None
    assert remote.history.aliases == {"champion": first.checkpoint}
    machine("two")
    verdict = train_scored(url, 2)
    assert verdict is not None
    assert verdict.passed
    remote = open_repository(seaweedfs.store("champion"))
    second = remote.history.latest()
    assert second is not None
    assert second.increment == 2
    assert remote.history.aliases == {"champion": second.checkpoint}
