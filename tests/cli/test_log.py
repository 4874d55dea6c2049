"""`onward log`: the history, its lineage, and nothing that a name can do to a terminal."""

from __future__ import annotations

from pathlib import Path

from onward.cli.graph import Graph, in_ascii
from onward.cli.text import clean
from onward.repository.mirror import Mirror
from onward.stores import LocalStore, MemoryStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, facts, floats


def drawing(*lineage: tuple[str, str | None]) -> list[str]:
    graph = Graph()
    lines = []
    for name, parent in lineage:
        row = graph.add(name, parent)
        lines += [*row.before, f"{row.node} {name}"]
    return lines


def test_newest_first_with_everything_about_each(onward: Onward, output: Output) -> None:
    """Version, id, step, epoch, increment, names, bytes, time and metrics; newest first."""
    first, second, third = output.chain(3)
    output.repository.set_alias("champion", second.checkpoint)

    text = onward("log", output.url).stdout

    assert text.index(third.checkpoint) < text.index(second.checkpoint)
    assert text.index(second.checkpoint) < text.index(first.checkpoint)
    lines = text.splitlines()
    assert lines[0].startswith(f"● v3  {third.checkpoint}  step 30  epoch 1  increment 1")
    assert lines[0].endswith("(latest)")
    assert "just now (" in lines[1]
    assert "loss 0.333333" in lines[1]
    assert "(champion)" in text
    assert max(len(line) for line in lines) <= 80


def test_json_has_the_facts_and_the_names(as_json: AsJson, output: Output) -> None:
    """One object; every checkpoint with its version, parent, bytes and metrics."""
    first, second = output.chain(2)
    output.repository.set_alias("champion", first.checkpoint)

    found = as_json("log", output.url)

    assert found["total"] == 2
    assert found["latest"] == second.checkpoint
    assert found["aliases"] == {"champion": first.checkpoint}
    newest, oldest = found["checkpoints"]
    assert newest["checkpoint"] == second.checkpoint
    assert (newest["version"], newest["step"], newest["parent"]) == (2, 20, first.checkpoint)
    assert newest["stored_bytes"] == second.stored
    assert oldest["aliases"] == ["champion"]
    assert oldest["metrics"] == {"loss": 1.0}


def test_n_shows_the_newest_and_says_what_is_hidden(onward: Onward, output: Output) -> None:
    output.chain(5)
    text = onward("log", output.url, "-n", 2).stdout
    assert "v5 " in text
    assert "v3 " not in text
    assert "3 older checkpoints" in text


def test_a_branch_is_drawn_and_named(onward: Onward, output: Output) -> None:
    """A checkpoint whose parent is not its predecessor names it, and the lines meet there."""
    base, other = output.chain(2)
    child = output.save(step=15, parent=base.checkpoint)

    lines = onward("log", output.url).stdout.splitlines()

    assert lines[0].startswith(f"● v3  {child.checkpoint}")
    assert "from v1" in lines[1]
    assert any(line.startswith(f"│ ● v2  {other.checkpoint}") for line in lines)
    assert "├─╯" in lines
    assert "●" not in onward("log", output.url, "--no-graph").stdout


def test_a_dropped_parent_is_said_and_bridged(onward: Onward, output: Output) -> None:
    first, second, third = output.chain(3)
    output.repository.refresh()
    output.repository.drop([second.checkpoint])

    text = onward("log", output.url).stdout

    assert "from v2 (dropped)" in text
    assert second.checkpoint not in text
    assert [line[0] for line in text.splitlines()][:3] == ["●", "│", "●"]
    assert first.checkpoint in text
    assert third.checkpoint in text


def test_records_show_claims_aliases_and_drops(
    onward: Onward, as_json: AsJson, output: Output
) -> None:
    """Who took over when, and what was renamed and dropped, between the checkpoints."""
    first, _second, _third = output.chain(3)
    output.repository.refresh()
    output.repository.set_alias("good", first.checkpoint)
    output.repository.set_alias("good", None)
    output.repository.drop([first.checkpoint])
    output.repository.claim("other pid 7")

    text = onward("log", output.url, "--records").stdout
    kinds = [record["kind"] for record in as_json("log", output.url, "--records")["records"]]

    assert "taken over by other pid 7 (generation 2)" in text
    assert "claimed by box pid 1 (train.py) (generation 1)" in text
    assert "alias good → v1" in text
    assert "alias good removed" in text
    assert "dropped v1" in text
    assert kinds == ["claim", "drop", "alias", "alias", "claim", "open"]
    only_newest = onward("log", output.url, "--records", "-n", 1).stdout
    assert "claimed by box" not in only_newest


def test_an_output_without_checkpoints_says_so(onward: Onward, output: Output) -> None:
    assert "holds no checkpoint yet" in onward("log", output.url).stdout


def test_names_cannot_drive_the_terminal(onward: Onward, output: Output) -> None:
    """Escape sequences, bidirectional overrides and newlines in metrics are shown, not obeyed."""
    output.save(metrics={"\x1b[31mloss\x1b]0;owned\x07": 1.0, "a\u202eb": 2.0, "c\nv9 fake": 3.0})

    text = onward("log", output.url).stdout

    assert "\\x1b[31mloss" in text
    assert "\\u202e" in text
    assert "c\\nv9 fake 3" in text
    assert "\x07" not in text


def test_clean_keeps_honest_text_and_shows_the_rest() -> None:
    assert clean("Genauigkeit größer 模型") == "Genauigkeit größer 模型"
    assert clean("a\tb\x7f\x85\u2028\ud800") == "a\\tb\\x7f\\x85\\u2028\\ud800"


def test_lanes_branch_join_and_are_used_again() -> None:
    """Each lane waits for one parent; siblings join the leftmost lane at their parent."""
    assert drawing(("e", "b"), ("d", "c"), ("c", "a"), ("b", "a"), ("a", None)) == [
        "● e", "│ ● d", "│ ● c", "● │ b", "├─╯", "● a",
    ]  # fmt: skip
    assert drawing(("d", "a"), ("c", "a"), ("b", "a"), ("a", None)) == [
        "● d", "│ ● c", "│ │ ● b", "├─┴─╯", "● a",
    ]  # fmt: skip
    assert drawing(("b", None), ("a", None)) == ["● b", "● a"]
    assert in_ascii("├─┴─╯●│") == "|---'*|"


def test_many_branches_stay_a_narrow_column() -> None:
    """Ten thousand children of one checkpoint cost neither width nor time."""
    lines = drawing(*((f"c{i}", "root") for i in range(3_000)), ("root", None))
    assert max(len(line) for line in lines) < 30
    assert lines[-1].endswith("root")


def test_thousands_of_checkpoints_are_listed_whole(onward: Onward, tmp_path: Path) -> None:
    """No checkpoint is left out in a pipe; `benchmarks/` measures how long that takes."""
    from tests.cli.long_log import write_long_log

    write_long_log(tmp_path / "long", 3_000)
    lines = onward("log", tmp_path / "long").stdout.splitlines()
    assert sum("increment" in line for line in lines) == 3_000


def test_a_working_copy_tells_what_is_not_pushed(
    onward: Onward, as_json: AsJson, tmp_path: Path
) -> None:
    """How many, how much, how old; nothing once all is pushed, and nothing of plain outputs."""
    mirror = Mirror(LocalStore(tmp_path / "copy"), MemoryStore())
    mirror.pull_log()
    writer = mirror.claim("test")
    first = writer.commit({"w": floats(1)}, facts())
    second = writer.commit({"w": floats(2)}, facts(parent=first.checkpoint))
    last = onward("log", tmp_path / "copy").stdout.splitlines()[-1]
    assert last.startswith("2 checkpoints (")
    assert "not pushed: in " in last
    (behind,) = as_json("log", tmp_path / "copy")["unpushed"]
    assert behind["checkpoints"] == 2
    assert behind["bytes"] == first.stored + second.stored
    mirror.push()
    assert "not pushed" not in onward("log", tmp_path / "copy").stdout
    assert as_json("log", tmp_path / "copy")["unpushed"] == []
