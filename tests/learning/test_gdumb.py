"""GDumb trains fresh weights on its memory alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from onward.errors import Mismatch, NewerFormat, UsageError
from onward.learning.gdumb import GDumb
from onward.learning.hooks import Counts, Observer, Reading, Sampler, Setting, Transform
from tests.learning.lessons import Given


class Arrays:
    """The little of `Maths` that GDumb needs, for a model that is a dict of arrays."""

    def weights(self, model: dict[str, Any]) -> dict[str, Any]:
        return model

    def tensor(self, array: Any, *, like: Any) -> Any:
        return array.copy()

    def assign(self, target: Any, value: Any) -> None:
        target[...] = value


def begun(model: Mapping[str, Any], increment: int = 1) -> GDumb:
    """GDumb at the start of an increment, with a memory of 12."""
    gdumb = GDumb(12)
    maths: Any = Arrays()
    gdumb.begin(Setting(maths, model, Reading(), increment, 7))
    return gdumb


def test_it_is_three_hooks_and_takes_only_from_the_memory() -> None:
    """No new item is in a batch but by way of the memory."""
    gdumb = GDumb(12)
    assert isinstance(gdumb, Sampler)
    assert isinstance(gdumb, Observer)
    assert isinstance(gdumb, Transform)
    assert gdumb.share(Counts(100, 12, 500)) == 0.0
    assert "12" in gdumb.describe()


def test_the_memory_holds_the_new_classes_before_the_first_step() -> None:
    """Balanced over all classes so far, whatever came between."""
    labels = np.arange(120) // 30
    gdumb = begun({})
    gdumb.before_increment(Given(0, 60, labels=labels[:60]))
    assert Counter(gdumb.memory.labels.tolist()) == {0: 6, 1: 6}
    resumed = begun({}, increment=2)
    resumed.load_state_dict(gdumb.state_dict())
    resumed.before_increment(Given(60, 120, labels=labels))
    assert Counter(resumed.memory.labels.tolist()) == {0: 3, 1: 3, 2: 3, 3: 3}
    assert Counter(resumed.memory.increments.tolist()) == {1: 6, 2: 6}
    resumed.after_increment(Given(60, 120, labels=labels))
    assert resumed.memory.seen == 120


def test_weights_become_the_fresh_ones() -> None:
    """All of them, in place."""
    model = {"w": np.ones((2, 3)), "running": np.ones(3)}
    live = dict(model)
    begun(model).at_start({"w": np.full((2, 3), 5.0), "running": np.zeros(3), "more": np.ones(1)})
    assert (live["w"] == 5).all()
    assert (live["running"] == 0).all()


def test_weights_without_fresh_ones_are_named_before_any_changes() -> None:
    """All of them at once."""
    model = {"a": np.ones(2), "b": np.ones(3), "c": np.ones(4)}
    with pytest.raises(Mismatch) as caught:
        begun(model).at_start({"a": np.zeros(2), "b": np.zeros(2)})
    assert "b has" in str(caught.value)
    assert "c has" in str(caught.value)
    assert (model["a"] == 1).all()


def test_it_needs_classes_and_a_memory() -> None:
    """Typed errors with what to do."""
    with pytest.raises(UsageError, match="labels="):
        begun({}).before_increment(Given(0, 9))
    with pytest.raises(UsageError, match="remembers nothing"):
        GDumb(0)
    with pytest.raises(NewerFormat):
        GDumb(1).load_state_dict({"version": 2})
