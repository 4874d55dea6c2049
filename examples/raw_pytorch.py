"""An ordinary PyTorch loop with Onward in it: the same command trains, resumes, and goes on.

onward run examples/raw_pytorch.py --data DATA --output OUT -- --epochs 2
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from torch import nn

import onward


class Images(torch.utils.data.Dataset):
    """Images of all `part-*.npz` files in a folder, moved by up to two pixels at random."""

    def __init__(self, files: list[Path], *, augment: bool) -> None:
        parts = [np.load(file) for file in files]
        images = np.concatenate([part["images"] for part in parts])
        self.images = torch.from_numpy(images).unsqueeze(1).float().div_(255)
        self.labels = torch.from_numpy(np.concatenate([p["labels"] for p in parts])).long()
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        images, labels = self.images[indices], self.labels[indices]
        if self.augment:
            images = images.roll(tuple(torch.randint(-2, 3, (2,)).tolist()), (2, 3))
            flipped = torch.rand(len(images)) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(3), images)
        return list(zip(images, labels, strict=True))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32 * 7 * 7, 128), nn.ReLU(), nn.Dropout(0.3), nn.Linear(128, 10),
    )  # fmt: skip


def accuracy(model: nn.Module, test: Images) -> dict[str, float]:
    right = 0
    for start in range(0, len(test), 1000):
        predicted = model(test.images[start : start + 1000]).argmax(1)
        right += int((predicted == test.labels[start : start + 1000]).sum())
    return {"accuracy": right / len(test)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--workers", type=int, default=0)
    args = parser.parse_args()

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(1)
    train = Images(sorted(args.data_url.glob("part-*.npz")), augment=True)
    test = Images([args.data_url / "test.npz"], augment=False)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / 50))
    criterion = nn.CrossEntropyLoss()

    with onward.open(
        args.train_url, model=model, optimizer=optimizer, scheduler=scheduler,
        save_every_steps=100, config=vars(args),
    ) as run:  # fmt: skip
        loader = run.loader(train, batch_size=64, num_workers=args.workers)
        for _epoch in run.epochs(args.epochs):
            model.train()
            for images, labels in loader:
                loss = criterion(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                run.step(loss=loss)
            run.evaluate(lambda: accuracy(model, test))


if __name__ == "__main__":
    main()
