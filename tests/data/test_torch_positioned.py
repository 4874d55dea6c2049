"""A user's own loader of any kind resumes at the right batch."""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data.distributed import DistributedSampler
from torchdata.stateful_dataloader import StatefulDataLoader

from onward.data.torch import Positioned
from onward.errors import Mismatch
from tests.data.datasets import Augmented, Stream, plain, plains, random_collate


class DrawsAsItGoes(Sampler[int]):
    """Draws from all global generators at every item, and never ends by itself."""

    def __iter__(self) -> Iterator[int]:
        while True:
            drawn = random.random() + float(np.random.random()) + float(torch.rand(()))
            yield int(drawn * 1000) % 50


class Shortened(BatchSampler):
    """A user's batch sampler of its own making, with its own length."""

    def __init__(self) -> None:
        super().__init__(RandomSampler(range(50)), 4, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(super().__iter__(), 9)

    def __len__(self) -> int:
        return 9


class OwnIteration(DataLoader[Any]):
    """Overrides `__iter__`, as loaders that never end do."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield [*batch, "own"]


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(11)


Kind = Callable[..., Any]
MAPPED: dict[str, Kind] = {
    "shuffled": lambda **o: DataLoader(Augmented(), batch_size=4, shuffle=True, **o),
    "in order": lambda **o: DataLoader(Augmented(), batch_size=4, drop_last=True, **o),
    "random collate": lambda **o: DataLoader(
        Augmented(), batch_size=4, shuffle=True, collate_fn=random_collate, **o
    ),
    "explicit generator": lambda **o: DataLoader(
        Augmented(), batch_size=4, shuffle=True, generator=seeded(), **o
    ),
    "generator of the sampler": lambda **o: DataLoader(
        Augmented(), batch_size=4, sampler=SubsetRandomSampler(range(40), seeded()), **o
    ),
    "weighted": lambda **o: DataLoader(
        Augmented(), batch_size=4, sampler=WeightedRandomSampler([1.0, 2.0] * 25, 30), **o
    ),
    "own batch sampler": lambda **o: DataLoader(Augmented(), batch_sampler=Shortened(), **o),
    "no batches": lambda **o: DataLoader(Augmented(), batch_size=None, shuffle=True, **o),
    "distributed": lambda **o: DataLoader(
        Augmented(),
        batch_size=4,
        sampler=DistributedSampler(Augmented(), num_replicas=2, rank=1),
        **o,
    ),
}
STREAMS: dict[str, Kind] = {
    "stream": lambda **o: DataLoader(Stream(), batch_size=3, **o),
    "stream without batches": lambda **o: DataLoader(Stream(), batch_size=None, **o),
    "own iteration": lambda **o: OwnIteration(Augmented(30), batch_size=4, shuffle=True, **o),
}
STATEFUL: dict[str, Kind] = {
    "stateful shuffled": lambda **o: StatefulDataLoader(
        Augmented(), batch_size=4, shuffle=True, **o
    ),
    "stateful with generator": lambda **o: StatefulDataLoader(
        Augmented(), batch_size=4, shuffle=True, generator=seeded(), **o
    ),
    "stateful stream": lambda **o: StatefulDataLoader(Stream(), batch_size=3, **o),
}
ALL = {**MAPPED, **STREAMS, **STATEFUL}


def positioned(kind: str, **options: Any) -> Positioned:
    torch.manual_seed(1)  # torchdata's sampler draws its seed when it is made
    return Positioned(ALL[kind](**options), seed=5, increment=1)


def randomness() -> list[Any]:
    return [random.getstate(), plain(torch.get_rng_state()), str(np.random.get_state())]


@pytest.mark.filterwarnings("ignore:going on at batch")
@pytest.mark.parametrize("kind", ALL)
def test_a_loader_resumes_at_the_batch_where_it_was(kind: str) -> None:
    """Broken off within an epoch and made anew: the same rest, then the same next epoch."""
    whole = positioned(kind)
    epochs = [plains(whole) for _ in range(3)]
    assert len(epochs[0]) > 4
    if kind not in ("in order", "stream", "stream without batches", "stateful stream"):
        assert [b[0] for b in epochs[0]] != [b[0] for b in epochs[1]]

    for taken in (1, 3, len(epochs[1])):
        first = positioned(kind)
        list(first)
        for number, _ in enumerate(first, 1):
            if number == taken:
                break
        state = first.state_dict()
        torch.manual_seed(taken)
        random.seed(taken)
        second = Positioned(ALL[kind](), seed=5, increment=1)
        second.load_state_dict(state)
        # A state taken before anything is loaded again is the same state.
        assert second.state_dict()["batch"] == taken
        assert str(second.state_dict()) == str(state)
        assert plains(second) == epochs[1][taken:]
        assert plains(second) == epochs[2]


@pytest.mark.parametrize("kind", ALL)
def test_a_state_at_the_end_of_an_epoch_repeats_nothing_and_skips_nothing(kind: str) -> None:
    """Taken after the loop has ended, it leads to the next epoch, not past it nor back."""
    whole = positioned(kind)
    epochs = [plains(whole), plains(whole)]
    first = positioned(kind)
    list(first)
    state = first.state_dict()
    second = positioned(kind)
    second.load_state_dict(state)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert plains(second) == []
    assert plains(second) == epochs[1]
    third = positioned(kind)
    third.load_state_dict(state)
    third.start_at(1)
    assert plains(third) == epochs[1]


@pytest.mark.parametrize("kind", MAPPED)
def test_the_number_of_workers_does_not_matter_for_datasets_with_items(kind: str) -> None:
    """Order and augmentations are the same with two workers, resumed within an epoch too."""
    expected = positioned(kind)
    epochs = [plains(expected), plains(expected)]
    workers = positioned(kind, num_workers=2, persistent_workers=True)
    workers.start_at(0, 2)
    assert plains(workers) == epochs[0][2:]
    assert plains(workers) == epochs[1]


@pytest.mark.parametrize("kind", ["stream", "stateful shuffled", "stateful stream"])
def test_other_loaders_resume_with_the_same_number_of_workers(kind: str) -> None:
    """Workers share a stream out among themselves, so their number belongs to its order."""
    options = {"num_workers": 2, "persistent_workers": kind == "stream"}
    whole = positioned(kind, **options)
    epochs = [[b[0] for b in plains(whole)] for _ in range(2)]
    first = positioned(kind, **options)
    list(first)
    next(iter(first))
    second = positioned(kind, **options)
    second.load_state_dict(first.state_dict())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [b[0] for b in plains(second)] == epochs[1][1:]


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("workers", [0, 1])
def test_the_programs_own_randomness_is_not_touched(kind: str, workers: int) -> None:
    """Neither making an iterator nor sampling, loading or collating draws from the program."""
    one = positioned(kind, num_workers=workers)
    np.random.seed(0)  # no spare Gaussian, which alone may be dropped
    before = randomness()
    list(one)
    one.state_dict()
    assert randomness() == before


def test_skipped_batches_of_a_dataset_with_items_are_not_loaded() -> None:
    """Resuming costs the indices of what is skipped, not its items."""
    loader = DataLoader(Augmented(), batch_size=4, shuffle=True)
    one = Positioned(loader, seed=1, increment=1)
    one.start_at(0, 10)
    rest = plains(one)
    assert loader.dataset.loaded == list(itertools.chain(*(b[0] for b in rest)))
    assert len(loader.dataset.loaded) == 10


def test_a_sampler_that_never_ends_and_draws_as_it_goes() -> None:
    """Asked in parts, under seeds of their own: resumable, and nothing of the program's drawn."""

    def make() -> Positioned:
        loader = DataLoader(Augmented(), batch_size=2, sampler=DrawsAsItGoes())
        return Positioned(loader, seed=1, increment=1)

    whole = plains(itertools.islice(make(), 80))
    resumed = make()
    resumed.load_state_dict({**make().state_dict(), "batch": 37})
    np.random.seed(0)
    before = randomness()
    assert plains(itertools.islice(resumed, 43)) == whole[37:]
    assert randomness() == before


def test_replaying_a_stream_warns() -> None:
    """Loading batches only to drop them may take hours, so it is said."""
    one = positioned("stream")
    one.start_at(0, 2)
    with pytest.warns(UserWarning, match="loads 2 batches only to drop them"):
        list(one)


def test_a_generator_seeded_by_the_clock_keeps_its_order_when_resumed() -> None:
    """The seed it began with is in the state."""

    def make(seed: int) -> Positioned:
        generator = torch.Generator().manual_seed(seed)
        loader = DataLoader(Augmented(), batch_size=4, shuffle=True, generator=generator)
        return Positioned(loader, seed=1, increment=1)

    first = make(100)
    expected = plains(first)
    first.start_at(0, 2)
    second = make(200)
    second.load_state_dict(first.state_dict())
    assert plains(second) == expected[2:]
    assert plains(make(200)) != expected


def test_set_epoch_is_called_for_samplers_that_have_it() -> None:
    """A distributed sampler shuffles by the epoch it is told."""
    one = positioned("distributed")
    one.start_at(6)
    list(one)
    assert one.loader.sampler.epoch == 6


def test_the_loader_within_can_still_be_asked() -> None:
    """Scripts read len(loader), loader.dataset, loader.batch_size."""
    one = positioned("shuffled")
    assert len(one) == 13
    assert one.batch_size == 4
    assert len(one.dataset) == 50
    with pytest.raises(AttributeError):
        _ = one.nothing_of_that_name
    assert positioned("stream").state_dict()["settings"]["batches"] is None


def test_an_interrupted_epoch_does_not_go_on_with_other_batches() -> None:
    """Another batch size or other data within an epoch is refused with what differs."""
    first = positioned("shuffled")
    next(iter(first))
    other = Positioned(DataLoader(Augmented(60), batch_size=6), seed=5, increment=1)
    with pytest.raises(Mismatch) as caught:
        other.load_state_dict(first.state_dict())
    assert caught.value.differences == [
        "batch_size: 4 in the checkpoint, 6 now",
        "batches: 13 in the checkpoint, 10 now",
    ]


def test_any_iterable_can_be_positioned() -> None:
    """A list of batches is a loader too, if a plain one."""
    one = Positioned([1, 2, 3], seed=1, increment=1)
    one.start_at(0, 1)
    with pytest.warns(UserWarning, match="over a stream"):
        assert list(one) == [2, 3]
