"""Onward's loader for MindSpore: the order of PyTorch's, batches that follow from the position."""

from __future__ import annotations

import itertools
import random
from typing import Any

import mindspore as ms
import mindspore.dataset as ds
import numpy as np
import pytest

from onward.data.mindspore_loader import Loader, adapted
from onward.data.torch_loader import Loader as TorchLoader
from onward.errors import DataError, Mismatch, UsageError
from onward.learning.mindspore import maths
from onward.learning.samples import Samples


class Augmented:
    """Item `i` is `i` with random numbers; counts what was loaded in this process."""

    def __init__(self, count: int = 50) -> None:
        self.count = count
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.loaded.append(index)
        drawn = [random.random(), random.gauss(0, 1), float(np.random.standard_normal())]
        return index, np.array(drawn, np.float32)


def random_collate(items: list[Any]) -> Any:
    """Collates with a random number of its own (mixup and the like)."""
    indices = np.array([item[0] for item in items], np.int32)
    values = np.stack([item[1] for item in items])
    return indices, values, np.array([np.random.random(), random.random()])


def loader(dataset: Any = None, **options: Any) -> Loader:
    settings: dict[str, Any] = {"seed": 3, "increment": 2, "batch_size": 8}
    return Loader(Augmented() if dataset is None else dataset, **{**settings, **options})


def plain(batch: Any) -> Any:
    """A batch as numbers that compare exactly."""
    if isinstance(batch, ms.Tensor | np.ndarray):
        return batch.tolist()
    if isinstance(batch, list | tuple):
        return [plain(part) for part in batch]
    return batch


def plains(batches: Any) -> list[Any]:
    return [plain(batch) for batch in batches]


def randomness() -> list[Any]:
    return [random.getstate(), str(np.random.get_state()), ms.get_rng_state().asnumpy().tolist(),
            ds.config.get_seed()]  # fmt: skip


@pytest.mark.parametrize("collate_fn", [None, random_collate])
def test_batches_are_the_same_with_any_number_of_workers(collate_fn: Any) -> None:
    """Order, augmentations of both generators and random collation, for two epochs."""
    one, other = loader(collate_fn=collate_fn), loader(collate_fn=collate_fn, num_workers=2)
    for _ in range(2):
        assert plains(other) == plains(one)
    other.close()


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True},
                                     {"new": np.arange(30), "old": np.arange(30, 50)}])  # fmt: skip
def test_the_order_is_that_of_pytorchs_loader(options: dict[str, Any]) -> None:
    """Same seed, increment and settings: item for item, epoch after epoch."""
    settings = {"seed": 3, "increment": 2, "batch_size": 8, **options}
    one = Loader(list(range(50)), **settings)
    other = TorchLoader(list(range(50)), **settings)
    assert len(one) == len(other)
    for _ in range(2):
        assert plains(one) == [batch.tolist() for batch in other]
    one.mix(np.arange(30, 50), 0.5)
    other.mix(np.arange(30, 50), 0.5)
    assert plains(one) == [batch.tolist() for batch in other]


def test_an_augmentation_draws_what_it_draws_under_pytorch() -> None:
    """Python's and NumPy's generators are seeded alike before each batch."""
    settings: dict[str, Any] = {"seed": 3, "increment": 2, "batch_size": 8}
    one, other = Loader(Augmented(), **settings), TorchLoader(Augmented(), **settings)
    for (i, x), (j, y) in zip(one, other, strict=True):
        assert i.tolist() == j.tolist()
        assert np.array_equal(x.asnumpy(), y.numpy())


@pytest.mark.parametrize("workers", [0, 2])
def test_it_begins_anywhere_without_loading_what_came_before(workers: int) -> None:
    """The rest of an interrupted epoch, then the next one, are as if never interrupted."""
    whole = loader()
    epochs = [plains(whole), plains(whole)]
    first = loader()
    for _ in itertools.islice(first, 3):
        pass
    resumed = loader(num_workers=workers)
    resumed.load_state_dict(first.state_dict())
    assert plains(resumed) == epochs[0][3:]
    assert plains(resumed) == epochs[1]
    if not workers:
        assert len(resumed.dataset.loaded) == 50 - 24 + 50
    resumed.close()


def test_another_batch_size_within_an_epoch_is_refused() -> None:
    """Its rest would be other batches; at an epoch's end it may change."""
    first = loader()
    next(iter(first))
    with pytest.raises(Mismatch, match="batch_size: 8 in the checkpoint, 4 now"):
        loader(batch_size=4).load_state_dict(first.state_dict())


@pytest.mark.parametrize("workers", [0, 1])
def test_the_programs_own_randomness_is_not_touched(workers: int) -> None:
    """Neither making an iterator nor loading or collating draws from the program."""
    one = loader(num_workers=workers, collate_fn=random_collate)
    np.random.seed(0)
    before = randomness()
    list(one)
    one.state_dict()
    assert randomness() == before
    one.close()


@pytest.mark.parametrize(
    ("item", "dtype", "shape"),
    [
        (3, ms.int32, (2,)), (0.5, ms.float32, (2,)), (True, ms.bool_, (2,)),
        (np.float16(1), ms.float16, (2,)), (np.ones((2, 3), np.int64), ms.int64, (2, 2, 3)),
        (np.uint8(3), ms.uint8, (2,)), (ms.Tensor([1.0]), ms.float32, (2, 1)),
    ],
)  # fmt: skip
def test_items_become_tensors_as_losses_expect_them(item: Any, dtype: Any, shape: Any) -> None:
    """Python's numbers are int32 and float32; everything else keeps its dtype."""
    one = Loader([item, item], seed=1, increment=1, batch_size=2)
    batch = next(iter(one))
    assert batch.dtype == dtype
    assert batch.shape == shape
    assert isinstance(batch, ms.Tensor)


def test_items_of_any_structure() -> None:
    """Tuples and dicts of columns; text stays a list."""
    item = {"x": np.ones(2, np.float32), "y": (1, "word"), "z": [2.0, 3]}
    batch = next(iter(Loader([item, item], seed=1, increment=1, batch_size=2)))
    assert batch["x"].shape == (2, 2)
    assert batch["y"][0].tolist() == [1, 1]
    assert batch["y"][1] == ["word", "word"]
    assert batch["z"][1].tolist() == [3, 3]


def test_items_that_do_not_stack_are_an_error_of_the_data() -> None:
    """It names the shapes, and what to do."""
    one = Loader([np.ones(2), np.ones(3)], seed=1, increment=1, batch_size=2)
    with pytest.raises(DataError, match=r"different shapes: \(2,\), \(3,\)") as caught:
        next(iter(one))
    assert "collate_fn" in caught.value.do


class Slots:
    """Samples kept as a replay memory keeps them."""

    def __init__(self, samples: list[Any]) -> None:
        self._samples = Samples(len(samples))
        self._samples.write(np.arange(len(samples)), samples)

    def sample(self, slot: int) -> Any:
        return self._samples.read(slot, tensor=maths.host_tensor)

    def batch(self, slots: list[int]) -> Any | None:
        return self._samples.read_batch(np.array(slots), tensor=maths.host_tensor)


FORMS = {
    "pair": lambda i: (np.full(2, float(i), np.float32), i),
    "float": lambda i: (np.full(2, i, np.float32), i / 2),
    "half": lambda i: (np.full(2, i, np.float16), i % 2 == 0),
    "image": lambda i: {"x": np.full((2, 2), i, np.uint8), "labels": i},
    "NumPy numbers": lambda i: (np.full(3, i, np.float64), np.int64(i)),
    "text": lambda i: (f"text {i}", i),
    "nested": lambda i: {"a": {"b": (np.array([i]), float(i))}, "labels": i},
    "array alone": lambda i: np.array([i, i + 1]),
    "number alone": lambda i: i,
}


def described(batch: Any) -> Any:
    if isinstance(batch, ms.Tensor):
        return str(batch.dtype), batch.tolist()
    if isinstance(batch, dict):
        return {key: described(value) for key, value in batch.items()}
    if isinstance(batch, list | tuple):
        return [described(part) for part in batch]
    return batch


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("new", "old"), [(4, 0), (3, 1), (0, 4)])
def test_remembered_rows_look_as_if_the_dataset_had_given_them(
    form: str, new: int, old: int
) -> None:
    """However many rows are remembered: types, dtypes and values are those of one batch."""
    make = FORMS[form]
    fresh, kept = [make(i) for i in range(5)], [make(i) for i in range(10, 15)]
    mixed = Loader(fresh, seed=1, increment=1)
    mixed.attach(Slots(kept))
    batch = mixed.load(np.array([*range(new), *range(5, 5 + old)]), seed=1)
    whole = Loader([*fresh[:new], *kept[:old]], seed=1, increment=1)
    assert described(batch) == described(whole.load(np.arange(new + old), seed=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_rows_say_where_each_row_is_from(workers: int) -> None:
    """In the order of the batch, with workers that load ahead too; a break forgets nothing."""
    fresh = [(np.array([float(i)]), i) for i in range(12)]
    kept = [(np.array([float(i)]), i) for i in range(100, 106)]
    one = Loader(fresh, seed=1, increment=2, batch_size=4, num_workers=workers)
    one.attach(Slots(kept))
    one.mix(np.arange(12, 18), 0.5)
    for stop in (2, 99):
        for number, (_, labels) in enumerate(one):
            assert labels.tolist() == [row if row < 12 else row + 88 for row in one.rows]
            if number == stop:
                break
    one.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_a_collate_fn_sees_new_and_remembered_items_together(workers: int) -> None:
    """One call for the whole batch, as without a memory."""
    calls: list[int] = []

    def padded(items: list[Any]) -> Any:
        calls.append(len(items))
        width = max(len(item) for item in items)
        return np.stack([np.pad(item, (0, width - len(item))) for item in items])

    fresh = [np.ones(1 + i % 2, np.float32) for i in range(4)]
    one = Loader(fresh, seed=1, increment=1, batch_size=4, collate_fn=padded, num_workers=workers)
    one.attach(Slots([np.ones(3, np.float32)]))
    one.mix(np.array([4]), 0.5)
    assert {batch.shape[1] for batch in one} == {3}
    assert set(calls) == {4}
    one.close()


def test_a_generator_dataset_is_its_python_source() -> None:
    """Bare, it is taken apart; a pipeline over a list of items gives them one by one."""
    source = Augmented(6)
    assert adapted(ds.GeneratorDataset(source, ["i", "x"])) is source
    mapped = ds.GeneratorDataset([np.float32(i) for i in range(6)], ["x"]).map(lambda x: 2 * x)
    items = adapted(mapped)
    assert len(items) == 6
    assert [float(row[0]) for row in items] == [0, 2, 4, 6, 8, 10]
    assert float(items[4][0]) == 8
    one = Loader(items, seed=1, increment=1, batch_size=4, shuffle=False)
    assert plains(one) == [[[0, 2, 4, 6]], [[8, 10]]]


@pytest.mark.parametrize("spoil", ["batch", "shuffle", "repeat", "filter", "zip", "stream"])
def test_pipelines_without_items_are_refused_with_the_reason(spoil: str) -> None:
    """Whose rows cannot be asked for one by one: it names what is in the way."""
    plain_one = ds.GeneratorDataset([1, 2, 3, 4], ["x"])
    pipelines: dict[str, Any] = {
        "batch": (lambda: plain_one.batch(2), "batched already"),
        "shuffle": (lambda: plain_one.shuffle(4), "ShuffleDataset changes which rows come"),
        "repeat": (lambda: plain_one.repeat(2), "RepeatDataset changes which rows come"),
        "filter": (lambda: plain_one.filter(lambda x: x > 1), "FilterDataset changes which rows"),
        "zip": (
            lambda: ds.zip((plain_one, ds.GeneratorDataset([1, 2, 3, 4], ["y"]))),
            "ZipDataset puts several datasets together",
        ),
        "stream": (
            lambda: ds.GeneratorDataset(lambda: iter([(1,), (2,)]), ["x"]),
            "is a stream, not a list of items",
        ),
    }
    make, words = pipelines[spoil]
    with pytest.raises(UsageError, match=words) as caught:
        adapted(make())
    assert "run.batches" in caught.value.do
