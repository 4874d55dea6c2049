"""`onward gate`, `onward promote`, `onward rollback`: what may be used, and the way back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onward.errors import Conflict, Damaged
from onward.learning.champion import champions, move_champion, stacked
from onward.learning.evidence import evidence_of
from onward.repository import open_repository
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats
from tests.cli.scored import Scored, answers


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    """Increment 1 is the champion; 2 changed nothing, 3 lost three points."""
    output = Scored(tmp_path / "out")
    output.freeze("old", 1)
    first = output.increment(1, old=answers())
    output.increment(2, old=answers(lost=20, won=20))
    output.increment(3, old=answers(lost=80, won=20))
    output.repository.set_alias("champion", first.checkpoint)
    return output


def champion(output: Output) -> str | None:
    return open_repository(LocalStore(output.folder)).history.aliases.get("champion")


def test_the_gate_says_what_it_found_and_ends_with_3_for_a_regression(
    onward: Onward, as_json: AsJson, scored: Scored
) -> None:
    assert onward("gate", scored.url, "v2").stdout.startswith("no change: v2 ")
    text = onward("gate", scored.url, code=3).stdout
    assert text.startswith("regression: v3 ")
    assert "accuracy 0.9 → 0.87" in text
    document = as_json("gate", scored.url, code=3)
    assert document["verdict"] == "regression"
    assert document["holdouts"][0]["difference"] == -0.03
    assert as_json("gate", scored.url, "v3", "--margin", "0.05")["passed"]
    assert as_json("gate", scored.url, "v1", "--against", "v3")["verdict"] == "better"


def test_the_margin_is_the_one_that_the_script_gave(
    onward: Onward, as_json: AsJson, scored: Scored
) -> None:
    """What a run's own verdict lets pass, `onward gate` and `onward promote` let pass as well."""
    generous = scored.increment(4, margin=0.06, old=answers(lost=80, won=20))
    assert as_json("gate", scored.url)["margin"] == 0.06
    assert as_json("gate", scored.url, "--margin", "0.01", code=3)["verdict"] == "regression"
    assert "no change" in onward("promote", scored.url).stdout
    assert champion(scored) == generous.checkpoint


def test_without_a_champion_there_is_nothing_to_compare_with(
    onward: Onward, as_json: AsJson, scored: Scored
) -> None:
    scored.repository.set_alias("champion", None)
    assert "no champion yet" in onward("gate", scored.url).stdout
    assert as_json("gate", scored.url)["verdict"] is None


def test_without_a_finished_increment_there_is_no_candidate(onward: Onward, output: Output) -> None:
    output.chain(2)
    for command in ("gate", "promote"):
        assert "no increment is finished" in onward(command, output.url, code=2).stderr
    onward("promote", output.url, "v1")
    assert "insufficient" in onward("gate", output.url, "v2").stdout


def test_only_what_passes_is_promoted(onward: Onward, as_json: AsJson, scored: Scored) -> None:
    """A regression ends with 3 and says how to insist; the champion stays."""
    before = champion(scored)
    refused = onward("promote", scored.url, code=3)
    assert "--force" in refused.stderr
    assert "regression" in refused.stderr
    assert champion(scored) == before
    assert as_json("promote", scored.url, "v3", code=3)["error"]["type"] == "Regression"
    done = as_json("promote", scored.url, "v2")
    assert (done["champion"], done["before"]) == (champion(scored), before)
    assert done["verdict"]["verdict"] == "no change"
    assert "already" in onward("promote", scored.url, "v2").stdout


def test_what_is_not_proven_is_promoted_only_by_force(onward: Onward, tmp_path: Path) -> None:
    output = Scored(tmp_path / "out")
    output.freeze("old", 1, digests=None, count=50)
    output.increment(1, old=np.ones(50, bool))
    second = output.increment(2, old=np.ones(50, bool))
    assert "the first" in onward("promote", output.url, "v1").stdout
    refused = onward("promote", output.url, code=1)
    assert "insufficient" in refused.stderr
    assert "forced" in onward("promote", output.url, "--force").stdout
    assert champion(output) == second.checkpoint


def test_a_damaged_candidate_is_not_promoted(onward: Onward, scored: Scored) -> None:
    assert scored.newest is not None
    scored.file("manifests", f"{scored.newest.checkpoint}.json").unlink()
    scored.repository.set_alias("champion", None)
    assert "cannot be restored" in onward("promote", scored.url, code=1).stderr
    assert champion(scored) is None


def test_rollback_goes_back_champion_by_champion(
    onward: Onward, as_json: AsJson, scored: Scored
) -> None:
    """1, 2, 3, then back to 2, to 1, and no further; the evidence is still there."""
    onward("promote", scored.url, "v2")
    onward("promote", scored.url, "v3", "--force")
    assert onward("rollback", scored.url).stdout.startswith("champion → v2 ")
    back = as_json("rollback", scored.url)
    assert back["champion"] == champion(scored)
    assert back["before"] != back["champion"]
    refused = onward("rollback", scored.url, code=2)
    assert "nothing was champion before" in refused.stderr
    onward("gate", scored.url, "v3", code=3)


def test_rollback_passes_over_what_was_dropped(onward: Onward, scored: Scored) -> None:
    onward("promote", scored.url, "v2")
    onward("promote", scored.url, "v3", "--force")
    onward("drop", scored.url, "v2", "--yes")
    assert onward("rollback", scored.url).stdout.startswith("champion → v1 ")
    assert "nothing was champion before" in onward("rollback", scored.url, code=2).stderr
    onward("alias", scored.url, "champion", "v3")
    onward("drop", scored.url, "v1", "--yes")
    assert "dropped since: v1" in onward("rollback", scored.url, code=2).stderr


def test_rollback_brings_back_a_champion_whose_name_was_taken_away(
    onward: Onward, scored: Scored
) -> None:
    onward("alias", scored.url, "champion", "--remove")
    assert onward("rollback", scored.url).stdout.startswith("champion → v1 ")


def test_the_stack_of_champions() -> None:
    assert stacked([]) == []
    assert stacked(["a", "b", "c"]) == ["a", "b", "c"]
    assert stacked(["a", "b", "c", "b"]) == ["a", "b"]
    assert stacked(["a", "b", "c", "b", "a"]) == ["a"]
    assert stacked(["a", "a", None, "b", "c", "b", "d"]) == ["a", "b", "d"]
    assert stacked(["a", "b", "c", "a"]) == ["a", "b", "c", "a"]
    assert stacked(["a", "b", "c", "a"], {"b"}) == ["a"]
    assert stacked(["b", "c", "a"], {"b"}) == ["b", "c", "a"]


def test_a_champion_that_moved_meanwhile_ends_the_promotion(scored: Scored) -> None:
    """The verdict was about another opponent."""
    repository = open_repository(LocalStore(scored.folder))
    first, second, third = repository.history.commits
    scored.repository.set_alias("champion", second)
    with pytest.raises(Conflict):
        move_champion(repository, third, expected=first)
    assert champions(repository) == [first, second]


def test_hostile_names_reach_no_terminal(onward: Onward, tmp_path: Path) -> None:
    """A state that others wrote may hold any name; the command shows it harmlessly."""
    output = Scored(tmp_path / "out")
    output.freeze("old", 1)
    output.holdouts._frozen["\x1b[2Jx\n<b>"] = output.holdouts["old"]
    output.increment(1, old=answers())
    output.increment(2, old=answers())
    text = onward("gate", output.url, "v2", "--against", "v1").stdout
    assert "\\x1b[2Jx\\n<b>" in text
    assert "<b>\n" not in text.replace("\\n<b>", "")
    matrix = onward("log", output.url, "--matrix").stdout
    assert "\\x1b[2Jx" in matrix


@pytest.mark.parametrize(
    "holdouts",
    [7, {"version": 1}, {"version": 1, "frozen": {"a": {}}}, {"version": 1, "frozen": [1]},
     {"version": "x", "frozen": {}}, {"version": 1, "frozen": {"a": {
         "increment": 1, "metric": "m", "higher_is_better": True, "count": 5, "digests": None,
         "clusters": None, "kind": "counted", "outcomes": floats(1, 2), "before": None}}}],
)  # fmt: skip
def test_evidence_that_is_none_is_damage(output: Output, holdouts: object) -> None:
    commit = output.save({"onward": {"learning": {"holdouts": holdouts}}})
    with pytest.raises(Damaged, match="holdouts"):
        evidence_of(output.repository, commit)


def test_a_checkpoint_without_holdouts_has_no_evidence(output: Output) -> None:
    for state in ({"w": floats(1)}, {"onward": 3}, {"onward": {"learning": None}}):
        assert evidence_of(output.repository, output.save(state)).holdouts == {}


def test_evidence_is_read_as_it_was_recorded(scored: Scored) -> None:
    """In another process's eyes, bit for bit; and the increment is known to begin from the last."""
    repository = open_repository(LocalStore(scored.folder))
    first, second, third = repository.history.commits.values()
    evidence = evidence_of(repository, third)
    assert evidence.began_from == second.checkpoint
    assert evidence_of(repository, first).began_from is None
    outcomes = evidence.holdouts["old"].outcomes
    assert outcomes is not None
    assert outcomes.dtype == np.bool_
    assert np.array_equal(outcomes, answers(lost=80, won=20))
    assert np.array_equal(evidence.holdouts["old"].digests, scored.holdouts["old"].digests)


def test_the_gate_needs_no_framework(scored: Scored) -> None:
    code = (
        "import sys, contextlib, io\n"
        "from onward.cli import main\n"
        "for name in (['gate'], ['log', '--matrix'], ['promote', '--force']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main([name[0], sys.argv[1], *name[1:]])\n"
        "print(*sorted({'torch', 'rich', 'obstore'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, scored.url], capture_output=True, text=True, check=True
    )
    assert done.stdout == "\n"
