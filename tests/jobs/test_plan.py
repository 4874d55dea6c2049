"""The plan of a job against what the job then does: the delta, and how much it trains."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onward.data.file_list import FileList
from onward.data.snapshot import snapshot_folder
from onward.jobs.plan import Plan, make_plan
from onward.jobs.spec import JobSpec
from onward.repository import open_repository
from onward.stores import open_store
from tests.jobs.bench import Bench

# Reads its data as `read` says; a model that learns nothing much, quickly.
LEARN = """
import argparse, numpy as np, torch, onward
from onward.data import Folder, Table
parser = argparse.ArgumentParser()
parser.add_argument("--data_url")
parser.add_argument("--train_url")
parser.add_argument("--read", default="folder")
parser.add_argument("--budget", default="2 epochs")
parser.add_argument("--holdout", type=float, default=0.0)
args = parser.parse_args()
vector = lambda text: torch.tensor([float(len(str(text)))])
match args.read:
    case "folder":
        data = Folder(args.data_url, read=lambda path: vector(path.read_text()))
    case "table":
        data = Table(args.data_url, key="id", read=lambda row: vector(row["text"]))
    case "arrays":
        import pathlib
        files = sorted(pathlib.Path(args.data_url).glob("*.npy"))
        data = torch.utils.data.TensorDataset(
            torch.from_numpy(np.concatenate([np.load(file) for file in files])))
torch.manual_seed(0)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), 1e-6)
run = onward.open(args.train_url, model=model, optimizer=optimizer)
if args.holdout:
    run.scoring(lambda batch: (model(batch).squeeze(1) > 0).float())
loader = run.loader(data, batch_size=4, holdout=args.holdout)
run.plan(args.budget, retrain_epochs=3)
for epoch in run.epochs():
    for batch in loader:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        loss = model(x).square().mean()
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        run.step(loss=loss)
run.finish()
"""


class Lab:
    """One output trained again and again, each time planned before."""

    def __init__(self, bench: Bench, *arguments: str, data: str = "", **more: Any) -> None:
        self.bench = bench
        self.spec = JobSpec(
            bench.script(LEARN), str(bench.output), data=data or str(bench.data),
            arguments=arguments, **more,
        )  # fmt: skip

    def plan(self) -> Plan:
        return make_plan(self.spec)

    def train(self) -> dict[str, Any]:
        """What the finished increment recorded about itself."""
        more = {name: getattr(self.spec, name) for name in ("data", "budget", "verb")}
        outcome = self.bench.run(LEARN, *self.spec.arguments, **more).outcome
        assert outcome.exit_code == 0, self.bench.printed()[-2000:]
        repository = open_repository(open_store(str(self.bench.output)))
        latest = repository.history.latest()
        assert latest is not None
        assert latest.finished
        return dict(repository.manifest(latest).about)


def counts(plan: Plan) -> tuple[str, int, int, int]:
    assert plan.data is not None
    found = plan.data.difference
    assert found is not None
    return found.unit, found.added, found.changed, found.removed


def recorded(about: dict[str, Any]) -> tuple[str, int, int, int]:
    loader = about["data"]["loader0"]
    return "items", loader["added"], loader["changed"], loader["removed"]


def write_rows(path: Path, rows: dict[str, str]) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "text"])
        table.writerows(rows.items())


def test_files_of_a_folder_are_the_items_that_the_increment_finds(bench: Bench) -> None:
    """Added, changed, removed and renamed; and as many batches as are trained."""
    for number in range(20):
        (bench.data / f"{number}.txt").write_text("x" * number)
    lab = Lab(bench)
    assert lab.plan().training is None  # nobody can tell before the script did it once
    lab.train()

    (bench.data / "3.txt").write_text("another")
    (bench.data / "4.txt").unlink()
    (bench.data / "5.txt").rename(bench.data / "five.txt")
    for number in range(6):
        (bench.data / f"new {number}.txt").write_text(f"new {number}")
    plan = lab.plan()
    assert counts(plan) == ("items", 6, 1, 1)
    assert plan.data is not None
    assert plan.data.difference is not None
    assert plan.data.difference.names["changed"] == ["3.txt"]
    assert "    ~ 3.txt" in plan.lines()
    about = lab.train()
    assert counts(plan) == recorded(about)
    assert plan.training is not None
    assert (plan.training.items, plan.training.epoch) == (7, about["data"]["loader0"]["batches"])
    assert plan.training.batches == about["learning"]["steps"]

    (bench.data / "last.txt").write_text("the last one")
    plan, about = lab.plan(), lab.train()
    assert plan.training is not None
    assert (plan.training.exact, plan.training.batches) == (True, about["learning"]["steps"])


def test_rows_of_a_table_are_the_items_that_the_increment_finds(bench: Bench) -> None:
    """A table is read as the script reads it: a row with a known key and other text is changed."""
    table = bench.data / "rows.csv"
    rows = {f"row {number}": f"text {number}" for number in range(30)}
    (bench.data / "a.txt").unlink()
    write_rows(table, rows)
    lab = Lab(bench, "--read", "table", "--budget", "0.5 x retrain")
    lab.train()
    del rows["row 7"]
    rows |= {"row 8": "another text", "row 31": "new", "row 32": "newer"}
    write_rows(table, rows)
    plan = lab.plan()
    assert counts(plan) == ("items", 2, 1, 1)
    about = lab.train()
    assert counts(plan) == recorded(about)
    assert plan.training is not None
    assert (plan.training.budget, plan.training.batches) == (
        "0.5 x retrain", about["learning"]["steps"],
    )  # fmt: skip
    assert lab.plan().nothing_new


def test_where_only_files_can_be_compared_batches_are_estimated(bench: Bench) -> None:
    """A script's own dataset: the files say what is new, what they hold is judged by their size."""
    (bench.data / "a.txt").unlink()
    rng = np.random.default_rng(0)
    for number in range(3):
        np.save(bench.data / f"{number}.npy", rng.random((16, 1), "f4"))
    lab = Lab(bench, "--read", "arrays")
    lab.train()
    for number in (3, 4):
        np.save(bench.data / f"{number}.npy", rng.random((16, 1), "f4"))
    plan = lab.plan()
    assert counts(plan) == ("files", 2, 0, 0)
    assert plan.data is not None
    assert plan.data.difference is not None
    assert plan.data.difference.names["added"] == ["3.npy", "4.npy"]
    about = lab.train()
    assert plan.training is not None
    assert not plan.training.exact
    assert plan.training.batches == about["learning"]["steps"]
    assert "about" in plan.training.sentence()


def test_what_will_be_held_out_is_not_promised_to_be_learned(bench: Bench) -> None:
    """A holdout takes its share of what is new: the plan says about how much is left."""
    for number in range(40):
        (bench.data / f"{number}.txt").write_text("x" * number)
    lab = Lab(bench, "--holdout", "0.25")
    lab.train()
    for number in range(40):
        (bench.data / f"new {number}.txt").write_text("y" * (number + 1))
    plan, about = lab.plan(), lab.train()
    assert counts(plan)[:2] == ("items", 40)
    assert plan.training is not None
    assert not plan.training.exact
    assert plan.training.items == pytest.approx(about["learning"]["new"], abs=2)


def test_what_an_unfinished_increment_has_left_is_told(bench: Bench) -> None:
    """After a crash the rest is known exactly."""
    lab = Lab(bench)
    crashing = LEARN.replace("run.step(loss=loss)", "run.step(loss=loss); run.save(); 1 / 0")
    for number in range(15):
        (bench.data / f"{number}.txt").write_text("x" * number)
    bench.run(crashing, data=lab.spec.data)
    training = lab.plan().training
    assert training is not None
    assert (training.batches, training.rest, training.exact) == (7, True, True)
    assert "train: 7 batches are left of this increment" in lab.plan().lines()


def test_a_plan_reads_no_more_than_it_may(bench: Bench) -> None:
    """Whoever waits for a plan of much data is told what can be told at once."""
    lab = Lab(bench)
    lab.train()
    for number in range(20):
        (bench.data / f"{number}.txt").write_text("x" * number)
    plan = make_plan(lab.spec, most_read_bytes=1000)
    assert plan.data is not None
    assert (plan.data.items, plan.data.new, plan.data.difference) == (21, None, None)


@pytest.mark.servers
def test_of_data_at_a_store_names_and_sizes_tell_before_it_is_fetched(
    bench: Bench, s3_url: Callable[[str], str]
) -> None:
    """What only fetching tells is counted as that; once it is here, nothing is left unsaid."""
    store = open_store(s3_url("data"))
    for number in range(8):
        store.put(f"{number}.txt", [b"x" * (number + 1)], number + 1)
    lab = Lab(bench, data=s3_url("data"))
    lab.train()
    store.put("8.txt", [b"new"], 3)
    store.put("1.txt", [b"longer than before"], 18)
    store.put("2.txt", [b"abc"], 3)
    store.delete("3.txt")
    plan = lab.plan()
    assert plan.data is not None
    found = plan.data.difference
    assert found is not None
    assert (found.unit, found.added, found.changed, found.removed) == ("files", 1, 1, 1)
    assert (found.unsure, found.known) == (1, 5)
    assert plan.data.new is None
    assert recorded(lab.train()) == ("items", 1, 2, 1)


def test_a_list_of_files_is_read_back_as_it_was_or_not_at_all(tmp_path: Path) -> None:
    """It comes from the environment and from checkpoints, where anything may stand."""
    for name in ("a", "b c", "ü"):
        (tmp_path / name).write_text(name)
    files = FileList.of(snapshot_folder(tmp_path))
    again = FileList.unpack(files.pack())
    assert again is not None
    assert again.document() == files.document()
    for wrong in ("", "x", "{}", files.pack()[:-5]):
        assert FileList.unpack(wrong) is None
    document = files.document()
    for change in (
        {"names": ["a", "a", "b"]}, {"names": ["a"]}, {"names": [1, 2, 3]}, {"sizes": [1, 2, -3]},
        {"contents": "zz"}, {"contents": 5}, {"sizes": None},
    ):  # fmt: skip
        assert FileList.read({**document, **change}) is None
    assert FileList.read(None) is None
