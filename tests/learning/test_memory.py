"""The memory is bounded, fair, exact to resume, and keeps no item that it must not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onward.errors import NewerFormat, Unstorable, UsageError
from onward.learning.memory import Memory, Policy
from tests.learning.lessons import Given, digests_of


def kept(memory: Memory) -> list[int]:
    """The numbers of the remembered items, by slot."""
    return [memory.sample(slot, tensor=np.asarray)[1] for slot in memory.slots.tolist()]


def same(one: Any, other: Any) -> bool:
    """Equal states, bit for bit."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return type(one) is type(other) and one == other


PINNED = """
import numpy as np
from onward.learning.memory import Memory
from tests.learning.lessons import Given
for policy in "reservoir", "class-balanced":
    memory = Memory(8, policy=policy, seed=4)
    for increment in 1, 2:
        stop = increment * 20
        lessons = Given(stop - 20, stop, labels=np.arange(stop) // 10, raw=int)
        memory.offer(lessons, increment=increment)
    print([memory.sample(slot, tensor=None) for slot in memory.slots])
"""
EXPECTED = """\
[23, 27, 28, 5, 7, 32, 37, 14]
[27, 28, 5, 7, 32, 37, 13, 14]
"""


def test_pinned_choices_are_the_same_in_another_process() -> None:
    """Whoever changes these numbers breaks the resume of every unfinished run in the world."""
    command = [sys.executable, "-c", PINNED]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    printed = done.stdout
    assert printed == EXPECTED


def test_the_reservoir_is_a_uniform_sample_of_everything_offered() -> None:
    """Each of 60 items, of three increments, is kept equally often (chi-squared, 59 degrees)."""
    counts: Counter[int] = Counter()
    for seed in range(800):
        memory = Memory(12, seed=seed)
        for increment, (first, stop) in enumerate([(0, 10), (10, 40), (40, 60)], 1):
            memory.offer(Given(first, stop, raw=lambda index: (0, index)), increment=increment)
        assert len(memory) == 12
        counts.update(kept(memory))
    expected = 800 * 12 / 60
    assert sum((counts[item] - expected) ** 2 / expected for item in range(60)) < 100


def test_what_is_kept_of_one_item_says_nothing_of_another() -> None:
    """Pairs are as likely as in a sample without replacement, not only single items."""
    together = 0
    for seed in range(1000):
        memory = Memory(5, seed=seed)
        memory.offer(Given(0, 10, raw=lambda index: (0, index)), increment=1)
        memory.offer(Given(10, 20, raw=lambda index: (0, index)), increment=2)
        together += {3, 17} <= set(kept(memory))
    expected = 1000 * 5 * 4 / (20 * 19)
    assert abs(together - expected) < 5 * expected**0.5


@settings(deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 6), min_size=1, max_size=40), min_size=1, max_size=5),
    st.integers(1, 30),
)
def test_classes_are_balanced_within_one(increments: list[list[int]], capacity: int) -> None:
    """A class has less than another, by more than one, only if nothing more of it was offered."""
    memory = Memory(capacity, policy="class-balanced", seed=5)
    labels: list[int] = []
    for number, more in enumerate(increments, 1):
        first = len(labels)
        labels += more
        memory.offer(
            Given(first, len(labels), labels=labels, raw=lambda index: (0, index)), increment=number
        )
    held = Counter(memory.labels[memory.slots].tolist())
    offered = Counter(labels)
    assert sum(held.values()) == min(capacity, len(labels))
    largest = max(held.values())
    for label, count in offered.items():
        # What was let go of a class cannot come back, but room is only lost to more classes.
        assert held[label] >= min(count, largest - 1)
    assert [labels[item] for item in kept(memory)] == memory.labels[memory.slots].tolist()


def test_within_a_class_the_sample_is_uniform() -> None:
    """Over increments that bring more of a class (chi-squared, 29 degrees of freedom)."""
    counts: Counter[int] = Counter()
    labels = [0] * 30 + [1] * 30
    for seed in range(600):
        memory = Memory(10, policy="class-balanced", seed=seed)
        for number, (first, stop) in enumerate([(0, 15), (15, 45), (45, 60)], 1):
            lessons = Given(first, stop, labels=labels[:stop], raw=lambda index: (0, index))
            memory.offer(lessons, increment=number)
        counts.update(kept(memory))
    expected = 600 * 5 / 30
    assert sum((counts[item] - expected) ** 2 / expected for item in range(30)) < 60


def test_class_balance_without_classes_is_refused() -> None:
    """With what to do, and nothing remembered."""
    memory = Memory(5, policy="class-balanced")
    with pytest.raises(UsageError, match="labels="):
        memory.offer(Given(0, 9), increment=1)
    assert len(memory) == 0


@pytest.mark.parametrize("capacity", [0, -3, True, 2.5, "10"])
def test_a_memory_without_room_is_refused(capacity: Any) -> None:
    """A memory of zero samples remembers nothing, and says so."""
    with pytest.raises(UsageError, match="what to do"):
        Memory(capacity)
    with pytest.raises(UsageError, match="remembers nothing"):
        Memory(0)


def test_an_unknown_policy_is_refused() -> None:
    """And the known ones are named."""
    with pytest.raises(UsageError, match="class-balanced"):
        Memory(5, policy="newest")  # type: ignore[arg-type]


def test_only_kept_items_are_read() -> None:
    """Of a million items a memory of ten reads ten."""
    memory = Memory(10, seed=1)
    lessons = Given(0, 5000)
    memory.offer(lessons, increment=1)
    assert sorted(lessons.read) == sorted(kept(memory))
    assert memory.seen == 5000


@pytest.mark.parametrize("policy", ["reservoir", "class-balanced"])
def test_an_increment_without_items_changes_nothing(policy: Policy) -> None:
    """Whether the memory holds something or not."""
    memory = Memory(5, policy=policy)
    for first, stop in [(0, 0), (0, 9), (9, 9)]:
        lessons = Given(first, stop, labels=np.zeros(stop))
        assert len(memory.offer(lessons, increment=1)) == min(5, stop - first)
    assert len(memory) == 5


def test_an_item_that_was_offered_already_does_not_come_twice() -> None:
    """Known by its digest."""
    memory = Memory(100)
    memory.offer(Given(0, 20), increment=1)
    memory.offer(Given(10, 30), increment=2)
    assert sorted(kept(memory)) == list(range(30))


@pytest.mark.parametrize("policy", ["reservoir", "class-balanced"])
def test_saved_in_the_middle_and_gone_on_is_bitwise_the_same(policy: Policy) -> None:
    """The resume law, through five increments, logits, a withdrawal and a holdout."""

    def live(memory: Memory, first: int, stop: int) -> None:
        for number in range(first, stop):
            labels = np.arange(number * 40 + 40) % (number + 2)
            lessons = Given(number * 40, number * 40 + 40, labels=labels, raw=_sample)
            slots = memory.offer(lessons, increment=number + 1)
            rows = np.repeat(slots[:, None], number + 2, axis=1).astype(np.float32)
            memory.beside("logits").write(slots, rows)
            memory.remove(digests_of(range(number * 40, number * 40 + 5)))
            memory.forbid(digests_of(range(number * 40 + 40, number * 40 + 45)))

    def _sample(index: int) -> Any:
        return {"image": np.full((2, index % 3 + 1), index, np.uint8), "label": index}

    whole = Memory(30, policy=policy, seed=9)
    live(whole, 0, 5)
    for middle in range(6):
        before = Memory(30, policy=policy, seed=9)
        live(before, 0, middle)
        state = before.state_dict()
        live(before, middle, 5)  # what was saved must not change with the one that saved it
        after = Memory(30, policy=policy, seed=9)
        after.load_state_dict(state)
        live(after, middle, 5)
        assert same(after.state_dict(), whole.state_dict())
        assert same(before.state_dict(), whole.state_dict())


def test_an_increment_changes_only_rows_of_replaced_slots() -> None:
    """So that a checkpoint stores the replaced samples, not the memory anew."""
    memory = Memory(100, seed=2)
    memory.offer(Given(0, 1000), increment=1)
    before = memory.state_dict()["samples"]["columns"]["[0]:numpy"]["array"]
    replaced = memory.offer(Given(1000, 1200), increment=2)
    after = memory.state_dict()["samples"]["columns"]["[0]:numpy"]["array"]
    changed = np.flatnonzero((before != after).any(axis=1))
    assert changed.tolist() == replaced.tolist()
    assert 0 < len(replaced) < 50
    assert (memory.increments[replaced] == 2).all()


def test_withdrawn_items_leave_nothing() -> None:
    """Neither sample nor label nor digest nor logits; the room is filled by what comes next."""
    memory = Memory(20, seed=1)
    slots = memory.offer(Given(0, 20), increment=1)
    logits = memory.beside("logits")
    logits.write(slots, np.ones((20, 4), np.float32))
    size = memory.size_bytes
    gone = digests_of([3, 7, 999])
    assert memory.remove(gone) == 2
    assert memory.remove(gone) == 0
    assert sorted(kept(memory)) == [item for item in range(20) if item not in (3, 7)]
    assert memory.size_bytes == size * 18 // 20
    empty = np.setdiff1d(np.arange(20), memory.slots)
    assert logits.outputs[empty].tolist() == [0, 0]
    state = memory.state_dict()
    for table in (state["digests"], state["samples"]["columns"]["[0]:numpy"]["array"]):
        assert not table[empty].any()
    assert not state["beside"]["logits"]["rows"][empty].any()
    with pytest.raises(IndexError):
        memory.sample(int(empty[0]), tensor=np.asarray)
    memory.offer(Given(20, 40), increment=2)
    assert len(memory) == 20
    assert not {3, 7} & set(kept(memory))


def test_after_a_withdrawal_the_reservoir_becomes_uniform_again() -> None:
    """Once as many items came as had gone (chi-squared, 59 degrees of freedom)."""
    counts: Counter[int] = Counter()
    for seed in range(800):
        memory = Memory(10, seed=seed)
        memory.offer(Given(0, 40, raw=lambda index: (0, index)), increment=1)
        memory.remove(digests_of(range(10)))
        memory.offer(Given(40, 70, raw=lambda index: (0, index)), increment=2)
        counts.update(kept(memory))
    expected = 800 * 10 / 60
    assert sum((counts[item] - expected) ** 2 / expected for item in range(10, 70)) < 110


@pytest.mark.parametrize("policy", ["reservoir", "class-balanced"])
def test_items_of_a_holdout_never_enter(policy: Policy) -> None:
    """Not before it was declared, not after, and not after a resume."""
    memory = Memory(50, policy=policy, seed=1)
    memory.offer(Given(0, 30, labels=np.zeros(30)), increment=1)
    holdout = set(range(0, 90, 3))
    assert memory.forbid(digests_of(holdout)) == 10
    assert memory.forbid(digests_of(holdout)) == 0
    resumed = Memory(50, policy=policy, seed=1)
    resumed.load_state_dict(memory.state_dict())
    resumed.offer(Given(30, 90, labels=np.zeros(90)), increment=2)
    assert len(resumed) == 50
    assert not holdout & set(kept(resumed))


def test_digests_of_another_shape_are_refused() -> None:
    """Rather than matching nothing, so that a withdrawn item stays."""
    for wrong in (np.zeros((2, 8), np.uint8), np.zeros(16, np.uint8), np.zeros((1, 16))):
        with pytest.raises(UsageError):
            Memory(5).remove(wrong)


def test_an_item_that_cannot_be_kept_or_read_changes_nothing() -> None:
    """The memory is as it was, and a second try goes well."""
    memory = Memory(10, seed=1)
    memory.offer(Given(0, 10), increment=1)
    before = memory.state_dict()
    with pytest.raises(Unstorable, match=r"sample\[1\]"):
        memory.offer(Given(10, 90, raw=lambda index: (np.zeros(3), object())), increment=2)

    def missing(index: int) -> Any:
        raise FileNotFoundError(index)

    with pytest.raises(FileNotFoundError):
        memory.offer(Given(10, 90, raw=missing), increment=2)
    assert same(memory.state_dict(), before)
    memory.offer(Given(10, 90), increment=2)
    assert len(memory) == 10


def test_logits_of_fewer_outputs_stay_when_the_head_grows() -> None:
    """And say how many outputs they had; the other places are zero."""
    memory = Memory(4)
    memory.offer(Given(0, 4), increment=1)
    logits = memory.beside("logits")
    logits.write(np.array([0, 1]), np.array([[1, 2], [3, 4]], np.float32))
    logits.write(np.array([1, 2]), np.array([[5, 6, 7], [8, 9, 10]], np.float32))
    assert logits.read(np.array([0, 1, 2])).tolist() == [[1, 2, 0], [5, 6, 7], [8, 9, 10]]
    assert logits.outputs.tolist() == [2, 3, 3, 0]
    assert memory.beside("logits") is logits
    with pytest.raises(UsageError):
        logits.write(np.array([0]), np.zeros((2, 3)))
    logits.write(np.empty(0, np.int64), np.zeros((0, 3)))


def test_replaced_slots_lose_their_logits() -> None:
    """What a model said of one sample says nothing of the next."""
    memory = Memory(20, seed=4)
    memory.beside("logits").write(
        memory.offer(Given(0, 40), increment=1), np.ones((20, 2), np.float32)
    )
    replaced = memory.offer(Given(40, 80), increment=2)
    assert 0 < len(replaced) < 20
    outputs = memory.beside("logits").outputs
    assert np.flatnonzero(outputs == 0).tolist() == replaced.tolist()


def test_a_larger_memory_goes_on_from_a_smaller_one() -> None:
    """Slots stay where they are, and the new ones are filled by what comes."""
    small = Memory(5, seed=1)
    small.beside("logits").write(small.offer(Given(0, 9), increment=1), np.ones((5, 2)))
    large = Memory(8, seed=1)
    large.load_state_dict(small.state_dict())
    assert kept(large) == kept(small)
    large.offer(Given(9, 30), increment=2)
    assert len(large) == 8 == len(large.beside("logits").outputs)


def test_a_smaller_memory_shrinks_only_at_the_next_offer() -> None:
    """An unfinished increment learns from slots of the larger one until it ends."""
    large = Memory(8, seed=1)
    large.beside("logits").write(large.offer(Given(0, 9), increment=1), np.ones((8, 2)))
    small = Memory(5, seed=1)
    small.load_state_dict(large.state_dict())
    assert kept(small) == kept(large)
    slots = small.offer(Given(9, 30), increment=2)
    assert len(small) == 5 == len(small.increments)
    stayed = np.setdiff1d(small.slots, slots)
    assert (small.increments[slots] == 2).all()
    assert (small.increments[stayed] == 1).all()
    assert (small.beside("logits").outputs[stayed] == 2).all()
    assert all(item >= 9 for item in np.array(kept(small))[slots])


def test_a_newer_state_is_refused() -> None:
    """Politely."""
    state = Memory(5).state_dict() | {"version": 99}
    with pytest.raises(NewerFormat, match="update Onward"):
        Memory(5).load_state_dict(state)


def test_the_state_is_names_numbers_text_and_arrays() -> None:
    """All but the arrays is JSON, and short however many samples of text there are."""
    memory = Memory(200)
    memory.offer(Given(0, 300, raw=lambda i: {"text": "word " * i, "label": i}), increment=1)

    def without_arrays(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_arrays(part) for key, part in value.items()}
        return None if isinstance(value, np.ndarray) else value

    assert len(json.dumps(without_arrays(memory.state_dict()))) < 1000
