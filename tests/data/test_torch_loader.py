"""Onward's own loader: order and augmentations follow from the position alone."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, get_worker_info

from onward.data.torch import Loader
from onward.errors import Mismatch, UsageError
from tests.data.datasets import Augmented, AugmentedTogether, plain, plains, random_collate


def loader(dataset: Any = None, **options: Any) -> Loader:
    settings: dict[str, Any] = {"seed": 3, "increment": 2, "batch_size": 8}
    return Loader(Augmented() if dataset is None else dataset, **{**settings, **options})


def randomness() -> list[Any]:
    """The state of every global generator, as it can be compared."""
    return [random.getstate(), plain(torch.get_rng_state()), str(np.random.get_state())]


def items_of(batches: list[Any]) -> list[int]:
    return [item for batch in batches for item in batch[0]]


WAYS: dict[str, dict[str, Any]] = {
    "in the training process": {},
    "pinned": {"pin_memory": True},
    "one worker": {"num_workers": 1},
    "two workers": {"num_workers": 2},
    "two workers far ahead": {"num_workers": 2, "prefetch_factor": 5},
    "two persistent workers": {"num_workers": 2, "persistent_workers": True},
    "a spawned worker": {"num_workers": 1, "multiprocessing_context": "spawn"},
}


@pytest.mark.filterwarnings("ignore:'pin_memory' argument")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dataset", [Augmented, AugmentedTogether])
def test_batches_are_the_same_however_they_are_loaded(way: str, dataset: Any) -> None:
    """Order, augmentations of three generators and random collation, for two epochs."""
    if way == "a spawned worker" and dataset is AugmentedTogether:
        pytest.skip("starting interpreters is slow; once is enough")
    expected = loader(dataset(), collate_fn=random_collate)
    other = loader(dataset(), collate_fn=random_collate, **WAYS[way])
    for epoch in range(2):
        assert other.epoch == epoch or other.batches_taken
        assert plains(other) == plains(expected)


def test_epochs_seeds_and_increments_differ() -> None:
    """Neither order nor augmentation repeats from epoch to epoch or run to run."""
    one = loader()
    runs = [plains(one), plains(one), plains(loader(seed=4)), plains(loader(increment=3))]
    for a, b in itertools.combinations(runs, 2):
        assert [batch[0] for batch in a] != [batch[0] for batch in b]
        assert a[0][1] != b[0][1]
    assert all(sorted(items_of(run)) == list(range(50)) for run in runs)


@pytest.mark.parametrize("way", ["in the training process", "two persistent workers"])
@pytest.mark.parametrize("batch", [0, 1, 6, 7])
def test_starting_within_an_epoch_gives_its_tail_and_loads_nothing_else(
    way: str, batch: int
) -> None:
    """Skipped batches cost nothing: their items are never loaded."""
    whole = loader()
    whole.start_at(4)
    expected = plains(whole)
    dataset = Augmented()
    begun = loader(dataset, **WAYS[way])
    begun.start_at(4, batch)
    assert plains(begun) == expected[batch:]
    if way == "in the training process":
        assert dataset.loaded == list(itertools.chain(*(b[0] for b in expected[batch:])))


@pytest.mark.parametrize("workers", [0, 2])
def test_state_is_what_was_handed_out_not_what_was_prefetched(workers: int) -> None:
    """A state taken between two batches resumes at the second of them, in another process."""
    expected = loader()
    epochs = [plains(expected), plains(expected)]
    first = loader(num_workers=workers)
    list(first)
    for taken, _ in enumerate(first, 1):
        assert first.batches_taken == taken
        if taken == 3:
            break
    state = first.state_dict()
    assert (state["epoch"], state["batch"]) == (1, 3)
    second = loader(num_workers=2 - workers)
    second.load_state_dict(state)
    assert plains(second) == epochs[1][3:]


def test_after_a_break_or_an_end_the_next_iteration_is_the_next_epoch() -> None:
    """As with a DataLoader, every `for` is an epoch, unless a position was set."""
    whole = loader()
    epochs = [plains(whole) for _ in range(3)]
    broken = loader()
    next(iter(broken))
    assert (broken.epoch, broken.batches_taken) == (0, 1)
    assert plains(broken) == epochs[1]
    broken.start_at(1, 2)
    assert plains(broken) == epochs[1][2:]
    assert plains(broken) == epochs[2]


def test_a_state_at_the_end_of_an_epoch_repeats_nothing_and_skips_nothing() -> None:
    """The rest of a finished epoch is empty; then comes the next one."""
    whole = loader()
    epochs = [plains(whole), plains(whole)]
    for end in (len(epochs[0]), "after the loop"):
        first = loader()
        for _ in first:
            if first.batches_taken == end:
                break
        second = loader()
        second.load_state_dict(first.state_dict())
        assert plains(second) == []
        assert plains(second) == epochs[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_the_programs_own_randomness_is_not_touched(workers: int) -> None:
    """Dropout between batches does not depend on who loads them."""
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = randomness()
    list(loader(num_workers=workers))
    assert randomness() == before


def test_draws_of_the_training_loop_do_not_depend_on_the_number_of_workers() -> None:
    """Even NumPy's spare Gaussian number, which every way of loading forgets alike."""

    def trained(**options: Any) -> list[Any]:
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        drawn: list[Any] = []
        for _ in loader(**options):
            drawn.append([random.gauss(0, 1), np.random.standard_normal(), float(torch.rand(()))])
        return drawn

    assert trained() == trained(num_workers=2) == trained(num_workers=1, prefetch_factor=4)


def test_randomness_is_given_back_when_loading_fails() -> None:
    """An item that cannot be read leaves the generators as they were."""

    class Broken(Augmented):
        def __getitem__(self, index: int) -> Any:
            super().__getitem__(index)
            raise OSError("unreadable")

    np.random.seed(0)  # no spare Gaussian, which alone may be dropped
    before = randomness()
    with pytest.raises(OSError, match="unreadable"):
        list(loader(Broken()))
    assert randomness() == before


def test_hooks_are_called_before_the_first_batch_and_also_if_none_is_left() -> None:
    """The run restores randomness there: after loading, before the batch is handed out."""
    calls: list[Any] = []
    dataset = Augmented()
    one = loader(dataset)
    one.on_first_batch = lambda: calls.append(("first", one.batches_taken, len(dataset.loaded)))
    one.start_at(0, 2)
    iterator = iter(one)
    assert calls == []
    next(iterator)
    assert calls == [("first", 2, 8)]
    next(iterator)
    assert len(calls) == 1
    one.start_at(0, len(one))
    assert list(one) == []
    assert calls[1:] == [("first", 7, 16)]


def test_replay_mixes_old_items_in() -> None:
    """New items once each, and as many old ones as asked for, in one shuffled epoch."""
    mixed = loader(new=np.arange(40, 50), old=np.arange(40), replay=2.0, batch_size=6)
    items = items_of(plains(mixed))
    assert len(mixed) == 5
    assert len(items) == len(set(items)) == 30
    assert set(range(40, 50)) < set(items)


def test_without_shuffling_items_come_in_the_order_of_the_dataset() -> None:
    """`shuffle=False` and `drop_last=True` mean what they mean in a DataLoader."""
    plain_order = loader(shuffle=False, drop_last=True)
    assert [b[0] for b in plains(plain_order)] == [list(range(k, k + 8)) for k in range(0, 48, 8)]
    assert len(plain_order) == 6


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"batch_size": 4}, "batch_size: 8 in the checkpoint, 4 now"),
        ({"shuffle": False}, "shuffle: True in the checkpoint, False now"),
        ({"seed": 9}, "seed: 3 in the checkpoint, 9 now"),
        ({"new": np.arange(40)}, "new: 50 in the checkpoint, 40 now"),
    ],
)
def test_an_interrupted_epoch_does_not_go_on_with_other_settings(
    options: dict[str, Any], difference: str
) -> None:
    """Batch k of another order is another batch; between epochs settings may change."""
    first = loader()
    between = first.state_dict()
    next(iter(first))
    with pytest.raises(Mismatch) as caught:
        loader(**options).load_state_dict(first.state_dict())
    assert caught.value.differences == [difference]
    loader(**options).load_state_dict(between)


def see_dataset(worker_id: int) -> None:
    """A user's worker_init_fn, as the documentation of PyTorch teaches it."""
    info = get_worker_info()
    assert info is not None
    info.dataset.count = 1000 + worker_id


class ShowsCount(Augmented):
    def __getitem__(self, index: int) -> Any:
        return self.count


def test_worker_init_fn_meets_the_users_own_dataset() -> None:
    """What wraps the dataset for loading stays out of sight."""
    seen = plains(loader(ShowsCount(), num_workers=2, worker_init_fn=see_dataset))
    assert {count for batch in seen for count in batch} == {1000, 1001}


def test_batches_equal_those_of_a_bare_dataloader() -> None:
    """The same items collate to the same tensors, contiguous and of the same dtypes."""
    data = TensorDataset(torch.randn(30, 4), torch.arange(30))
    ours = loader(data, shuffle=False)
    for (a, b), (c, d) in zip(ours, DataLoader(data, batch_size=8), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)
        assert a.is_contiguous()


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"replay": -1.0}, {"replay": math.nan}])
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    """A batch has items, and replay is an amount."""
    with pytest.raises(UsageError, match=next(iter(options))):
        loader(**options)
