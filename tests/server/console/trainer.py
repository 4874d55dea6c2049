"""The script of the newcomer's job: classifies clothes, and goes on when there are more of them."""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import onward

SLOW_S, WAITS_AT = 0.06, 150
"""While the file $SLOW_UNTIL is not there: a pause at each step, and an end to them at this one."""


class Clothes(torch.utils.data.Dataset):
    """The images of some files; each is known by its file and its place there."""

    def __init__(self, files: list[Path]) -> None:
        parts = [np.load(file) for file in files]
        self.images = torch.from_numpy(np.concatenate([part["images"] for part in parts]))
        self.labels = torch.from_numpy(np.concatenate([part["labels"] for part in parts])).long()
        counts = [(file.stem, len(part["labels"])) for file, part in zip(files, parts, strict=True)]
        self.ids = [f"{name} {place}" for name, count in counts for place in range(count)]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.images[index].flatten().float() / 255, self.labels[index]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--epochs", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(1)
    train = Clothes(sorted(args.data_url.glob("part-*.npz")))
    model = nn.Sequential(nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    with onward.open(
        args.train_url, model=model, optimizer=optimizer, save_every_steps=40, margin=0.05,
        strategy="uniform", config=vars(args),
    ) as run:  # fmt: skip
        loader = run.loader(train, batch_size=32, ids=train.ids)
        run.scoring(lambda batch: model(batch[0]).argmax(1) == batch[1])
        for file in sorted(args.data_url.glob("test-*.npz")):
            held = Clothes([file])
            run.holdout(file.stem, held, ids=held.ids)
        run.plan("0.4 x retrain", retrain_epochs=args.epochs)
        step = 0
        for epoch in run.epochs():
            for images, labels in loader:
                loss = cross_entropy(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)
                step += 1
                if step % 10 == 0:
                    print(f"epoch {epoch} step {step} loss {loss.item():.3f}", flush=True)
                wait(step)


def wait(step: int) -> None:
    """Slow enough to be watched, wherever it runs; never past half of the work on its own."""
    until = os.environ.get("SLOW_UNTIL")
    if not until or Path(until).exists():
        return
    time.sleep(SLOW_S)
    while step >= WAITS_AT and not Path(until).exists():
        time.sleep(0.05)


if __name__ == "__main__":
    main()
