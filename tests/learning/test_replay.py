"""Samplers decide the share of new items from how many there are, and remember what they must."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onward.data.mixing import MixedOrder
from onward.errors import NewerFormat, UsageError
from onward.learning.hooks import Counts, Observer, Reading, Sampler, Setting
from onward.learning.replay import MemoryReplay, NoReplay, Ratio, UniformReplay
from tests.learning.lessons import Given

MANY = Counts(new=100, old=300, known=300)
NOTHING_OLD = Counts(new=100, old=0, known=0)
FROM_MEMORY = Counts(new=100, old=20, known=300)


def setting(increment: int, seed: int = 7) -> Setting:
    """Where a hook finds itself, without a model."""
    nothing: Any = None
    return Setting(nothing, None, Reading(), increment, seed)


def test_uniform_replay_mixes_as_all_data_at_hand_would() -> None:
    """Each item as often as any other."""
    assert UniformReplay().share(MANY) == 0.25
    assert UniformReplay().share(NOTHING_OLD) == 1.0
    assert UniformReplay().share(Counts(0, 300, 300)) == 0.0
    assert UniformReplay().memory is None


def test_no_replay_takes_only_what_is_new() -> None:
    """However much is old."""
    assert NoReplay().share(MANY) == 1.0


def test_a_ratio_is_old_items_for_each_new_one() -> None:
    """However many there are of each."""
    assert Ratio(3).share(MANY) == 0.25
    assert Ratio(0).share(MANY) == 1.0
    assert Ratio(3).share(NOTHING_OLD) == 1.0
    assert "3 old" in Ratio(3).describe()


@pytest.mark.parametrize("ratio", [-1, float("nan"), float("inf")])
def test_an_impossible_ratio_is_refused(ratio: float) -> None:
    """With what to do."""
    with pytest.raises(UsageError, match="what to do"):
        Ratio(ratio)


def test_the_memory_stands_in_for_all_that_was_learned() -> None:
    """Not for its own few samples only; and never for less than a quarter of the batch."""
    replay = MemoryReplay(20)
    assert replay.share(FROM_MEMORY) == 0.25
    assert replay.share(NOTHING_OLD) == 1.0
    assert replay.share(Counts(new=1000, old=20, known=20)) == 0.75
    assert MemoryReplay(20, share=0.9).share(FROM_MEMORY) == 0.9
    assert MemoryReplay(20, share=0.9).share(NOTHING_OLD) == 1.0


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan"), "half"])
def test_an_impossible_share_is_refused(share: Any) -> None:
    """With what to do."""
    with pytest.raises(UsageError, match="what to do"):
        MemoryReplay(20, share=share)


def test_a_memory_of_nothing_is_refused() -> None:
    """A memory budget of zero is an error before anything is trained."""
    with pytest.raises(UsageError, match="remembers nothing"):
        MemoryReplay(0)


def test_an_increment_is_remembered_when_it_ends() -> None:
    """With its number, and what it gives is the same after a resume."""
    replay, resumed = MemoryReplay(20), MemoryReplay(20)
    assert isinstance(replay, Sampler)
    assert isinstance(replay, Observer)
    for number in (1, 2, 3):
        lessons = Given(number * 50 - 50, number * 50)
        replay.begin(setting(number))
        replay.before_increment(lessons)
        assert set(replay.memory.increments.tolist()) <= set(range(number))
        replay.after_increment(lessons)
        resumed.begin(setting(number))
        resumed.after_increment(lessons)
        state = resumed.state_dict()
        resumed = MemoryReplay(20)
        resumed.load_state_dict(state)
    assert set(replay.memory.increments.tolist()) == {1, 2, 3}
    assert np.array_equal(resumed.memory.digests, replay.memory.digests)
    other = MemoryReplay(20)
    other.begin(setting(1, seed=8))
    other.after_increment(Given(0, 50))
    same_seed = MemoryReplay(20)
    same_seed.begin(setting(1))
    same_seed.after_increment(Given(0, 50))
    assert not np.array_equal(other.memory.digests, same_seed.memory.digests)


def test_batches_mix_new_items_with_slots() -> None:
    """The memory's slots follow the dataset's items, and come as often as they should."""
    replay = MemoryReplay(20)
    replay.begin(setting(1))
    replay.after_increment(Given(0, 300))
    lessons = Given(300, 400)
    share = replay.share(Counts(new=100, old=len(replay.memory), known=300))
    order = MixedOrder(
        lessons.new,
        lessons.first_slot + replay.memory.slots,
        share=share,
        batch_size=8,
        seed=7,
        increment=2,
    )
    items = np.array(list(order.batches(0, 50)))
    assert np.count_nonzero(items < lessons.first_slot) == 100
    assert items.min() == 300
    assert items.max() == 419


@pytest.mark.parametrize("sampler", [UniformReplay(), NoReplay(), Ratio(1), MemoryReplay(5)])
def test_a_newer_state_is_refused_and_an_own_one_taken(sampler: Sampler) -> None:
    """Every sampler knows its version."""
    state = sampler.state_dict()
    sampler.load_state_dict(state)
    with pytest.raises(NewerFormat, match=sampler.name):
        sampler.load_state_dict(state | {"version": 2})
    assert sampler.describe()
