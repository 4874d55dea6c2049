"""The classic script: loads the newest `ckpt_N.pth`, trains, saves one after every epoch.

It knows nothing of Onward. `onward run` moves its files, and runs it again where it stopped:

    onward run examples/classic/torch_classic.py --data ./data --output s3://bucket/out

DATA holds Fashion-MNIST (or MNIST) as IDX files, plain or gzipped, or `.npz` files with
`images` (N, 28, 28) and `labels` (N).
"""

import argparse
import gzip
import re
from pathlib import Path

import numpy as np
import torch
from torch import nn


def read_idx(path):
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(data[3])]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def read_data(folder):
    """The training images as (N, 1, 28, 28) floats in [0, 1], and labels as (N,) integers."""
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
    x = torch.from_numpy(np.concatenate(images).astype(np.float32) / 255)
    return x.reshape(-1, 1, 28, 28), torch.from_numpy(np.concatenate(labels).astype(np.int64))


def newest_checkpoint(folder):
    """The checkpoint with the largest epoch: as a number, because as text 9 comes after 10."""
    found = {}
    for path in folder.iterdir():
        if match := re.fullmatch(r"ckpt_(\d+)\.pth", path.name):
            found[int(match[1])] = path
    return found[max(found)] if found else None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3)
    args = parser.parse_args()

    torch.manual_seed(0)
    images, labels = read_data(args.data_url)
    net = nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU(),
        nn.Flatten(), nn.Linear(16 * 7 * 7, 10),
    )  # fmt: skip
    optimizer = torch.optim.Adam(net.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()

    first = 1
    args.train_url.mkdir(parents=True, exist_ok=True)
    newest = newest_checkpoint(args.train_url)
    if newest is not None:
        checkpoint = torch.load(newest, weights_only=True)
        net.load_state_dict(checkpoint["net"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        first = checkpoint["epoch"] + 1
        print(f"loaded {newest.name}")

    for epoch in range(first, first + args.epochs):
        net.train()
        total, right = 0.0, 0
        for batch in torch.randperm(len(images)).split(args.batch_size):
            scores = net(images[batch])
            loss = criterion(scores, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
            right += (scores.argmax(1) == labels[batch]).sum().item()
        print(f"epoch {epoch}: loss {total / len(images):.4f}, accuracy {right / len(images):.4f}")
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
        torch.save(state, f"{args.train_url}/ckpt_{epoch}.pth")


if __name__ == "__main__":
    main()
