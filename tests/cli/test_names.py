"""`onward alias` and `onward drop`: names that protect, and forgetting for good."""

from __future__ import annotations

import pytest

from onward.repository import open_repository
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output


def live(output: Output) -> list[int]:
    history = open_repository(LocalStore(output.folder)).history
    return [history.versions()[commit.checkpoint] for commit in history.live()]


def test_an_alias_is_given_moved_and_removed(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    first, second = output.chain(2)
    assert onward("alias", output.url, "champion", "v1").stdout.startswith("champion → v1")
    moved = onward("alias", output.url, "champion", "latest").stdout
    assert moved == f"champion → v2 {second.checkpoint} (before: v1 {first.checkpoint})\n"
    assert as_json("alias", output.url, "champion", "--remove") == {
        "alias": "champion", "checkpoint": None, "before": second.checkpoint
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [["latest", "v1"], ["v9", "v1"], ["a b", "v1"], ["dead", "v1"], ["x"], ["x", "v1", "--remove"],
     ["nobody", "--remove"], ["x", "v77"]],
)  # fmt: skip
def test_impossible_aliases_are_refused(onward: Onward, output: Output, wrong: list[str]) -> None:
    """Computed names, other characters, what looks like an id, unknown checkpoints and names."""
    output.chain(1)
    assert onward("alias", output.url, *wrong, code=2).stderr.startswith("error: ")


def test_a_dry_run_tells_what_a_drop_then_frees(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """The plan and the deed agree; shared packs stay."""
    first, _second, _third = output.chain(3)
    planned = as_json("drop", output.url, "v1", "v2", "--dry-run")
    assert live(output) == [1, 2, 3]
    assert planned["dropped"][0] == first.checkpoint

    done = as_json("drop", output.url, "v1", "v2", "--yes")

    assert done == {**planned, "dry_run": False}
    assert done["freed_bytes"] > 0
    assert live(output) == [3]
    onward("verify", output.url, "--every-byte")
    assert "was dropped" in onward("show", output.url, "v1", code=2).stderr


def test_without_a_terminal_a_drop_needs_yes(onward: Onward, output: Output) -> None:
    output.chain(2)
    result = onward("drop", output.url, "v1", code=2)
    assert "--yes" in result.stderr
    assert live(output) == [1, 2]
    assert "would free" in onward("drop", output.url, "v1", "--dry-run").stdout


def test_the_newest_and_the_named_are_kept(onward: Onward, output: Output) -> None:
    """A dry run refuses what the drop would refuse."""
    first, _second = output.chain(2)
    output.repository.set_alias("champion", first.checkpoint)
    for how in ("--dry-run", "--yes"):
        assert "is the newest" in onward("drop", output.url, "latest", how, code=2).stderr
        assert "is called champion" in onward("drop", output.url, "v1", how, code=2).stderr
        assert "no checkpoint" in onward("drop", output.url, "v9", how, code=2).stderr
    assert live(output) == [1, 2]


def test_a_store_that_keeps_no_writers_apart_needs_the_promise(
    onward: Onward, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names move and checkpoints go only with --single-writer; a change never makes an output."""
    output.chain(2)
    monkeypatch.setattr("onward.repository.repository.honours_create", lambda store: False)
    for change in (["alias", output.url, "good", "latest"], ["drop", output.url, "v1", "--yes"]):
        assert "--single-writer" in onward(*change, code=1).stderr
        onward(*change, "--single-writer")
    assert live(output) == [2]
    nowhere = output.folder.parent / "nowhere"
    onward("alias", nowhere, "good", "latest", "--single-writer", code=2)
    assert not nowhere.exists()


def test_a_checkpoint_without_its_manifest_can_still_be_dropped(
    onward: Onward, output: Output
) -> None:
    first, _second = output.chain(2)
    output.file("manifests", f"{first.checkpoint}.json").unlink()
    onward("drop", output.url, "v1", "--yes")
    assert live(output) == [2]
    onward("verify", output.url, "--every-byte")
