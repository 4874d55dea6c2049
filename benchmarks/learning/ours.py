"""Onward's side: the same scenarios through its public interface, checkpoints and all."""

from __future__ import annotations

from pathlib import Path

from benchmarks.learning.reference import Done
from benchmarks.learning.scenarios import Scenario


def planned(scenario: Scenario) -> list[tuple[str, float]]:
    """Onward's strategies for a scenario, each with its share of a full retrain's steps."""
    return []


def ours(scenario: Scenario, strategy: str, *, share: float, seed: int, folder: Path) -> Done:
    """Learns the scenario's stages one after another into an output below `folder`."""
    raise NotImplementedError(f"{scenario.name}: {strategy}")
