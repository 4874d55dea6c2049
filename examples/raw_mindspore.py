"""An ordinary MindSpore loop with Onward in it: the same command trains, resumes, and goes on.

onward run examples/raw_mindspore.py --data DATA --output OUT -- --epochs 2
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn, ops

import onward


class Images:
    """Images of all `part-*.npz` files in a folder, moved by up to two pixels at random."""

    def __init__(self, files: list[Path], *, augment: bool) -> None:
        parts = [np.load(file) for file in files]
        images = np.concatenate([part["images"] for part in parts])
        self.images = images[:, None].astype(np.float32) / 255
        self.labels = np.concatenate([part["labels"] for part in parts]).astype(np.int32)
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        image = self.images[index]
        if self.augment:
            image = np.roll(image, np.random.randint(-2, 3, 2), (1, 2))
        return image, self.labels[index]


def network() -> nn.Cell:
    return nn.SequentialCell(
        nn.Conv2d(1, 16, 3, stride=2, pad_mode="pad", padding=1), nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, pad_mode="pad", padding=1), nn.ReLU(),
        nn.Flatten(), nn.Dense(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(p=0.3), nn.Dense(128, 10),
    )  # fmt: skip


def accuracy(network: nn.Cell, test: Images) -> dict[str, float]:
    right = 0
    for start in range(0, len(test), 1000):
        outputs = network(ms.Tensor(test.images[start : start + 1000]))
        right += int((outputs.argmax(1).asnumpy() == test.labels[start : start + 1000]).sum())
    return {"accuracy": right / len(test)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    random.seed(1)
    ms.set_seed(1)
    train = Images(sorted(args.data_url.glob("part-*.npz")), augment=True)
    test = Images([args.data_url / "test.npz"], augment=False)
    net = network()
    optimizer = nn.AdamWeightDecay(net.trainable_params(), learning_rate=2e-3, weight_decay=0.01)
    step = ms.value_and_grad(
        lambda images, labels: ops.cross_entropy(net(images), labels), None, optimizer.parameters
    )

    with onward.open(
        args.train_url, network=net, optimizer=optimizer, save_every_steps=100, config=vars(args)
    ) as run:
        loader = run.loader(train, batch_size=64, num_workers=args.workers)
        for _epoch in run.epochs(args.epochs):
            net.set_train()
            for images, labels in loader:
                loss, gradients = step(images, labels)
                optimizer(gradients)
                run.step(loss=loss)
            run.evaluate(lambda: accuracy(net, test))


if __name__ == "__main__":
    main()
