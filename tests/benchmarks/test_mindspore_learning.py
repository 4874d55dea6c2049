"""The same increments in both frameworks: same samples, same losses, same records of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.learning import beside, reference, results, running, table
from benchmarks.learning.results import Line
from benchmarks.learning.scenarios import Items, Scenario, Stage, accuracy
from benchmarks.learning.sides import make_side
from benchmarks.learning.vision import _mlp
from torch.nn.functional import cross_entropy

import onward
from onward import learning
from onward.frameworks.base import TensorLeaf
from onward.learning.matrix import matrix_of
from onward.repository import open_repository, read_state
from onward.stores import open_store

BOTH = ("torch", "mindspore")
DTYPES = {"F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1", "BOOL": "|b1", "U64": "<u8"}


def blobs(seed: int, classes: range) -> Items:
    """Forty points around each of some corners of a cube."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.tensor([c for c in classes for _ in range(40)])
    corners = torch.stack([targets // 2**axis % 2 for axis in range(3)], dim=1).float() * 4 - 2
    return Items(corners + 0.5 * torch.randn(len(targets), 3, generator=generator), targets)


def cube(*, sequence: bool = True) -> Scenario:
    """Four corners of a cube, two by two."""
    parts = (range(2), range(2, 4))
    return Scenario(
        name="split-mnist" if sequence else "fashion-classes",
        title="corners",
        stages=tuple(Stage(blobs(1, c), blobs(2, c), {"classes": c.stop}) for c in parts),
        make_model=lambda size: _mlp(3, (16, 16), size),
        loss=cross_entropy,
        score=accuracy,
        unit="accuracy %",
        batch_size=16,
        peak_rate=0.01,
        retrain_steps=80,
        stage_steps=(20, 20) if sequence else (),
        shares=(0.2,),
    )


@dataclass
class Learned:
    """What one framework did."""

    rows: list[list[int]] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    state: Any = None
    matrix: Any = None


def learned(framework: str, output: Path) -> Learned:
    """The stages of the cube by DER++, as the benchmark and its users would call Onward."""
    scenario, found = cube(), Learned()
    for number, stage in enumerate(scenario.stages, 1):
        side = make_side(framework, scenario, size=stage.size, seed=3)
        names = onward.names(output, "classes", range(stage.size["classes"]))
        run = onward.open(
            output, model=side.model, optimizer=side.optimizer, classes=names, seed=5,
            grow={"model.4": names}, save_every_seconds=None,
            strategy=learning.strategy("der++", memory=24, policy="class-balanced"),
        )  # fmt: skip
        loader = run.loader(
            side.dataset(stage.items), batch_size=16, labels=stage.items.targets.numpy(),
            ids=[f"{number}/{item}" for item in range(len(stage.items))], only_new=True,
        )  # fmt: skip
        run.scoring(lambda batch, model=side.model: model(batch[0]).argmax(1) == batch[1])
        for k in range(number):
            held_out = side.dataset(scenario.stages[k].holdout)
            run.holdout(f"stage {k}", held_out, ids=[f"t{k}/{i}" for i in range(len(held_out))])
        run.plan(f"{scenario.stage_steps[number - 1]} steps", moments="reset")
        for _epoch in run.epochs():
            for batch in loader:
                found.rows.append(list(loader.rows))
                loss = side.step(batch, run.penalty)
                found.losses.append(loss.item())
                run.step(loss=loss)
        run.finish()
    repository = open_repository(open_store(output))
    latest = repository.history.latest()
    assert latest is not None
    found.state = read_state(repository.store, repository.manifest(latest))["onward"]
    found.matrix = matrix_of(repository.history)
    return found


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Learned, Learned]:
    folder = tmp_path_factory.mktemp("both")
    torch_s, mindspore_s = (learned(framework, folder / framework) for framework in BOTH)
    return torch_s, mindspore_s


def leaves(tree: Any, path: str = "") -> dict[str, Any]:
    """Every value of a state by its path, tensors as arrays, whatever kind they were of."""
    match tree:
        case dict():
            parts = [leaves(value, f"{path}/{_name(key)}") for key, value in tree.items()]
            return {name: value for part in parts for name, value in part.items()}
        case list() | tuple():
            return leaves(dict(enumerate(tree)), path)
        case TensorLeaf():
            assert tree.data is not None
            return {path: tree.data.view(DTYPES[tree.dtype]).reshape(tree.shape)}
    return {path: tree}


def _name(key: Any) -> str:
    """A column of a memory is named by its place and what a sample has there: `[0]:torch`."""
    return str(key).partition(":")[0]


def test_the_same_samples_give_the_same_losses(both: tuple[Learned, Learned]) -> None:
    """Row by row the same items and the same slots of the memory; penalties included."""
    ours_, theirs = both
    assert theirs.rows == ours_.rows
    assert any(index >= 80 for rows in ours_.rows[20:] for index in rows), "no slot was replayed"
    np.testing.assert_allclose(theirs.losses, ours_.losses, rtol=1e-3, atol=1e-4)
    assert min(ours_.losses) < 0.5 * ours_.losses[0], "nothing was learned"


def test_both_remember_and_record_the_same(both: tuple[Learned, Learned]) -> None:
    """Ledger, memory, logits, plan and positions: equal; what was computed, within rounding."""
    ours_, theirs = (leaves(side.state) for side in both)
    assert theirs.keys() == ours_.keys()
    assert {"ledger", "strategy"} <= {part for path in ours_ for part in path.split("/")}
    compared = 0
    for path, value in ours_.items():
        if path.startswith("/learning/holdouts") or "/samples/forms/" in path:
            continue  # outcomes are compared as the matrix; forms name the framework's tensors
        if isinstance(value, np.ndarray) and value.dtype.kind == "f":
            np.testing.assert_allclose(theirs[path], value, rtol=1e-2, atol=1e-3, err_msg=path)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(theirs[path], value, err_msg=path)
        elif isinstance(value, float):  # such as a learning rate, which MindSpore has in float32
            assert theirs[path] == pytest.approx(value, rel=1e-2), path
        else:
            assert theirs[path] == value, path
        compared += 1
    assert compared > 20


def test_both_have_the_same_matrix(both: tuple[Learned, Learned]) -> None:
    """Every increment's scores on every holdout."""
    ours_, theirs = both
    assert replace(theirs.matrix, checkpoints={}) == replace(ours_.matrix, checkpoints={})
    assert theirs.matrix.rows.keys() == {1, 2}


def test_each_method_is_run_in_each_framework(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """References once, ours twice, with about the same scores; then nothing is left to run."""
    monkeypatch.setattr(running, "load", lambda name: cube(sequence=False))
    file = tmp_path / "results.jsonl"
    arguments = ("fashion-classes", 0, file, BOTH, ["retrain", "uniform"], [0.1, 1.0])
    assert running.run_all(*arguments) == 3
    assert running.run_all(*arguments) == 0
    retrain, in_torch, in_mindspore = results.read(file)
    assert (retrain.method, retrain.framework) == (reference.RETRAIN, "torch")
    assert (in_torch.method, in_torch.framework) == ("onward: uniform", "torch")
    assert (in_mindspore.method, in_mindspore.framework) == ("onward: uniform", "mindspore")
    assert in_mindspore.steps == in_torch.steps == 8
    for name, score in in_torch.metrics.items():
        assert in_mindspore.metrics[name] == pytest.approx(score, abs=2.6)


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    """Not trained as something else."""
    from benchmarks.learning.mindspore import copied

    with pytest.raises(TypeError, match="Embedding"):
        copied(torch.nn.Sequential(torch.nn.Embedding(3, 2)))


def line(score: float, *, seed: int, framework: str, scenario: str = "split-mnist") -> Line:
    return Line(scenario, "onward: er", 1.0, seed, {"score": score}, 10, 0.5, framework)


def test_differences_are_taken_seed_by_seed(tmp_path: Path) -> None:
    """A seed that only one framework has is left out; both parts of a page stay where they are."""
    lines = [line(90.0 + seed, seed=seed, framework="torch") for seed in range(4)]
    lines += [line(90.2 + seed, seed=seed, framework="mindspore") for seed in (2, 0, 1)]
    part = beside.page(lines, heading="seen")
    assert "| +0.20 ± 0.00 | +0.20, +0.20, +0.20 | ± 1 | met |" in part
    assert "| split-mnist, onward: er, 100% | 50.0 ± 0.0 | 50.0 ± 0.0 |" in part
    file = tmp_path / "page.md"
    file.write_text(f"{table.BEGIN}\nold\n{table.END}\n")
    table.write(file, part)
    table.write(file, part)
    assert file.read_text() == f"{table.BEGIN}\nold\n{table.END}\n\n{part}\n"


def test_a_difference_beyond_the_target_is_said(tmp_path: Path) -> None:
    """On either side of it."""
    for apart in (1.5, -1.5):
        lines = [line(90.0, seed=seed, framework="torch") for seed in range(2)]
        lines += [line(90.0 + apart, seed=seed, framework="mindspore") for seed in range(2)]
        assert "MISSED" in beside.page(lines, heading="")
