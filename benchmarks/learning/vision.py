"""Images: Fashion-MNIST that grows, in items or in classes; MNIST, two digits at a time.

Split-MNIST twice, class-incremental: no task is told. Once with 300 iterations a task, as a quick
form of the protocol of van de Ven et al. 2022: 28 × 28 images in [0, 1], the head has the classes
seen so far. Once as in Hsu et al. 2018: 4 epochs a task, images padded to 32 × 32 and normalised,
a head of ten classes from the beginning.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from examples.data import fashion_mnist, mnist
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from benchmarks.learning.scenarios import Items, Scenario, Size, Stage, accuracy

BASE_ITEMS = 48_000
OLD_CLASSES = 8
RETRAIN_EPOCHS = 8
MEMORY_OF_4_PERCENT = 1_920
"""4 % of the 48,000 old images, which is less than 4 % of all."""


def scenario(name: str) -> Scenario:
    """One of this file's four."""
    make = {
        "fashion-growth": growth,
        "fashion-classes": classes,
        "split-mnist": split_mnist,
        "split-mnist-hsu": split_mnist_hsu,
    }[name]
    return make()


def growth() -> Scenario:
    """48,000 images, then 12,000 more of the same ten classes; the test images are halved."""
    train, test = _items(fashion_mnist.load())
    half = len(test) // 2
    size = {"classes": 10}
    return _fashion(
        "fashion-growth",
        "Fashion-MNIST, 20 % more of the same kind",
        (
            Stage(_part(train, 0, BASE_ITEMS), _part(test, 0, half), size),
            Stage(_part(train, BASE_ITEMS, len(train)), _part(test, half, len(test)), size),
        ),
    )


def classes() -> Scenario:
    """The images of classes 0 … 7, then those of 8 and 9 (bags and ankle boots)."""
    train, test = _items(fashion_mnist.load())
    stages = [
        Stage(train.take(train_of), test.take(test_of), {"classes": size})
        for train_of, test_of, size in (
            (train.targets < OLD_CLASSES, test.targets < OLD_CLASSES, OLD_CLASSES),
            (train.targets >= OLD_CLASSES, test.targets >= OLD_CLASSES, 10),
        )
    ]
    return _fashion(
        "fashion-classes",
        "Fashion-MNIST, two new classes of ten",
        tuple(stages),
        memories=(MEMORY_OF_4_PERCENT,),
    )


def split_mnist() -> Scenario:
    """Five tasks of two digits, 300 iterations each, 1,000 samples kept."""
    train, test = _items(mnist.load())
    return _split(
        "split-mnist",
        "Split-MNIST, class-incremental, 300 iterations a task",
        (train, test),
        steps=lambda _: 300,
        grows=True,
        memories=(1_000,),
    )


def split_mnist_hsu() -> Scenario:
    """Five tasks of two digits, 4 epochs each, 4,400 or 1,100 samples kept."""
    train, test = (
        Items((pad(_square(items), (2, 2, 2, 2)).flatten(1) - 0.1) / 0.2752, items.targets)
        for items in _items(mnist.load())
    )
    return _split(
        "split-mnist-hsu",
        "Split-MNIST, the protocol of Hsu et al. 2018",
        (train, test),
        steps=lambda items: 4 * len(items) // 128,
        grows=False,
        memories=(4_400, 1_100),
    )


def _fashion(
    name: str, title: str, stages: tuple[Stage, ...], memories: tuple[int, ...] = ()
) -> Scenario:
    items = sum(len(stage.items) for stage in stages)
    batch_size = 128
    return Scenario(
        name=name,
        title=title,
        stages=stages,
        make_model=lambda size: _mlp(784, (256, 128), size),
        loss=cross_entropy,
        score=accuracy,
        unit="accuracy %",
        batch_size=batch_size,
        peak_rate=1e-3,
        retrain_steps=RETRAIN_EPOCHS * items // batch_size,
        memories=memories,
    )


def _split(
    name: str,
    title: str,
    data: tuple[Items, Items],
    *,
    steps: Callable[[Items], int],
    grows: bool,
    memories: tuple[int, ...],
) -> Scenario:
    train, test = data
    stages = tuple(
        Stage(
            train.take(_among(train, digit, digit + 1)),
            test.take(_among(test, digit, digit + 1)),
            {"classes": digit + 2 if grows else 10},
        )
        for digit in range(0, 10, 2)
    )
    width = train.inputs.shape[1]
    return Scenario(
        name=name,
        title=title,
        stages=stages,
        make_model=lambda size: _mlp(width, (400, 400), size),
        loss=cross_entropy,
        score=accuracy,
        unit="accuracy %",
        batch_size=128,
        peak_rate=1e-3,
        stage_steps=tuple(steps(stage.items) for stage in stages),
        memories=memories,
    )


def _mlp(inputs: int, hidden: tuple[int, ...], size: Size) -> nn.Module:
    layers: list[nn.Module] = []
    for outputs in hidden:
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Linear(inputs, size["classes"]))


def _items(arrays: dict[str, np.ndarray]) -> tuple[Items, Items]:
    train, test = (
        Items(
            torch.from_numpy(arrays[f"{part}-images"].reshape(-1, 784).astype(np.float32) / 255),
            torch.from_numpy(arrays[f"{part}-labels"].astype(np.int64)),
        )
        for part in ("train", "test")
    )
    return train, test


def _part(items: Items, first: int, last: int) -> Items:
    return Items(items.inputs[first:last], items.targets[first:last])


def _among(items: Items, *digits: int) -> Tensor:
    return torch.isin(items.targets, torch.tensor(digits))


def _square(items: Items) -> Tensor:
    return items.inputs.view(-1, 28, 28)
