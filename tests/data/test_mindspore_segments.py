"""A pipeline with random transforms is read segment by segment, epoch after epoch."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.dataset import vision

from onward.data import mindspore_fetching, mindspore_loader
from onward.data.mindspore import Loader

ITEMS, SIZE = 40, 28


@pytest.fixture
def digits(tmp_path: Path) -> Path:
    """A folder that `MnistDataset` reads."""
    images = np.random.default_rng(0).integers(0, 255, (ITEMS, SIZE, SIZE), dtype=np.uint8)
    head = struct.pack(">IIII", 2051, ITEMS, SIZE, SIZE)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(head + images.tobytes())
    labels = bytes(i % 10 for i in range(ITEMS))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, ITEMS) + labels)
    return tmp_path


def loader(digits: Path) -> Any:
    source = ds.MnistDataset(str(digits), usage="train")
    crops = source.map([vision.RandomCrop(8), vision.RandomHorizontalFlip()], "image")
    return Loader(crops, seed=1, increment=1, batch_size=4)


def batches(loader: Any) -> list[bytes]:
    return [image.asnumpy().tobytes() + label.asnumpy().tobytes() for image, label in loader]


@pytest.fixture(autouse=True)
def _short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_fetching, "SEGMENT", 4)
    monkeypatch.setattr(mindspore_loader, "SEGMENT", 4)


def test_every_segment_of_every_epoch_is_read(digits: Path) -> None:
    """Ten batches in three segments, twice; each epoch holds every item once, in its own order."""
    live = loader(digits)
    first, second = batches(live), batches(live)
    assert len(first) == len(second) == 10
    assert first != second
    labels = sorted(int(n) for _, label in loader(digits) for n in label.asnumpy())
    assert labels == sorted(i % 10 for i in range(ITEMS))


@pytest.mark.parametrize("position", [1, 3, 4, 6, 9])
def test_a_position_within_a_segment_gives_the_same_crops(digits: Path, position: int) -> None:
    """Begun anywhere, in a fresh loader, the rest of an epoch is bit for bit the same."""
    whole = batches(loader(digits))
    later = loader(digits)
    later.start_at(0, position)
    assert batches(later) == whole[position:]


def test_a_pipeline_that_somebody_else_goes_on_from_is_read_all_the_same(digits: Path) -> None:
    """A validation pipeline made of the same source does not stand in the way."""
    source = ds.MnistDataset(str(digits), usage="train").map(vision.Rescale(1 / 255, 0.0), "image")
    theirs = source.batch(5)
    ours = Loader(source, seed=1, increment=1, batch_size=4)
    assert len(batches(ours)) == 10
    assert theirs.get_dataset_size() == 8
    assert len(list(theirs.create_tuple_iterator(num_epochs=1))) == 8
