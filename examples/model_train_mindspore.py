"""MindSpore's `Model.train` with Onward's callback: the same command trains, resumes, goes on.

onward run examples/model_train_mindspore.py --data DATA --output OUT -- --epochs 2
"""

from __future__ import annotations

import argparse
from pathlib import Path

import mindspore as ms
from mindspore import nn
from mindspore.train import LossMonitor, Model

from onward.trainers.mindspore import OnwardCallback
from raw_mindspore import Images, accuracy, network


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    args = parser.parse_args()

    ms.set_seed(1)
    net = network()
    optimizer = nn.Momentum(net.trainable_params(), learning_rate=0.02, momentum=0.9)
    model = Model(net, nn.CrossEntropyLoss(), optimizer)

    keep = OnwardCallback(args.train_url, model, save_every_steps=100)
    train = Images(sorted(args.data_url.glob("part-*.npz")), augment=True)
    model.train(
        args.epochs,
        keep.loader(train, batch_size=64),
        callbacks=[LossMonitor(100), keep],
        initial_epoch=keep.initial_epoch,
    )
    print(accuracy(net.set_train(False), Images([args.data_url / "test.npz"], augment=False)))


if __name__ == "__main__":
    main()
