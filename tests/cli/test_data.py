"""`onward data`: what a model has learned from, told from its checkpoints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from blake3 import blake3

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.data.provenance import read_ledgers, who_learned
from onward.errors import OnwardError
from onward.learning.holdouts import Holdouts
from onward.repository import Commit
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output
from tests.data.ledgers import frozen, keyed, learned, state_with


class Student:
    """A model that learns increment after increment at an output."""

    def __init__(self, output: Output) -> None:
        self.output = output
        self.ledger = Ledger()
        self.commits: list[Commit] = []

    def learn(self, items: Items, *, finished: bool = True, **given: Any) -> Commit:
        """One more increment: a checkpoint in the middle of it, and if wanted one at its end."""
        if self.ledger.pinned is not None:
            self.ledger.learn_pinned()
        self.ledger.pin(items)
        self.save(finished=False, **given)
        return self.save(finished=True, **given) if finished else self.commits[-1]

    def save(self, *, finished: bool, **given: Any) -> Commit:
        latest = self.commits[-1] if self.commits else None
        about = {"data": {"train": {"items": 7, "new": self.ledger.pinned, "digest": "ab" * 32}}}
        commit = self.output.save(
            state_with(train=self.ledger.state_dict()),
            step=10 * len(self.commits),
            parent=latest.checkpoint if latest else None,
            increment=1 if latest is None else latest.increment + latest.finished,
            finished=finished,
            **{"about": about, **given},
        )
        self.commits.append(commit)
        return commit


@pytest.fixture
def student(output: Output) -> Student:
    return Student(output)


def files(folder: Path, data: Mapping[str, str]) -> Items:
    """A folder of these files, as the items that they are."""
    contents = []
    for name, text in data.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        contents.append(np.frombuffer(blake3(text.encode()).digest(), np.uint8))
    return Items.keyed(list(data), np.array(contents).reshape(len(data), 32))


@dataclass
class Source:
    """Data in place of a folder or tables."""

    items: Items
    names: list[str]

    def snapshot(self) -> Any:
        return SimpleNamespace(identified=self.items, names=self.names)


@pytest.fixture
def sources(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What lies where, and under "asked" how it was asked for."""
    held: dict[str, Any] = {}

    def open_source(url: str, **options: Any) -> Source:
        held["asked"] = (url, options)
        found: Source = held[url]
        return found

    module = SimpleNamespace(open_source=open_source)
    monkeypatch.setitem(sys.modules, "onward.data.sources", module)
    return held


# onward data seen


def test_a_file_was_seen_whatever_it_is_called_now(
    student: Student, onward: Onward, as_json: AsJson, tmp_path: Path
) -> None:
    """By its content; a class folder that went into the content is found among its folders."""
    student.learn(files(tmp_path / "data", {"a.txt": "one", "b.txt": "two"}))
    (tmp_path / "renamed").write_text("one")
    (tmp_path / "other").write_text("three")
    answer = onward("data", "seen", student.output.url, tmp_path / "renamed").stdout
    assert answer.split() == ["seen", str(tmp_path / "renamed")]
    result = onward(
        "data", "seen", student.output.url, tmp_path / "other", tmp_path / "renamed", code=1
    )
    assert result.stdout.startswith("not seen")
    asked = as_json("data", "seen", student.output.url, tmp_path / "other", code=1)
    assert (asked["seen"], asked["items"][0]["by"]) == (False, "file")

    in_class = blake3(blake3(b"four").digest() + b"cat").digest(length=8)
    student.learn(Items.keyed(["cat/1"], np.frombuffer(in_class, np.uint8).reshape(1, 8)))
    for folder, code in (("cat", 0), ("dog", 1)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("four")
        onward("data", "seen", student.output.url, tmp_path / folder / "file", code=code)


def test_finished_and_unfinished_increments_are_told_apart(
    student: Student, as_json: AsJson, onward: Onward
) -> None:
    """Any checkpoint can be asked, an old one too."""
    first = student.learn(keyed({"a": 1}))
    student.learn(keyed({"a": 1, "b": 2}), finished=False)
    url = student.output.url
    document = as_json("data", "seen", url, "--key", "a", "--key", "b")
    assert [(i["item"], i["seen"], i["learned"]) for i in document["items"]] == [
        ("a", True, True), ("b", True, False),
    ]  # fmt: skip
    old = as_json("data", "seen", url, "--key", "b", "--checkpoint", first.checkpoint, code=1)
    assert old["checkpoint"] == first.checkpoint
    assert onward("data", "seen", url, "--key", "a", "--key", "b").stdout.splitlines() == [
        "seen                              a", "seen by the unfinished increment  b",
    ]  # fmt: skip
    hostile = onward("data", "seen", url, "--key", "\x1b[31m\n", code=1)
    assert hostile.stdout == "not seen  \\x1b[31m\\n\n"


def test_ids_may_have_been_text_or_numbers(student: Student, onward: Onward) -> None:
    """On a command line both look alike."""
    student.learn(Items.identified([7, "eight", "9"]))
    url = student.output.url
    onward("data", "seen", url, "--id", "7", "--id", "eight", "--id", "9")
    onward("data", "seen", url, "--id", "07", code=1)
    refused = onward("data", "seen", url, "--key", "7", code=2)
    assert "known by id" in refused.stderr


def test_counted_items_are_asked_for_by_their_number(student: Student, onward: Onward) -> None:
    """However large the number is."""
    student.learn(Items.counted(3))
    url = student.output.url
    onward("data", "seen", url, "--id", "0", "--id", "2")
    for beyond in ("3", "999999999999999"):
        assert onward("data", "seen", url, "--id", beyond, code=1).stdout.startswith("not seen")
    for wrong in (["--key", "2"], ["--id", "two"], ["--id", "-1"], [__file__]):
        assert "by their number" in onward("data", "seen", url, *wrong, code=2).stderr
    assert "no item is named" in onward("data", "seen", url, code=2).stderr


def test_files_that_cannot_be_read_are_named(
    student: Student, onward: Onward, tmp_path: Path
) -> None:
    student.learn(keyed({"a": 1}))
    for path in (tmp_path / "nowhere", tmp_path):
        assert "cannot be read" in onward("data", "seen", student.output.url, path, code=1).stderr


# onward data diff


def test_data_is_compared_with_what_is_learned(
    student: Student, onward: Onward, as_json: AsJson, sources: dict[str, Any]
) -> None:
    """Counts, the names of what is new, the ids of what is gone."""
    student.learn(keyed({"a": 1, "b": 2, "c": 3}), finished=False)
    data = {"b": 2, "evil\x1b\n": 9, "c": 30, "renamed": 1}
    sources["there"] = Source(keyed(data), list(data))
    url = student.output.url
    text = onward("data", "diff", url, "there").stdout
    assert "1 added, 1 changed, 0 removed, 2 known" in text
    assert "  + evil\\x1b\\n\n" in text
    assert "  ~ c\n" in text
    assert "counts as finished, with 3 items to learn" in text
    del data["renamed"]
    sources["there"] = Source(keyed(data), list(data))
    document = as_json("data", "diff", url, "there", "--key", "id", "--format", "csv")
    assert sources["asked"] == ("there", {"key": "id", "format": "csv"})
    assert document["counts"] == {"added": 1, "changed": 1, "removed": 1, "known": 1}
    gone = keyed({"a": 1}).digests
    assert gone is not None
    assert document["removed"] == [bytes(gone[0]).hex()]
    assert document["changed"] == ["c"]
    sources["same"] = Source(keyed({"x": 1, "y": 2, "z": 3}), ["x", "y", "z"])
    sources["other"] = Source(keyed({"x": 7}), ["x"])
    assert "read as the script reads it" in onward("data", "diff", url, "other").stdout
    assert "no difference: 3 items" in onward("data", "diff", url, "same").stdout


def test_what_is_held_out_is_not_waiting_to_be_learned(
    output: Output, onward: Onward, as_json: AsJson, sources: dict[str, Any]
) -> None:
    """Items of frozen holdouts, changed ones too, are told apart from what is added."""
    held = keyed({"h": 7, "i": 8})
    holdouts = Holdouts()
    holdouts.freeze(
        "increment 1", digests=held.digests, count=2, increment=1, metric="accuracy",
        higher_is_better=True, kind="keyed",
    )  # fmt: skip
    state = state_with(train=learned(keyed({"a": 1})).state_dict())
    state["onward"]["learning"] = frozen({"holdouts": holdouts.state_dict()})
    output.save(state, finished=True)
    data = {"a": 1, "h": 7, "i": 80}
    sources["same"] = Source(keyed(data), list(data))
    sources["more"] = Source(keyed({**data, "b": 2}), [*data, "b"])
    text = onward("data", "diff", output.url, "same").stdout
    assert "no difference: 1 item, all known, 2 held out" in text
    text = onward("data", "diff", output.url, "more").stdout
    assert "1 added, 0 changed, 0 removed, 1 known, 2 held out" in text
    assert "  + b\n" in text
    assert as_json("data", "diff", output.url, "more")["held_out"] == 2


def test_long_differences_are_cut_and_said_to_be(
    student: Student, onward: Onward, as_json: AsJson, sources: dict[str, Any]
) -> None:
    student.learn(keyed({"a": 1}))
    data = {f"item {i}": 100 + i for i in range(50)}
    sources["there"] = Source(keyed(data), list(data))
    text = onward("data", "diff", student.output.url, "there").stdout
    assert (text.count("  + item"), "… 30 more items: --all shows them" in text) == (20, True)
    text = onward("data", "diff", student.output.url, "there", "--all").stdout
    assert text.count("  + item") == 50
    assert len(as_json("data", "diff", student.output.url, "there")["added"]) == 20


def test_two_checkpoints_are_compared(student: Student, onward: Onward, as_json: AsJson) -> None:
    """What the data of one has that the other's lacks, either way round."""
    student.learn(keyed({"a": 1, "b": 2}))
    student.learn(keyed({"a": 1, "c": 3, "d": 4}))
    url = student.output.url
    counts = as_json("data", "diff", url, "v1", "v4")["counts"]
    assert counts == {"added": 2, "changed": 0, "removed": 1, "known": 1}
    back = as_json("data", "diff", url, "v4", "v1")
    assert back["counts"] == {"added": 0, "changed": 0, "removed": 2, "known": 2}
    assert all(len(name) == 32 for name in back["removed"])
    assert "no difference" in onward("data", "diff", url, "v1", "v2").stdout
    assert "leave them out" in onward("data", "diff", url, "v1", "v2", "--classes", code=2).stderr


def test_counted_checkpoints_are_compared_by_number(student: Student, as_json: AsJson) -> None:
    student.learn(Items.counted(3))
    student.learn(Items.counted(5))
    url = student.output.url
    later = as_json("data", "diff", url, "v1", "v4")
    assert (later["counts"]["added"], later["added"]) == (2, ["item 3", "item 4"])
    assert as_json("data", "diff", url, "v4", "v1")["counts"]["removed"] == 2


def test_one_of_several_loaders_is_named(output: Output, onward: Onward) -> None:
    """Or the error says which there are."""
    one, two = Ledger(), Ledger()
    one.pin(Items.counted(3))
    two.pin(keyed({"a": 1}))
    output.save(state_with(left=one.state_dict(), right=two.state_dict()))
    wrong = onward("data", "withdrawn", output.url, code=2).stderr
    assert "--loader one of: left, right" in wrong
    assert (
        "nothing is withdrawn" in onward("data", "withdrawn", output.url, "--loader", "left").stdout
    )
    assert "no loader 'up'" in onward("data", "log", output.url, "--loader", "up", code=2).stderr
    onward("data", "seen", output.url, "--id", "2", "--key", "a")
    assert onward("data", "log", output.url).stdout.count("\n") == 3


# onward data log


def test_each_increment_is_told(student: Student, onward: Onward, as_json: AsJson) -> None:
    """From the newest checkpoint of each; only documents are read, so that packs may be away."""
    student.learn(keyed({"a": 1, "b": 2, "c": 3}))
    student.learn(keyed({"a": 1, "b": 20, "d": 4, "e": 5}))
    student.learn(keyed({"a": 1, "b": 20, "d": 4, "f": 6}), finished=False)
    for pack in (student.output.folder / "onward" / "packs").iterdir():
        pack.unlink()
    document = as_json("data", "log", student.output.url)
    rows = [one["loaders"]["train"] for one in document["increments"]]
    assert [one["increment"] for one in document["increments"]] == [3, 2, 1]
    assert [one["finished"] for one in document["increments"]] == [False, True, True]
    assert [
        [row[key] for key in ("added", "changed", "removed", "known", "withdrawn")] for row in rows
    ] == [[1, 0, 1, 7, 2], [2, 1, 1, 6, 1], [3, 0, 0, 3, 0]]
    assert rows[0]["digest"] == "ab" * 32
    text = onward("data", "log", student.output.url).stdout.splitlines()
    assert text[0].split() == [
        "increment", "checkpoint", "items", "added", "changed", "removed", "known", "withdrawn",
        "data",
    ]  # fmt: skip
    assert text[1].startswith("3 (unfinished)  v5 ")
    assert text[1].endswith("abababababab")


def test_a_log_of_older_and_stranger_checkpoints_still_reads(
    output: Output, onward: Onward, as_json: AsJson
) -> None:
    """Version-1 ledgers, none at all, dropped ones, and a manifest that tells nonsense."""
    ids = Items.identified("abc").digests
    old = {"version": 1, "known": 0, "pinned": ids, "replayable": None}
    about = {"data": {"train": {"items": 3, "new": 3, "known": 0, "batches": 1}}}
    first = output.save(state_with(train=old), finished=True, about=about)
    second = output.save(parent=first.checkpoint, increment=2, finished=True, about={"data": 5})
    nonsense = {"data": {"tr\x1bain": {"items": "many", "new": [], "digest": 7}, "b": None}}
    output.save(parent=second.checkpoint, increment=3, about=nonsense)
    rows = as_json("data", "log", output.url)["increments"]
    assert rows[2]["loaders"]["train"]["known"] == 3
    assert (rows[1]["loaders"], rows[0]["loaders"]["b"]["items"]) == ({}, None)
    output.repository.refresh()
    onward("drop", output.url, "v1", "--yes")
    assert onward("data", "log", output.url).stdout.splitlines()[-1].endswith("dropped")


# onward data withdrawn


def test_who_learned_what_was_withdrawn_and_where_to_begin_without_it(
    student: Student, onward: Onward, as_json: AsJson
) -> None:
    """Every live checkpoint that met it, how much of it, and the newest ancestor that did not."""
    url = student.output.url
    clean = student.learn(keyed({"a": 1}))
    one = student.learn(keyed({"a": 1, "b": 2}))
    student.learn(keyed({"a": 1, "b": 2, "c": 3}))
    student.output.repository.set_alias("champion", one.checkpoint)
    assert "nothing is withdrawn" in onward("data", "withdrawn", url).stdout
    assert as_json("data", "withdrawn", url)["count"] == 0
    student.learn(keyed({"a": 1, "d": 4}))
    document = as_json("data", "withdrawn", url)
    assert document["count"] == 2
    assert [(e["checkpoint"], e["items"]) for e in document["learned"]] == [
        (commit.checkpoint, 1 if 2 <= at < 4 else 2)
        for at, commit in reversed(list(enumerate(student.commits)))
        if at >= 2
    ]
    assert document["clean_ancestor"] == clean.checkpoint
    text = onward("data", "withdrawn", url).stdout
    assert "2 items learned and gone" in text
    assert "1 of 2  champion" in text
    assert f"newest clean ancestor: v2 {clean.checkpoint}" in text


def test_what_is_missing_now_is_withdrawn_before_any_increment_says_so(
    student: Student, onward: Onward, as_json: AsJson, sources: dict[str, Any]
) -> None:
    """Data of which something only went has nothing to learn, and yet a question to answer."""
    clean = student.learn(keyed({"a": 1}))
    student.learn(keyed({"a": 1, "b": 2}), finished=False)
    sources["there"] = Source(keyed({"a": 1}), ["a"])
    document = as_json("data", "withdrawn", student.output.url, "there")
    assert (document["count"], document["clean_ancestor"]) == (1, clean.checkpoint)
    assert [one["checkpoint"] for one in document["learned"]] == [student.commits[-1].checkpoint]
    sources["there"] = Source(keyed({"a": 1, "moved": 2}), ["a", "moved"])
    assert "nothing is withdrawn" in onward("data", "withdrawn", student.output.url, "there").stdout


def test_where_every_ancestor_learned_it_none_is_clean(
    student: Student, onward: Onward, as_json: AsJson
) -> None:
    """And checkpoints that cannot say, and other outputs, are named rather than believed."""
    student.output.save(increment=1, finished=True)
    student.commits.append(student.output.save(origin={"url": "s3://there", "checkpoint": "ab12"}))
    student.learn(keyed({"a": 1, "b": 2}))
    student.learn(keyed({"a": 1, "c": 2, "d": 3}))
    assert as_json("data", "withdrawn", student.output.url)["count"] == 0
    student.learn(keyed({"a": 1, "e": 5}))
    document = as_json("data", "withdrawn", student.output.url)
    assert (document["clean_ancestor"], len(document["unknown"])) == (None, 2)
    text = onward("data", "withdrawn", student.output.url).stdout
    assert "no ancestor is clean" in text
    assert "weights came from s3://there@ab12" in text


def test_a_damaged_ledger_is_no_clean_one(student: Student) -> None:
    """Bytes that are not what was written say nothing."""
    first = student.learn(keyed({"a": 1}))
    student.learn(keyed({"b": 2}))
    [name] = student.output.repository.manifest(first).packs
    digest = keyed({"a": 1}).digests
    assert digest is not None
    pack = student.output.file("packs", f"{name}.safetensors")
    student.output.flip(pack, pack.read_bytes().index(digest.tobytes()))
    found = who_learned(student.output.repository, keyed({"b": 2}))
    assert (found.clean, len(found.unknown)) == (None, 2)


def test_an_output_without_ledgers_says_so(output: Output, onward: Onward) -> None:
    """Imported checkpoints, loaders of the user's own, and outputs that hold nothing."""
    assert "no checkpoint" in onward("data", "log", output.url, code=2).stderr
    output.chain(2)
    for command in (["seen", output.url, "--id", "1"], ["withdrawn", output.url]):
        assert "has no ledger" in onward("data", *command, code=1).stderr
    assert "no data is told of" in onward("data", "log", output.url).stdout


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"version": 3}, {"version": 2, "kind": "keyed"}, {"version": 1, "known": "x"},
        {"version": 2, "kind": "keyed", "entries": 1, "segments": [5], "marks": [], "pinned": None},
        {"version": 2, "kind": 3, "segments": {"a": np.zeros((2, 2), np.uint8)}},
        {"version": 2, "kind": "counted", "entries": 2, "segments": [], "marks": "no"},
    ],
)  # fmt: skip
def test_hostile_ledgers_are_refused_not_obeyed(
    output: Output, onward: Onward, wrong: dict[str, Any]
) -> None:
    """Whoever wrote the output: an error with what to do, never a traceback."""
    commit = output.save(state_with(train=wrong))
    onward("data", "log", output.url)
    for command in (["seen", output.url, "--id", "1"], ["withdrawn", output.url]):
        assert "error: the ledger" in onward("data", *command, code=1).stderr
    with pytest.raises(OnwardError):
        read_ledgers(output.repository.store, output.repository.manifest(commit))
    who_learned(output.repository, keyed({"a": 1}))
    who_learned(output.repository, Items.counted(2))


def test_the_group_explains_itself(onward: Onward) -> None:
    """Without a command, and each command of it with --help, in 80 columns."""
    assert all(f"\n  {name}" in onward("data").stdout for name in ("seen", "diff", "log"))
    for name in ("seen", "diff", "log", "withdrawn"):
        text = onward("data", name, "-h").stdout
        assert text.startswith(f"Usage: onward data {name}")
        assert max(len(line) for line in text.splitlines()) <= 80


def test_a_real_run_can_be_asked(onward: Onward, as_json: AsJson, tmp_path: Path) -> None:
    """What training stored, the commands find, and they need no framework for it."""
    import torch

    import onward as library

    def train(ids: list[str]) -> None:
        model = torch.nn.Linear(1, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        run = library.open(url, model=model, optimizer=optimizer, save_every_seconds=None)
        data = torch.utils.data.TensorDataset(torch.ones(len(ids), 1))
        loader = run.loader(data, batch_size=2, ids=ids, name="train")
        for _epoch in run.epochs(1):
            for (values,) in loader:
                optimizer.zero_grad()
                model(values).sum().backward()
                optimizer.step()
                run.step()
        run.finish()

    url = str(tmp_path / "out")
    train(["a", "b", "c"])
    train(["b", "c", "d", "e"])
    onward("data", "seen", url, "--id", "a", "--id", "e")
    onward("data", "seen", url, "--id", "d", "--checkpoint", "v1", code=1)
    rows = [one["loaders"]["train"] for one in as_json("data", "log", url)["increments"]]
    assert [(row["items"], row["added"], row["removed"], row["known"]) for row in rows] == [
        (4, 2, 1, 5), (3, 3, 0, 3),
    ]  # fmt: skip
    found = as_json("data", "withdrawn", url)
    assert (found["count"], found["clean_ancestor"]) == (1, None)
    code = (
        "import sys, contextlib, io\n"
        "from onward.cli import main\n"
        "for words in (['seen', '--id', 'a'], ['log'], ['withdrawn'], ['diff', 'v1', 'latest']):\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "        main(['data', words[0], sys.argv[1], *words[1:]])\n"
        "print(*sorted({'torch', 'rich', 'obstore'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, url], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"\n", b"")
