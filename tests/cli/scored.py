"""Outputs whose increments were scored on frozen holdouts, as a training run would leave them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onward.data.items import Items
from onward.learning.holdouts import Holdouts
from onward.repository import Commit
from tests.cli.outputs import Output, floats, leaf

ITEMS = 2000
RIGHT = np.arange(ITEMS) % 10 != 0


def with_leaves(tree: Any) -> Any:
    """A state with tensors in the place of arrays."""
    if isinstance(tree, Mapping):
        return {key: with_leaves(child) for key, child in tree.items()}
    return leaf(tree) if isinstance(tree, np.ndarray) else tree


def answers(*, lost: int = 0, won: int = 0) -> Any:
    """Right in nine of ten, but for so many that are lost and won."""
    found = RIGHT.copy()
    found[np.flatnonzero(RIGHT)[:lost]] = False
    found[np.flatnonzero(~RIGHT)[:won]] = True
    return found


class Scored(Output):
    """An output that increments are added to, each finished with its scores."""

    def __init__(self, folder: Any) -> None:
        super().__init__(folder)
        self.holdouts = Holdouts()
        self.newest: Commit | None = None

    def freeze(self, name: str, increment: int, **given: Any) -> None:
        digests = Items.identified([f"{name} {n}" for n in range(ITEMS)]).digests
        usual: dict[str, Any] = {
            "digests": digests, "count": ITEMS, "metric": "accuracy", "higher_is_better": True,
        }  # fmt: skip
        self.holdouts.freeze(name, increment=increment, **{**usual, **given})

    def increment(
        self, number: int, verdict: str = "", *, margin: float | None = None, **outcomes: Any
    ) -> Commit:
        """One more increment: `a=` outcomes on a after it, `before_a=` before it.

        `margin` is what its script gave.
        """
        self.holdouts.begin()
        for name, values in outcomes.items():
            when: Any = "before" if name.startswith("before_") else "after"
            self.holdouts.record(name.removeprefix("before_"), values, when=when)
        tree = with_leaves({"learning": {"holdouts": self.holdouts.state_dict()}})
        state = {"model": {"w": floats(number)}, "onward": tree}
        self.newest = self.save(
            state, step=10 * number, increment=number, finished=True, verb="continue",
            parent=self.newest.checkpoint if self.newest else None,
            scores=self.holdouts.row(verdict),
            **({} if margin is None else {"about": {"learning": {"margin": margin}}}),
        )  # fmt: skip
        return self.newest


def three_increments(folder: Path) -> Scored:
    """The second is fine, the third forgets much of `first`."""
    output = Scored(folder)
    output.freeze("first", 1)
    output.increment(1, first=answers())
    output.freeze("second", 2)
    output.increment(
        2, "no change", before_second=answers(lost=900), first=answers(lost=1, won=1),
        second=answers(),
    )  # fmt: skip
    output.increment(3, "regression: first", first=answers(lost=400), second=answers())
    return output
