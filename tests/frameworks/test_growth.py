"""Tables that grow, and what optimizers keep for them: row by row, to where the row is now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from onward.frameworks import growth
from onward.frameworks import torch as framework
from onward.frameworks.base import TensorLeaf
from onward.frameworks.growth import Table
from tests.frameworks.test_torch_optimizers import OPTIMIZERS
from tests.frameworks.torch_training import same, through_an_output, through_bytes, without_data

OLD, NEW, WIDTH = 8, 10, 5
IN_ORDER = np.arange(OLD)
ELSEWHERE = np.array([9, 0, 2, 1, 7, 5, 4, 3])


class Classifier(nn.Module):
    def __init__(self, classes: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.body = nn.Linear(3, WIDTH)
        self.head = nn.Linear(WIDTH, classes)
        self.to(dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.body(x)))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, steps: int = 3) -> None:
    dtype = next(model.parameters()).dtype
    for step in range(steps):
        torch.manual_seed(1000 + step)
        x, y = torch.randn(16, 3, dtype=dtype), torch.randint(OLD, (16,))

        def closure(x: torch.Tensor = x, y: torch.Tensor = y) -> torch.Tensor:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x).float(), y)
            loss.backward()
            return loss

        optimizer.step(closure)


def head_tables(targets: Any, rows: int = NEW, at: str = "model.head") -> dict[str, Table]:
    return {
        f"{at}.weight": Table((OLD, WIDTH), rows, targets),
        f"{at}.bias": Table((OLD,), rows, targets),
    }


def grow(live: dict[str, Any], tree: Any, tables: dict[str, Table]) -> None:
    """As a restore for a new budget does it."""
    described = framework.grown(live, without_data(tree), tables)
    assert framework.differences_in_growth(live, without_data(tree), tables) == []
    assert framework.differences_for_new_budget(live, described) == []
    framework.restore_for_new_budget(live, framework.grown(live, through_bytes(tree), tables))


@pytest.mark.parametrize("targets", [IN_ORDER, ELSEWHERE])
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "lbfgs"])
def test_rows_and_slots_of_each_optimizer_follow_their_names(name: str, targets: Any) -> None:
    """Old rows bit for bit where their name is now; new rows fresh, their slots as they begin."""
    saved = Classifier(OLD)
    optimizer = OPTIMIZERS[name](saved)
    train(saved, optimizer)
    tree = framework.capture({"model": saved, "optimizer": optimizer})

    model = Classifier(NEW, seed=1)
    fresh = {key: value.clone() for key, value in model.state_dict().items()}
    other = OPTIMIZERS[name](model)
    live = {"model": model, "optimizer": other}
    grow(live, tree, head_tables(targets))

    added = np.setdiff1d(np.arange(NEW), targets)
    assert torch.equal(model.body.weight, saved.body.weight)
    for part in ("weight", "bias"):
        now, before = getattr(model.head, part), getattr(saved.head, part)
        assert torch.equal(now[targets], before)
        assert torch.equal(now[added], fresh[f"head.{part}"][added])
        slots, had = other.state[now], optimizer.state[before]
        assert slots.keys() == had.keys()
        for key, slot in slots.items():
            if not isinstance(slot, torch.Tensor) or key in ("step", "col_var") or slot.ndim == 0:
                assert same(framework_value(slot), framework_value(had[key]))
                continue
            assert slot.shape[0] == NEW
            assert torch.equal(slot[targets], had[key])
            begins = other.param_groups[0]["lr"] if key == "step_size" else 0.0
            assert bool((slot[added] == begins).all()), key
    train(model, other, steps=1)
    assert all(bool(torch.isfinite(p).all()) for p in model.parameters())


def framework_value(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_new_rows_of_adagrad_begin_at_its_initial_value(dtype: torch.dtype) -> None:
    """Zero would make the first step of a new class a jump."""
    saved = Classifier(OLD, dtype=dtype)
    optimizer = torch.optim.Adagrad(saved.parameters(), initial_accumulator_value=0.5)
    train(saved, optimizer)
    model = Classifier(NEW, dtype=dtype)
    other = torch.optim.Adagrad(model.parameters(), initial_accumulator_value=0.25)
    train(model, other)  # whatever the live slots hold, it is not what new rows begin with
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    grow({"model": model, "optimizer": other}, tree, head_tables(ELSEWHERE))
    sums = other.state[model.head.weight]["sum"]
    assert sums.dtype == dtype
    assert torch.equal(sums[ELSEWHERE], optimizer.state[saved.head.weight]["sum"])
    assert bool((sums[[6, 8]] == 0.25).all())


def test_slots_of_trained_live_optimizers_are_not_taken_over() -> None:
    """A warm-up before opening leaves nothing behind in the moments."""
    saved, model = Classifier(OLD), Classifier(NEW, seed=1)
    optimizer, other = (torch.optim.Adam(m.parameters()) for m in (saved, model))
    train(saved, optimizer)
    train(model, other, steps=5)
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    grow({"model": model, "optimizer": other}, tree, head_tables(IN_ORDER))
    for slot in ("exp_avg", "exp_avg_sq"):
        assert not other.state[model.head.weight][slot][OLD:].any()
    assert other.state[model.head.weight]["step"] == 3


class Ratings(nn.Module):
    def __init__(self, users: int, items: int, *, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.users = nn.Embedding(users, 4, sparse=True)
        self.items = nn.Embedding(items, 4, sparse=True)

    def learn(self, optimizer: torch.optim.Optimizer, count: int) -> None:
        optimizer.zero_grad()
        numbers = torch.arange(count)
        (self.users(numbers) * self.items(numbers)).sum().backward()
        optimizer.step()


def test_sparse_embeddings_grow() -> None:
    """Users and items with SparseAdam: one grows out of order, the other only turns around."""
    saved, model = Ratings(3, 4, seed=0), Ratings(5, 4, seed=1)
    optimizer, other = (torch.optim.SparseAdam(list(m.parameters())) for m in (saved, model))
    saved.learn(optimizer, 3)
    fresh = model.users.weight.detach().clone()
    turned = np.array([3, 2, 1, 0])
    tables = {
        "model.users.weight": Table((3, 4), 5, np.array([4, 0, 1])),
        "model.items.weight": Table((4, 4), 4, turned),
    }
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    grow({"model": model, "optimizer": other}, tree, tables)
    assert torch.equal(model.users.weight[[4, 0, 1]], saved.users.weight)
    assert torch.equal(model.users.weight[[2, 3]], fresh[[2, 3]])
    assert torch.equal(model.items.weight[turned], saved.items.weight)
    slot, before = other.state[model.items.weight], optimizer.state[saved.items.weight]
    assert torch.equal(slot["exp_avg"][turned], before["exp_avg"])
    assert slot["step"] == before["step"] == 1
    model.learn(other, 4)


def test_tables_that_lie_in_another_order_in_memory_grow() -> None:
    """Columns first, as a transposed weight: values follow their names, strides stay."""
    saved, model = Classifier(OLD), Classifier(NEW, seed=1)
    for each in (saved, model):
        each.head.weight = nn.Parameter(each.head.weight.detach().t().contiguous().t())
    optimizer, other = (torch.optim.Adam(m.parameters()) for m in (saved, model))
    train(saved, optimizer)
    fresh = model.head.weight.detach().clone()
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    grow({"model": model, "optimizer": other}, tree, head_tables(ELSEWHERE))
    assert torch.equal(model.head.weight[ELSEWHERE], saved.head.weight)
    assert torch.equal(model.head.weight[[6, 8]], fresh[[6, 8]])
    moment, before = (o.state[m.head.weight] for o, m in ((other, model), (optimizer, saved)))
    assert moment["exp_avg"].stride() == model.head.weight.stride() == (1, NEW)
    assert torch.equal(moment["exp_avg"][ELSEWHERE], before["exp_avg"])


def test_averaged_copies_grow_like_the_model() -> None:
    """`ema.module.head` is a table of its own."""
    saved = Classifier(OLD)
    ema = AveragedModel(saved)
    train(saved, torch.optim.SGD(saved.parameters(), lr=0.1))
    ema.update_parameters(saved)
    ema.update_parameters(Classifier(OLD, seed=7))
    model = Classifier(NEW, seed=1)
    live = {"model": model, "ema": AveragedModel(model)}
    fresh = model.head.weight.detach().clone()
    tables = head_tables(ELSEWHERE) | head_tables(ELSEWHERE, at="ema.module.head")
    grow(live, framework.capture({"model": saved, "ema": ema}), tables)
    head = live["ema"].module.head  # type: ignore[union-attr]
    assert torch.equal(head.weight[ELSEWHERE], ema.module.head.weight)
    assert torch.equal(head.weight[[6, 8]], fresh[[6, 8]])
    assert live["ema"].n_averaged == 2


class Together(torch.optim.SGD):
    """An optimizer with a way of its own to say its state."""

    def state_dict(self) -> Any:
        return {"of its own": 1}

    def load_state_dict(self, state_dict: Any) -> None:
        raise AssertionError


class Preconditioned(torch.optim.Optimizer):
    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.1})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p] = {
                    "square": torch.eye(len(p)), "count": torch.ones(1), "names": ["x", None],
                    "history": [torch.zeros_like(p)],
                }  # fmt: skip


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (
            lambda p: torch.optim.LBFGS(p, max_iter=2),
            ["LBFGS keeps its state in a form of its own"],
        ),
        (lambda p: Together(p), ["Together keeps its state in a form of its own"]),
        (
            lambda p: Preconditioned(p),
            [
                f"state[model.head.{part}].{slot}: it is not kept row by row"
                for part in ("weight", "bias")
                for slot in ("square", "history")
            ],
        ),
    ],
)
def test_state_that_is_not_kept_row_by_row_is_refused(
    make: Callable[[Any], torch.optim.Optimizer], expected: list[str]
) -> None:
    """It would fail in the first step, or worse, would not."""
    saved, model = Classifier(OLD), Classifier(NEW)
    optimizer, other = make(list(saved.parameters())), make(list(model.parameters()))
    train(saved, optimizer, steps=1)
    tree = without_data(framework.capture({"model": saved, "optimizer": optimizer}))
    live = {"model": model, "optimizer": other}
    lines = framework.differences_in_growth(live, tree, head_tables(IN_ORDER))
    assert len(lines) == len(expected)
    assert all(part in line for part, line in zip(expected, lines, strict=True))
    assert framework.differences_in_growth(live, tree, {}) == []


@pytest.mark.parametrize("old", [0, 1])
def test_tables_of_no_row_or_one_grow(old: int) -> None:
    """A slot of one element is still a slot, and a step count of one is not."""
    saved, model = nn.Linear(3, old), nn.Linear(3, 2)
    optimizer, other = (torch.optim.Adam(m.parameters()) for m in (saved, model))
    if old:
        saved(torch.ones(3)).sum().backward()
        optimizer.step()
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    targets = np.arange(old)
    tables = {
        "model.weight": Table((old, 3), 2, targets),
        "model.bias": Table((old,), 2, targets),
    }
    grow({"model": model, "optimizer": other}, tree, tables)
    assert torch.equal(model.weight[:old], saved.weight)
    if old:
        assert other.state[model.bias]["exp_avg"].shape == (2,)
        assert other.state[model.bias]["step"].shape == ()
    model(torch.ones(3)).sum().backward()
    other.step()


def test_what_grows_is_not_read_into_live_memory() -> None:
    """A table of the same shape in another order, too: else it would be its own source."""
    saved, model = Classifier(OLD), Classifier(OLD, seed=1)
    optimizer, other = (torch.optim.Adam(m.parameters()) for m in (saved, model))
    train(saved, optimizer)
    train(model, other)
    live = {"model": model, "optimizer": other}
    tree = framework.capture({"model": saved, "optimizer": optimizer})
    targets = np.array([7, 6, 5, 4, 3, 2, 1, 0])
    tables = head_tables(targets, rows=OLD)
    described = without_data(tree)
    into = growth.kept_apart(
        framework.destinations(live), described, framework.grown(live, described, tables)
    )
    assert "head.weight" not in into["model"]
    assert "exp_avg" not in into["optimizer"]["state"]["model.head.bias"]
    assert "step" in into["optimizer"]["state"]["model.head.bias"]
    assert {"body.weight", "body.bias"} <= into["model"].keys()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    read = through_an_output(tree, into)
    assert torch.equal(model.head.weight, before["head.weight"])
    assert torch.equal(model.body.weight, saved.body.weight)
    framework.restore_for_new_budget(live, framework.grown(live, read, tables))
    assert torch.equal(model.head.weight[targets], saved.head.weight)
    assert torch.equal(
        other.state[model.head.weight]["exp_avg"][targets],
        optimizer.state[saved.head.weight]["exp_avg"],
    )


def test_tied_tables_are_found_by_their_memory() -> None:
    """Who names one of two tied tensors means both."""
    model = nn.ModuleDict({"embedding": nn.Embedding(6, 3), "out": nn.Linear(3, 6, bias=False)})
    model["out"].weight = model["embedding"].weight
    live = framework.capture({"model": model, "again": model["out"]})
    assert growth.paths_at("model.embedding", live, rows=6) == ["model.embedding.weight"]
    found = growth.tied(["model.embedding.weight"], live)
    assert found == {
        "model.out.weight": "model.embedding.weight",
        "again.weight": "model.embedding.weight",
    }
    assert growth.paths_at("model.emb", live, rows=6) == []
    assert growth.paths_at("again", live, rows=6) == ["again.weight"]
    assert growth.paths_at("model", live, rows=3) == []


def test_only_what_differs_in_rows_alone_is_a_table() -> None:
    """Another width or dtype stays a difference, and so do rows without a name."""

    def leaf(dtype: str, *shape: int) -> TensorLeaf:
        return TensorLeaf(dtype, shape, "torch")

    stored = leaf("F32", 8, 5)
    assert growth.table_for(stored, leaf("F32", 10, 5), IN_ORDER, rows=10) is not None
    for live, targets, rows in (
        (leaf("F32", 10, 6), IN_ORDER, 10),
        (leaf("F16", 10, 5), IN_ORDER, 10),
        (leaf("F32", 10), IN_ORDER, 10),
        (leaf("F32", 10, 5), IN_ORDER, 9),
        (leaf("F32", 10, 5), IN_ORDER[:7], 10),
    ):
        assert growth.table_for(stored, live, targets, rows=rows) is None
