"""`vision.py` in MindSpore: more of the same classes (Fashion-MNIST), or new classes (MNIST).

python -m examples.data.fashion_mnist DATA --parts 5    # later --parts 6, or
python -m examples.data.mnist DATA --digits 0 1 2 3     # later --digits 0 1 2 3 4 5
onward run examples/mindspore_vision.py --data DATA --output OUT

New classes want more steps than more of the same: … -- --budget "0.2 x retrain"
Where old files are deleted once they are learned: … -- --strategy der++ --memory 1000
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import nn

import onward
from onward import learning
from onward.learning.names import Names

RETRAIN_EPOCHS = 6


class Images:
    """The images of some .npz files, in memory. Each is known by its file and its place there."""

    def __init__(self, files: list[Path]) -> None:
        parts = [np.load(file) for file in files]
        self.names = np.concatenate([part["labels"] for part in parts])
        self.images = np.concatenate([part["images"] for part in parts])
        counts = [(file.stem, len(part["labels"])) for file, part in zip(files, parts, strict=True)]
        self.ids = [f"{name} {place}" for name, count in counts for place in range(count)]

    def label(self, classes: Names) -> Images:
        """Gives each image the row of its class; a class that comes later has none: -1."""
        rows = {int(name): classes.row(name) if name in classes else -1 for name in set(self.names)}
        self.labels = np.array([rows[name] for name in self.names.tolist()], np.int32)
        return self

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.int32]:
        return self.images[index][None].astype(np.float32) / 255, self.labels[index]


class Network(nn.Cell):
    """Two hidden layers, and a head with a row for each class.

    Convolutions would know more; MindSpore's take a third of a second a step on a CPU.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.SequentialCell(
            nn.Flatten(), nn.Dense(784, 256), nn.ReLU(), nn.Dense(256, 128), nn.ReLU()
        )
        self.head = nn.Dense(128, classes)

    def construct(self, images: ms.Tensor) -> ms.Tensor:
        return self.head(self.body(images))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--budget", default="0.1 x retrain")
    parser.add_argument("--strategy", default="uniform")
    parser.add_argument("--memory", type=int, help="images kept; old files may then be deleted")
    args = parser.parse_args()
    options = {"memory": args.memory, "policy": "class-balanced"} if args.memory else {}

    files = sorted(args.data_url.glob("*.npz"))
    train = Images([file for file in files if not file.stem.startswith("test")])
    classes = onward.names(args.train_url, "classes", train.names)
    train.label(classes)

    ms.set_context(pynative_synchronize=True)  # small operators cost more when they are handed on
    ms.set_seed(1)
    network = Network(len(classes))
    optimizer = nn.Adam(network.trainable_params(), learning_rate=1e-3)
    criterion = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    with onward.open(
        args.train_url, network=network, optimizer=optimizer, classes=classes,
        grow={"network.head": classes}, strategy=learning.strategy(args.strategy, **options),
        margin=0.02, keep_last=2, config=vars(args),
    ) as run:  # fmt: skip

        def forward(images: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
            outputs = network(images)
            return criterion(outputs, labels) + run.penalty(outputs)

        loss_and_gradients = ms.value_and_grad(forward, None, optimizer.parameters)
        loader = run.loader(train, batch_size=128, ids=train.ids, only_new=bool(args.memory))
        run.scoring(lambda batch: network(batch[0]).argmax(1) == batch[1])
        for file in files:
            if file.stem.startswith("test"):
                test = Images([file]).label(classes)
                if (test.labels >= 0).all():  # a class that comes later is scored later
                    run.holdout(file.stem, test, ids=test.ids)
        run.plan(args.budget, retrain_epochs=RETRAIN_EPOCHS)
        for _epoch in run.epochs():
            network.set_train()
            for images, labels in loader:
                loss, gradients = loss_and_gradients(images, labels)
                optimizer(gradients)
                run.step(loss=loss)


if __name__ == "__main__":
    main()
