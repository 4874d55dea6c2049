"""The classic MindSpore script: loads the newest `net-EPOCH_STEP.ckpt`, trains, saves as it goes.

It knows nothing of Onward. `onward run` moves its files, and runs it again where it stopped:

    onward run examples/classic/mindspore_classic.py --data ./data --output s3://bucket/out

DATA holds Fashion-MNIST (or MNIST) as IDX files, plain or gzipped, or `.npz` files with
`images` (N, 28, 28) and `labels` (N).
"""

import argparse
import gzip
import re
from pathlib import Path

import mindspore
import mindspore.dataset as ds
import numpy as np
from mindspore import nn
from mindspore.train import CheckpointConfig, LossMonitor, Model, ModelCheckpoint


class ResidualBlock(nn.Cell):
    def __init__(self, channels, out_channels, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out_channels, 3, stride)
        self.norm1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.shortcut = nn.SequentialCell(
            nn.Conv2d(channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels)
        )

    def construct(self, x):
        out = self.relu(self.norm1(self.conv1(x)))
        out = self.norm2(self.conv2(out))
        return self.relu(out + self.shortcut(x))


class ResNet(nn.Cell):
    def __init__(self, classes=10):
        super().__init__()
        self.stem = nn.SequentialCell(nn.Conv2d(1, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.blocks = nn.SequentialCell(ResidualBlock(8, 8, 2), ResidualBlock(8, 16, 2))
        self.head = nn.Dense(16, classes)

    def construct(self, x):
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def read_idx(path):
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def read_data(folder, batch_size):
    """The training images as batches: (N, 1, 28, 28) floats in [0, 1], and their labels."""
    images, labels = [], []
    for path in sorted(folder.rglob("*.npz")):
        if not path.name.startswith("test"):
            with np.load(path) as arrays:
                images.append(arrays["images"])
                labels.append(arrays["labels"])
    for path in sorted(folder.rglob("train-images-idx3-ubyte*")):
        images.append(read_idx(path))
        labels.append(read_idx(path.with_name(path.name.replace("images-idx3", "labels-idx1"))))
    if not images:
        raise SystemExit(f"there are neither .npz nor IDX files in {folder}")
    x = np.concatenate(images).astype(np.float32).reshape(-1, 1, 28, 28) / 255
    y = np.concatenate(labels).astype(np.int32)
    dataset = ds.NumpySlicesDataset((x, y), ["image", "label"], shuffle=True)
    return dataset.batch(batch_size, drop_remainder=len(x) > batch_size)


def newest_checkpoint(folder, prefix):
    """The last file of the last start: as numbers, because as text epoch 9 comes after 12.

    `ModelCheckpoint` begins with `net`; in a folder that has such files, with `net_1`, `net_2`, …
    """
    found = {}
    for path in folder.glob("*.ckpt"):
        if match := re.fullmatch(rf"{re.escape(prefix)}(?:_(\d+))?-(\d+)_(\d+)", path.stem):
            found[tuple(int(number or 0) for number in match.groups())] = path
    return found[max(found)] if found else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()

    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    mindspore.set_seed(1)
    train = read_data(args.data_url, args.batch_size)
    steps = train.get_dataset_size()
    net = ResNet()
    optimizer = nn.Momentum(net.trainable_params(), args.lr, momentum=0.9)

    newest = newest_checkpoint(args.train_url, prefix="net")
    if newest is not None:
        parameters = mindspore.load_checkpoint(str(newest))
        mindspore.load_param_into_net(net, parameters)
        mindspore.load_param_into_net(optimizer, parameters)
        print(f"loaded {newest.name}")

    config = CheckpointConfig(save_checkpoint_steps=steps, keep_checkpoint_max=5)
    saving = ModelCheckpoint(prefix="net", directory=str(args.train_url), config=config)
    loss = nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")
    model = Model(net, loss_fn=loss, optimizer=optimizer, metrics={"accuracy"})
    model.train(args.epochs, train, callbacks=[saving, LossMonitor(steps)])
    print(f"accuracy on the training data: {model.eval(train)['accuracy']:.4f}")


if __name__ == "__main__":
    main()
