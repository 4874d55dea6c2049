"""A Python source behind MindSpore's operations gives the same, whoever loads it, from anywhere."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable
from typing import Any

import mindspore.dataset as ds
import numpy as np
import pytest

from onward.data.mindspore import Loader, Positioned


class Noisy:
    """Items that are other ones at each look, drawn from both generators of the host."""

    def __len__(self) -> int:
        return 36

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        value = np.random.randn(3) + random.random()
        return value.astype(np.float32), np.int32(index)


def digests(batches: Iterable[Any]) -> list[int]:
    return [zlib.crc32(b"".join(c.asnumpy().tobytes() for c in batch)) for batch in batches]


def made(kind: str, workers: int) -> ds.Dataset:
    made = ds.GeneratorDataset(
        Noisy(), ["value", "label"], shuffle=True, num_parallel_workers=workers
    )
    match kind:
        case "map":
            return made.map(lambda value: value * np.float32(2), "value").batch(8)
        case "shuffle":
            return made.shuffle(20).batch(8)
        case "repeat":
            return made.batch(8).repeat(2)
    own = ds.GeneratorDataset(
        Noisy(), ["value", "label"], sampler=ds.RandomSampler(num_samples=20),
        num_parallel_workers=workers,
    )  # fmt: skip
    return own.batch(8)


@pytest.mark.filterwarnings("ignore:going on at batch")
@pytest.mark.parametrize("kind", ["map", "shuffle", "repeat", "sampler"])
def test_batches_follow_from_seed_and_position(kind: str) -> None:
    """Two epochs, by one worker or two, whole or from batch 2 on; no two batches are alike."""
    expected: list[int] = []
    for workers in (1, 2):
        loader = Positioned(made(kind, workers), seed=11, increment=1)
        found = [*digests(loader), *digests(loader)]
        loader.close()
        assert len(set(found)) == len(found) == 2 * len(loader)
        assert found == (expected or found)
        expected = found
        later = Positioned(made(kind, workers), seed=11, increment=1)
        later.start_at(1, 2)
        assert digests(later) == found[len(loader) + 2 :]
        later.close()


def test_loading_leaves_the_generators_of_the_loop_alone() -> None:
    """What the loop draws does not depend on what is loaded beside it, nor when."""
    random.seed(3)
    np.random.seed(3)
    undisturbed = [(random.random(), np.random.rand()) for _ in range(5)]
    random.seed(3)
    np.random.seed(3)
    loader = Positioned(made("map", 1), seed=11, increment=1)
    assert [(random.random(), np.random.rand()) for _ in loader] == undisturbed
    loader.close()


def test_an_epoch_that_is_broken_off_ends_without_an_error() -> None:
    """Loaders are closed while a pipeline still waits for items; a closed one begins anew."""
    loader = Positioned(made("map", 1), seed=11, increment=1)
    for _batch in loader:
        break
    loader.close()
    assert len(digests(loader)) == len(loader)
    loader.close()


def test_the_items_of_a_pipeline_are_put_in_order_epoch_after_epoch() -> None:
    """`run.loader` over a source behind a map begins anywhere, too."""
    items = ds.GeneratorDataset(Noisy(), ["value", "label"]).map(lambda value: -value, "value")
    loader = Loader(items, seed=3, increment=1, batch_size=8)
    whole = digests(loader)
    loader.start_at(0, 2)
    assert digests(loader) == whole[2:]
    loader.close()
