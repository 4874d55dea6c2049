"""Pipelines of MindSpore's own, begun where a run was interrupted."""

from __future__ import annotations

import itertools
import random
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest
from mindspore.dataset import transforms, vision

from onward.data.mindspore import Loader
from onward.data.mindspore_pipeline import SEGMENT, Pipeline
from onward.data.mindspore_positioned import Positioned
from onward.errors import Mismatch, UsageError
from tests.data.test_mindspore_loader import Augmented, plains, randomness

ITEMS = 30


def images(folder: Path, count: int = ITEMS) -> str:
    """A folder as `MnistDataset` reads it: image `i` is full of `i`, and has the label `i % 10`."""
    folder.mkdir(exist_ok=True)
    pixels = np.repeat(np.arange(count, dtype=np.uint8), 28 * 28).tobytes()
    labels = (np.arange(count) % 10).astype(np.uint8).tobytes()
    name = "train-{}-ubyte"
    (folder / name.format("images-idx3")).write_bytes(
        struct.pack(">IIII", 2051, count, 28, 28) + pixels
    )
    (folder / name.format("labels-idx1")).write_bytes(struct.pack(">II", 2049, count) + labels)
    return str(folder)


class Stream:
    """An iterable without items; it may know its length."""

    def __init__(self, count: int = ITEMS) -> None:
        self.count = count

    def __iter__(self) -> Any:
        for index in range(self.count):
            yield (np.int32(index),)


class Sized(Stream):
    def __len__(self) -> int:
        return self.count


def rotated(pipeline: Any) -> Any:
    return pipeline.map([vision.RandomRotation(90)], "image", num_parallel_workers=2)


PIPELINES: dict[str, Callable[[Path], Any]] = {
    "a list of items": lambda folder: ds.GeneratorDataset(
        Augmented(ITEMS), ["i", "x"], shuffle=True
    ).batch(4),
    "a list of items, workers": lambda folder: ds.GeneratorDataset(
        Augmented(ITEMS), ["i", "x"], shuffle=True, num_parallel_workers=2
    ).batch(4),
    "in order, mapped": lambda folder: (
        ds.GeneratorDataset([np.float32(i) for i in range(ITEMS)], ["x"], shuffle=False)
        .map(lambda x: x * 2)
        .batch(4, drop_remainder=True)
    ),
    "images": lambda folder: ds.MnistDataset(images(folder), "train", shuffle=True).batch(4),
    "images turned at random": lambda folder: rotated(
        ds.MnistDataset(images(folder), "train", shuffle=True)
    ).batch(4),
    "renamed and projected": lambda folder: (
        ds.MnistDataset(images(folder), "train", shuffle=False)
        .rename("label", "class")
        .project(["class"])
        .batch(4)
    ),
}
REPLAYED: dict[str, Callable[[Path], Any]] = {
    "shuffled in a buffer": lambda folder: ds.GeneratorDataset(
        [np.float32(i) for i in range(ITEMS)], ["x"], shuffle=False
    ).shuffle(8).batch(4),
    "repeated": lambda folder: ds.GeneratorDataset(
        [np.float32(i) for i in range(ITEMS)], ["x"], shuffle=False
    ).repeat(2).batch(4),
    "a stream": lambda folder: ds.GeneratorDataset(Stream(), ["x"], shuffle=False).batch(4),
    "a stream of a known length": lambda folder: ds.GeneratorDataset(
        Sized(), ["x"], shuffle=False
    ).batch(4),
    "zipped": lambda folder: ds.zip(
        (
            ds.GeneratorDataset([np.float32(i) for i in range(ITEMS)], ["x"], shuffle=False),
            ds.GeneratorDataset([np.float32(-i) for i in range(ITEMS)], ["y"], shuffle=False),
        )
    ).batch(4),
    "a sampler of the user's": lambda folder: ds.GeneratorDataset(
        [np.float32(i) for i in range(ITEMS)], ["x"], sampler=ds.SequentialSampler(3, 20)
    ).batch(4),
}  # fmt: skip
ALL = PIPELINES | REPLAYED


def positioned(kind: str, folder: Path, seed: int = 5) -> Positioned:
    return Positioned(ALL[kind](folder), seed=seed, increment=1)


@pytest.mark.parametrize("kind", ALL)
def test_it_goes_on_within_an_epoch_with_the_same_batches(kind: str, tmp_path: Path) -> None:
    """Taken up in another process at any batch: the rest of the epoch, then the next one."""
    whole = positioned(kind, tmp_path)
    epochs = [plains(whole), plains(whole)]
    assert epochs[0]
    for taken in (1, 5):
        first = positioned(kind, tmp_path)
        for _ in itertools.islice(first, taken):
            pass
        second = positioned(kind, tmp_path)
        second.load_state_dict(first.state_dict())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert plains(second) == epochs[0][taken:]
        assert plains(second) == epochs[1]
        first.close()
        second.close()
    whole.close()


@pytest.mark.parametrize("kind", ["a list of items", "images turned at random", "images"])
def test_epochs_and_seeds_differ(kind: str, tmp_path: Path) -> None:
    """Neither order nor augmentation repeats."""
    one = positioned(kind, tmp_path)
    runs = [plains(one), plains(one), plains(positioned(kind, tmp_path, seed=6))]
    for a, b in itertools.combinations(runs, 2):
        assert a != b


@pytest.mark.parametrize("kind", PIPELINES)
def test_every_item_comes_once_an_epoch(kind: str, tmp_path: Path) -> None:
    """No item is left out or repeated by being asked for in an order of Onward's."""
    one = positioned(kind, tmp_path)
    rows = [row for batch in one for row in zip(*plains(batch), strict=True)]
    assert len(rows) == (28 if kind == "in order, mapped" else ITEMS)
    if "images turned" not in kind and "renamed" not in kind:
        assert len({str(row) for row in rows}) == len(rows)
    assert len(one) == len(plains(one))
    one.close()


def test_batches_before_the_position_are_not_loaded() -> None:
    """Resuming costs the indices of what is skipped, not its items."""
    source = Augmented(ITEMS)
    one = Positioned(ds.GeneratorDataset(source, ["i", "x"]).batch(4), seed=1, increment=1)
    one.start_at(0, 6)
    list(one)
    assert len(source.loaded) == ITEMS - 24


def test_random_transforms_are_seeded_in_segments(tmp_path: Path) -> None:
    """To begin within a segment its first batches are loaded again; across segments it goes on."""
    folder = images(tmp_path / "mnist", 4 * SEGMENT + 8)

    def make() -> Positioned:
        pipeline = rotated(ds.MnistDataset(folder, "train", shuffle=False)).batch(4)
        return Positioned(pipeline, seed=5, increment=1)

    whole = plains(make())
    assert len(whole) == SEGMENT + 2
    for start in (SEGMENT - 2, SEGMENT, SEGMENT + 1):
        one = make()
        one.start_at(0, start)
        assert plains(one) == whole[start:]


@pytest.mark.parametrize("kind", [k for k in ALL if k != "a list of items, workers"])
def test_the_programs_own_randomness_is_not_touched(kind: str, tmp_path: Path) -> None:
    """Reading a pipeline, its random transforms too, draws and seeds nothing of the program's."""
    one = positioned(kind, tmp_path)
    np.random.seed(0)
    random.seed(0)
    before = randomness()
    list(one)
    assert randomness() == before


def test_the_pipeline_itself_is_left_as_it_was(tmp_path: Path) -> None:
    """Its sampler, its size and its workers are the user's again after each iteration."""
    pipeline = rotated(ds.MnistDataset(images(tmp_path / "m"), "train", shuffle=True)).batch(4)
    source, mapped = pipeline.children[0].children[0], pipeline.children[0]
    sampler, workers = source.sampler, mapped.num_parallel_workers
    list(Positioned(pipeline, seed=1, increment=1))
    assert source.sampler is sampler
    assert mapped.num_parallel_workers == workers
    assert pipeline.get_dataset_size() == 8
    assert sum(1 for _ in pipeline.create_tuple_iterator(num_epochs=1)) == 8


@pytest.mark.parametrize(
    ("kind", "obstacle"),
    [
        ("shuffled in a buffer", "ShuffleDataset changes which rows come, or in what order"),
        ("repeated", "RepeatDataset changes which rows come, or in what order"),
        ("a stream", "GeneratorDataset is a stream, not a list of items"),
        ("zipped", "ZipDataset puts several datasets together"),
        ("a sampler of the user's", "its source has a sampler of its own"),
    ],
)
def test_what_is_replayed_is_told_with_the_obstacle(
    kind: str, obstacle: str, tmp_path: Path
) -> None:
    """Loading batches only to drop them may take hours, so it is said, and why."""
    one = positioned(kind, tmp_path)
    one.start_at(0, 2)
    with pytest.warns(UserWarning, match="loads 2 batches only to drop them") as caught:
        list(one)
    assert obstacle in str(caught[0].message)


@pytest.mark.parametrize("obstacle", ["varying batch", "per_batch_map", "batch sampler", "two"])
def test_batches_that_vary_are_replayed(obstacle: str) -> None:
    """A batch whose size or content is a function of where it is cannot be asked for."""
    source = ds.GeneratorDataset([np.float32(i) for i in range(8)], ["x"], shuffle=False)
    pipeline = {
        "varying batch": lambda: source.batch(lambda info: 1 + info.get_batch_num() % 2),
        "per_batch_map": lambda: source.batch(2, per_batch_map=lambda x, info: (x,)),
        "batch sampler": lambda: ds.GeneratorDataset(
            [np.float32(i) for i in range(8)], ["x"], batch_sampler=[[0, 1], [2, 3]]
        ),
        "two": lambda: source.batch(2).batch(2),
    }[obstacle]()
    assert Pipeline(pipeline).obstacle(batched=True)
    one = Positioned(pipeline, seed=1, increment=1)
    whole = plains(one)
    one.start_at(0, 1)
    with pytest.warns(UserWarning, match="only to drop them"):
        assert plains(one) == whole[1:]


def test_a_source_that_never_ends_is_not_counted(tmp_path: Path) -> None:
    """MindSpore would read it to find its size, and never return; a loop may take it as it is."""

    def endless() -> Any:
        for index in itertools.count():
            yield (np.int32(index),)

    one = Positioned(ds.GeneratorDataset(endless, ["x"]).batch(4), seed=1, increment=1)
    with pytest.raises(TypeError, match="has no length"):
        len(one)
    assert one.items is None
    assert plains(itertools.islice(one, 2)) == [[[0, 1, 2, 3]], [[4, 5, 6, 7]]]
    with pytest.raises(UsageError, match="endless, has no __len__") as caught:
        one.get_dataset_size()
    assert "__len__" in caught.value.do
    assert one.state_dict()["settings"]["batches"] is None


def test_an_interrupted_epoch_does_not_go_on_with_other_batches(tmp_path: Path) -> None:
    """Another batch size or other data within an epoch is refused with what differs."""
    first = positioned("images", tmp_path)
    next(iter(first))
    pipeline = ds.MnistDataset(images(tmp_path), "train").batch(6)
    with pytest.raises(Mismatch) as caught:
        Positioned(pipeline, seed=5, increment=1).load_state_dict(first.state_dict())
    assert caught.value.differences == [
        "batch_size: 4 in the checkpoint, 6 now",
        "batches: 8 in the checkpoint, 5 now",
    ]


def test_a_python_dataset_is_sent_to_the_loader() -> None:
    """`run.batches` takes pipelines; lists of items have a better way."""
    with pytest.raises(UsageError, match=r"run\.batches was given a list") as caught:
        Positioned([1, 2, 3], seed=1, increment=1)
    assert "run.loader" in caught.value.do


@pytest.mark.parametrize("random_transform", [False, True])
def test_a_pipeline_in_onwards_loader_begins_anywhere(
    random_transform: bool, tmp_path: Path
) -> None:
    """`run.loader` over a pipeline without a batch: what is new, in an order of Onward's."""

    def make() -> Loader:
        pipeline = ds.MnistDataset(images(tmp_path), "train")
        if random_transform:
            pipeline = rotated(pipeline)
        pipeline = pipeline.map(transforms.TypeCast(ms.float32), "image")
        return Loader(
            pipeline, seed=1, increment=1, batch_size=4,
            new=np.arange(10, ITEMS), old=np.arange(10), replay=0.5,
        )  # fmt: skip

    whole = make()
    epochs = [plains(whole), plains(whole)]
    assert sorted(row for batch in epochs[0] for row in batch[1])
    for taken in (1, 5):
        one = make()
        one.start_at(0, taken)
        assert plains(one) == epochs[0][taken:]
        assert plains(one) == epochs[1]
