"""`onward prune`, `pin` and `unpin`: rules, protection, what is told and what is freed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from onward.cli import export
from onward.repository import open_repository
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats
from tests.cli.test_names import live


def _tree(output: Output) -> dict[str, bytes]:
    return {
        str(path.relative_to(output.folder)): path.read_bytes()
        for path in output.folder.rglob("*")
        if path.is_file()
    }


def _pack_bytes(output: Output) -> int:
    return sum(path.stat().st_size for path in output.file("packs", "").iterdir())


def test_a_dry_run_changes_nothing_and_tells_exactly(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """Not a byte of the tree; and the prune then does just what was told."""
    output.chain(6)
    before, packs = _tree(output), _pack_bytes(output)
    planned = as_json("prune", output.url, "--keep-last", "2", "--keep-every", "30", "--dry-run")
    onward("prune", output.url, "--keep-last", "2", "--dry-run")
    assert _tree(output) == before

    done = as_json("prune", output.url, "--keep-last", "2", "--keep-every", "30")

    assert done == {**planned, "dry_run": False}
    assert live(output) == [3, 5, 6]
    assert done["freed_bytes"] == packs - _pack_bytes(output) > 0
    assert [c["version"] for c in done["checkpoints"] if c["goes"]] == [4, 2, 1]
    assert done["checkpoints"][0]["reasons"] == ["newest", "last 2", "every 30 steps"]
    onward("verify", output.url, "--every-byte")


def test_people_see_why(onward: Onward, output: Output) -> None:
    """One line a checkpoint, newest first, then what it comes to."""
    output.chain(3)
    onward("alias", output.url, "champion", "v1")
    lines = onward("prune", output.url, "--keep-last", "1", "--dry-run").stdout.splitlines()
    assert lines[0].startswith("stays  v3 ")
    assert lines[0].endswith("newest, last 1")
    assert lines[1].startswith("goes   v2 ")
    assert lines[2].endswith("alias champion")
    assert lines[3] == "would drop 1 checkpoint, 2 remain"
    assert lines[4].startswith("would free ")
    assert (
        onward("prune", output.url, "--keep-last", "1").stdout.splitlines()[3].startswith("dropped")
    )


def test_without_a_rule_nothing_is_forgotten(onward: Onward, output: Output) -> None:
    output.chain(3)
    assert "dropped 0 checkpoints, 3 remain" in onward("prune", output.url).stdout
    assert live(output) == [1, 2, 3]


def test_a_pin_protects_until_it_is_taken_away(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """From rules and from an explicit drop; it is shown as what it is, and is no alias."""
    first, *_ = output.chain(3)
    assert onward("pin", output.url, "v1").stdout == f"pinned v1 {first.checkpoint}\n"
    onward("prune", output.url, "--keep-last", "1")
    assert live(output) == [1, 3]
    refused = onward("drop", output.url, "v1", "--yes", code=2).stderr
    assert "is pinned" in refused
    assert "onward unpin" in refused
    shown = onward("log", output.url, "--records").stdout
    assert "(pinned)" in shown
    assert "- pinned v1" in shown
    assert "(pinned)" in onward("show", output.url, "v1").stdout
    listed = as_json("log", output.url)
    assert listed["aliases"] == {}
    assert listed["pinned"] == [first.checkpoint]
    assert [c["pinned"] for c in listed["checkpoints"]] == [False, True]

    onward("unpin", output.url, "v1")
    assert "not pinned" in onward("unpin", output.url, "v1", code=2).stderr
    assert "- unpinned v1" in onward("log", output.url, "--records").stdout
    onward("prune", output.url, "--keep-last", "1")
    assert live(output) == [3]


def test_names_of_pins_are_no_aliases(onward: Onward, output: Output) -> None:
    """Nobody can pin, or take a pin away, by way of `onward alias`."""
    (first,) = output.chain(1)
    name = f"pin-{first.checkpoint}"
    assert "name of a pin" in onward("alias", output.url, name, "v1", code=2).stderr
    onward("pin", output.url, "v1")
    assert "name of a pin" in onward("alias", output.url, name, "--remove", code=2).stderr
    onward("alias", output.url, "pin-ned", "v1")


def test_grace_keeps_bytes_for_readers(onward: Onward, as_json: AsJson, output: Output) -> None:
    """With a grace time bytes stay, and the next prune without one frees them."""
    output.chain(3)
    packs = _pack_bytes(output)
    planned = as_json("prune", output.url, "--keep-last", "1", "--grace", "1h", "--dry-run")
    waiting = as_json("prune", output.url, "--keep-last", "1", "--grace", "1h")
    assert waiting == {**planned, "dry_run": False}
    assert (waiting["freed_bytes"], _pack_bytes(output)) == (0, packs)
    assert "stay for readers" in onward("prune", output.url, "--grace", "1h").stdout
    freed = as_json("prune", output.url)["freed_bytes"]
    assert freed == waiting["waiting_bytes"] == packs - _pack_bytes(output) > 0
    assert as_json("prune", output.url)["freed_bytes"] == 0


def test_leftovers_go_after_the_next_claim(onward: Onward, as_json: AsJson, output: Output) -> None:
    """Not before: until then they may belong to a save in flight."""
    output.chain(2)
    left = output.file("packs", f"{'a' * 32}.safetensors")
    left.write_bytes(b"cut off")
    for _ in range(2):
        assert as_json("prune", output.url)["leftovers"] == 0
    open_repository(LocalStore(output.folder)).claim("the next run")
    assert "would delete 1 leftover" in onward("prune", output.url, "--dry-run").stdout
    assert left.exists()
    assert "deleted 1 leftover" in onward("prune", output.url).stdout
    assert not left.exists()
    assert as_json("verify", output.url)["leftovers"] == []


@pytest.mark.parametrize(
    "wrong",
    [["--keep-last", "0"], ["--keep-every", "-5"], ["--keep-best", "los"], ["--keep-best", ":min"],
     ["--grace", "soon"], ["--keep-best", "loss:max:0"]],
)  # fmt: skip
def test_impossible_rules_are_refused(onward: Onward, output: Output, wrong: list[str]) -> None:
    """Before anything is dropped."""
    output.chain(3)
    assert onward("prune", output.url, *wrong, code=2).stderr.startswith("error: ")
    assert live(output) == [1, 2, 3]


def test_best_by_a_metric(onward: Onward, output: Output) -> None:
    """Highest unless :min, and more than one with :N."""
    for number, loss in enumerate([3.0, 1.0, 2.0, 5.0], 1):
        output.save({"model": {"w": floats(number)}}, step=number, metrics={"loss": loss})
    onward("prune", output.url, "--keep-best", "loss:min:2", "--keep-best", "loss")
    assert live(output) == [2, 3, 4]
    onward("prune", output.url, "--keep-best", "loss:min")
    assert live(output) == [2, 4]


def test_export_that_comes_too_late(
    onward: Onward, output: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`latest` becomes the newer one; a checkpoint by name is an error that says what happened."""
    output.chain(2)
    original = export.models_in

    def meanwhile(*args: Any) -> Any:
        repository = open_repository(LocalStore(output.folder))
        live = repository.history.live()
        step = 100 + len(live)
        output.save({"model": {"w": floats(step)}}, step=step, parent=live[-1].checkpoint)
        repository.drop([commit.checkpoint for commit in live])
        monkeypatch.setattr(export, "models_in", original)
        return original(*args)

    monkeypatch.setattr(export, "models_in", meanwhile)
    file = tmp_path / "a.safetensors"
    assert "step 102" in onward("export", output.url, file).stdout
    output.save({"model": {"w": floats(200)}}, step=200)
    monkeypatch.setattr(export, "models_in", meanwhile)
    late = onward("export", output.url, "v3", tmp_path / "b.safetensors", code=1).stderr
    assert "was dropped while it was read" in late
    assert not (tmp_path / "b.safetensors").exists()


def _sparse(output: Output) -> None:
    """The first pack holds a little that all need, and much that only v1 did."""
    for number in (1, 2, 3):
        state = {"model": {"w": floats(*[number] * 100), "frozen": floats(*range(8))}}
        output.save(state, step=number)


def test_mostly_dead_packs_are_rewritten(onward: Onward, as_json: AsJson, output: Output) -> None:
    """A dry run foresees it and writes nothing; --no-repack leaves them."""
    _sparse(output)
    as_json("prune", output.url, "--keep-last", "2", "--no-repack")
    before, packs = _tree(output), _pack_bytes(output)
    assert "would repack 1 pack, saving about" in onward("prune", output.url, "--dry-run").stdout
    assert _tree(output) == before
    done = as_json("prune", output.url)
    assert done["repacked"]["packs"] == 1
    assert done["repacked"]["saved_bytes"] == packs - _pack_bytes(output) > 0
    assert "- repacked 2 checkpoints (1 pack)" in onward("log", output.url, "--records").stdout
    onward("verify", output.url, "--every-byte")
    assert as_json("prune", output.url)["repacked"]["packs"] == 0


def test_a_prune_foresees_what_it_will_repack(as_json: AsJson, output: Output) -> None:
    """The packs that its own drops leave mostly dead."""
    _sparse(output)
    rules = ["--keep-last", "2"]
    assert as_json("prune", output.url, *rules, "--dry-run")["repacked"]["packs"] == 1
    assert as_json("prune", output.url, *rules)["repacked"]["packs"] == 1


def test_a_damaged_pack_is_not_repacked(onward: Onward, as_json: AsJson, output: Output) -> None:
    """What is wrong is told, and nothing of it is touched."""
    _sparse(output)
    as_json("prune", output.url, "--keep-last", "2", "--no-repack")
    largest = max(output.file("packs", "").iterdir(), key=lambda path: path.stat().st_size)
    output.flip(largest, -1)
    lines = onward("prune", output.url).stdout
    assert (
        f"not repacked: {largest.name.partition('.')[0]}: tensor model/frozen is damaged" in lines
    )
    assert largest.exists()
