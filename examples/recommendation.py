"""Ratings, by time (MovieLens-100k): new users and films arrive, and their tables grow.

python -m examples.data.movielens DATA --share 0.8      # later --share 0.9
onward run examples/recommendation.py --data DATA --output OUT

Of each window of ratings every tenth is frozen as its holdout; what is compared is the squared
error of each rating, and ratings of one user are not counted as if they were independent.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

import onward
from onward.data import Table
from onward.learning.names import Names

WIDTH = 32
RETRAIN_EPOCHS = 12
UNKNOWN = "?"
"""Stands for whoever was not met in learning: row 0 of every table, which stays zero."""


class Ratings(torch.utils.data.Dataset):
    """Ratings by numbers. Each is known by who rated what."""

    def __init__(self, rows: list[dict[str, str]], users: Names, films: Names) -> None:
        self.ids = [f"{row['user']} {row['film']}" for row in rows]
        self.pairs = torch.stack([rows_of(users, rows, "user"), rows_of(films, rows, "film")], 1)
        self.ratings = torch.tensor([float(row["rating"]) for row in rows])

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.pairs[index], self.ratings[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once."""
        return self.pairs[indices], self.ratings[indices]


def rows_of(names: Names, rows: list[dict[str, str]], column: str) -> Tensor:
    known = (row[column] if row[column] in names else UNKNOWN for row in rows)
    return torch.from_numpy(names.rows(list(known)))


class Factors(nn.Module):
    """Biased matrix factorization (Koren, Bell and Volinsky 2009, equation 4)."""

    def __init__(self, users: int, films: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(3.5))
        self.users, self.user_bias = table(users, WIDTH), table(users, 1)
        self.films, self.film_bias = table(films, WIDTH), table(films, 1)

    def forward(self, pairs: Tensor) -> Tensor:
        user, film = pairs.T
        bias = self.user_bias(user)[:, 0] + self.film_bias(film)[:, 0]
        return self.mean + bias + (self.users(user) * self.films(film)).sum(1)


def table(rows: int, width: int) -> nn.Embedding:
    made = nn.Embedding(rows, width, padding_idx=0)
    with torch.no_grad():
        made.weight.mul_(0.05 if width > 1 else 0.0)
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--window", type=int, default=10_000, help="ratings in a window")
    parser.add_argument("--budget", default="0.1 x retrain")
    args = parser.parse_args()

    ratings = Table(args.data_url, key=["user", "film"])
    whole = len(ratings) // args.window * args.window  # the rest waits until its window is full
    rows = [ratings[index] for index in range(whole)]
    learned = [row for place, row in enumerate(rows) if place % 10]
    users = onward.names(args.train_url, "users", [UNKNOWN, *(row["user"] for row in learned)])
    films = onward.names(args.train_url, "films", [UNKNOWN, *(row["film"] for row in learned)])
    train = Ratings(learned, users, films)

    torch.manual_seed(1)
    model = Factors(len(users), len(films))
    optimizer = torch.optim.Adam(model.parameters(), 2e-2, weight_decay=2e-4, fused=True)
    with onward.open(
        args.train_url, model=model, optimizer=optimizer, users=users, films=films,
        grow={"model.users": users, "model.user_bias": users,
              "model.films": films, "model.film_bias": films},
        keep_last=2, config=vars(args),
    ) as run:  # fmt: skip
        loader = run.loader(train, batch_size=512, ids=train.ids)
        run.scoring(lambda batch: (model(batch[0]) - batch[1]) ** 2,
                    metric="squared error", higher_is_better=False)  # fmt: skip
        for start in range(0, whole, args.window):
            held = rows[start : start + args.window : 10]
            test = Ratings(held, users, films)
            clusters = np.array([int(row["user"]) for row in held])
            run.holdout(f"window {start // args.window}", test, ids=test.ids, clusters=clusters)
        run.plan(args.budget, retrain_epochs=RETRAIN_EPOCHS, moments="reset")
        for _epoch in run.epochs():
            for pairs, targets in loader:
                loss = mse_loss(model(pairs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)


if __name__ == "__main__":
    main()
