"""The champion: the first that is scored, then whoever may take its place; evidence stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import onward
from onward.learning.gate import Verdict
from onward.repository import open_repository
from onward.stores import open_store

ITEMS, HELD = 200, 1500


class Clouds(torch.utils.data.Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Two clouds of points, `wrong` for labels that say the opposite."""

    def __init__(self, count: int, seed: int, *, wrong: bool = False) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.arange(count) % 2
        self.values = torch.randn(count, 4, generator=generator) + 3.0 * self.labels[:, None]
        if wrong:
            self.labels = 1 - self.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.values[index], self.labels[index]


def train(output: Path, part: int, *, wrong: bool = False, more: bool = False) -> Verdict | None:
    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    run = onward.open(
        output, model=model, optimizer=optimizer, strategy="none", save_every_seconds=None
    )
    run.scoring(lambda batch: model(batch[0]).argmax(1) == batch[1])
    run.holdout("clouds", Clouds(HELD, seed=99))
    if more:
        run.holdout("more", Clouds(HELD, seed=98))
    data = Clouds(ITEMS, seed=part, wrong=wrong)
    loader = run.loader(
        data, batch_size=20, ids=[f"{part}/{i}" for i in range(ITEMS)], only_new=True
    )
    run.plan(6)
    for _epoch in run.epochs():
        for values, labels in loader:
            loss = nn.functional.cross_entropy(model(values), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)
    return run.finish()


def test_the_name_moves_only_to_who_may_have_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """First come, first served; no change may follow; a regression stays where it is, told."""
    output = tmp_path / "out"
    assert train(output, 1) is None
    history = open_repository(open_store(output)).history
    first = history.latest()
    assert first is not None
    assert history.aliases == {"champion": first.checkpoint}
    assert "is the champion now" in capfd.readouterr().err

    verdict = train(output, 2)
    assert verdict is not None
    assert verdict.verdict in ("no change", "better")
    history = open_repository(open_store(output)).history
    second = history.latest()
    assert second is not None
    assert history.aliases == {"champion": second.checkpoint}

    worse = train(output, 3, wrong=True)
    assert worse is not None
    assert worse.verdict == "regression"
    history = open_repository(open_store(output)).history
    third = history.latest()
    assert third is not None
    assert history.aliases == {"champion": second.checkpoint}
    assert third.row is not None
    assert third.row.verdict == "regression: clouds"
    assert third.row.after["clouds"] < 0.5 < second.row.after["clouds"]  # type: ignore[union-attr]
    assert "the champion stays" in capfd.readouterr().err


def test_an_unreadable_champion_costs_its_comparison_and_not_the_training(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What was trained is saved; nobody becomes champion unseen."""
    output = tmp_path / "out"
    train(output, 1)
    champion = open_repository(open_store(output)).history.aliases["champion"]
    manifest = output / "onward" / "manifests" / f"{champion}.json"
    hidden = manifest.read_bytes()
    verdicts = []

    def hide(batch: object) -> None:
        manifest.unlink(missing_ok=True)

    torch.manual_seed(0)
    model = nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    run = onward.open(output, model=model, optimizer=optimizer, save_every_seconds=None)

    def score(batch: list[torch.Tensor]) -> torch.Tensor:
        hide(batch)
        return model(batch[0]).argmax(1) == batch[1]

    run.scoring(score)
    run.holdout("clouds", Clouds(HELD, seed=99))
    data = Clouds(ITEMS, seed=5)
    loader = run.loader(data, batch_size=20, ids=[f"5/{i}" for i in range(ITEMS)], only_new=True)
    for _epoch in run.epochs(1):
        for values, labels in loader:
            loss = nn.functional.cross_entropy(model(values), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step()
    verdicts.append(run.finish())
    manifest.write_bytes(hidden)
    history = open_repository(open_store(output)).history
    assert verdicts == [None]
    assert history.latest().finished  # type: ignore[union-attr]
    assert history.aliases == {"champion": champion}
    assert "the champion cannot be read" in capfd.readouterr().err


def test_a_champion_that_stays_is_scored_on_what_was_frozen_since(tmp_path: Path) -> None:
    """Its weights are asked, for a moment: else nothing could ever be decided any more."""
    output = tmp_path / "out"
    train(output, 1)
    champion = open_repository(open_store(output)).history.aliases["champion"]
    train(output, 2, wrong=True, more=True)
    assert open_repository(open_store(output)).history.aliases == {"champion": champion}
    verdict = train(output, 3, more=True)
    assert verdict is not None
    judged = {judged.name: judged.verdict for judged in verdict.holdouts}
    assert judged.keys() == {"clouds", "more"}
    assert "insufficient" not in judged.values()
    assert judged["more"] == judged["clouds"]  # they are alike, and so are the scores
