"""Ratings: MovieLens-100k by time, with users and films that were never seen before.

The first 80 % of the ratings are the base, the next 10 % the window that arrives, the 10 % after it
the test: what will be rated next. Of the base, every twentieth rating is held out for good. Users
and films have rows in the order in which they first appear in what is learned; whoever does not is
row 0, whose bias and vector stay zero.
"""

from __future__ import annotations

import numpy as np
import torch
from examples.data import movielens
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from benchmarks.learning.scenarios import Items, Scenario, Size, Stage, rmse

WIDTH = 32
BASE, WINDOW = 80_000, 90_000
HELD_OUT_EVERY = 20
UNKNOWN = 0


def scenario(name: str) -> Scenario:
    """This file's only one."""
    columns = movielens.load()
    place = np.arange(len(columns["time"]))
    held_out = (place < BASE) & (place % HELD_OUT_EVERY == 0)
    base = (place < BASE) & ~held_out
    window = (place >= BASE) & (place < WINDOW)
    users, films = (_rows(columns[key], base, window) for key in ("user", "film"))
    inputs = torch.from_numpy(np.stack([users, films], axis=1))
    ratings = torch.from_numpy(columns["rating"].astype(np.float32))
    everything = Items(inputs, ratings)
    parts = {
        key: everything.take(torch.from_numpy(mask))
        for key, mask in (
            ("base", base),
            ("old", held_out),
            ("window", window),
            ("next", place >= WINDOW),
        )
    }
    return Scenario(
        name=name,
        title="MovieLens-100k, the next 10 % of the ratings",
        stages=(
            Stage(parts["base"], parts["old"], _size(parts["base"])),
            Stage(parts["window"], parts["next"], _size(parts["base"] + parts["window"])),
        ),
        make_model=lambda size: Factors(size["users"], size["films"]),
        loss=mse_loss,
        score=rmse,
        unit="RMSE",
        batch_size=512,
        peak_rate=2e-2,
        weight_decay=2e-4,  # rate and decay: of those tried, the best for the full retrain
        retrain_steps=2_016,  # 12 epochs
        test=parts["next"],
    )


class Factors(nn.Module):
    """Biased matrix factorization (Koren, Bell and Volinsky 2009, equation 4)."""

    def __init__(self, users: int, films: int) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(3.5))
        self.users = nn.Embedding(users, WIDTH, padding_idx=UNKNOWN)
        self.films = nn.Embedding(films, WIDTH, padding_idx=UNKNOWN)
        self.user_bias = nn.Embedding(users, 1, padding_idx=UNKNOWN)
        self.film_bias = nn.Embedding(films, 1, padding_idx=UNKNOWN)
        with torch.no_grad():
            for vectors in (self.users, self.films):
                vectors.weight.mul_(0.05)
                vectors.weight[UNKNOWN] = 0
            for bias in (self.user_bias, self.film_bias):
                bias.weight.zero_()

    def forward(self, pairs: Tensor) -> Tensor:
        """`pairs`: int64 [N, 2], rows of user and film. Rows beyond the tables count as unknown."""
        user, film = pairs.T
        user = torch.where(user < self.users.num_embeddings, user, UNKNOWN)
        film = torch.where(film < self.films.num_embeddings, film, UNKNOWN)
        bias = self.user_bias(user)[:, 0] + self.film_bias(film)[:, 0]
        outputs: Tensor = self.mean + bias + (self.users(user) * self.films(film)).sum(1)
        return outputs


def _rows(ids: np.ndarray, base: np.ndarray, window: np.ndarray) -> np.ndarray:
    """For each id its row: from 1, by first appearance in the base, then in the window."""
    known: dict[int, int] = {}
    for value in [*ids[base].tolist(), *ids[window].tolist()]:
        known.setdefault(value, len(known) + 1)
    return np.array([known.get(value, UNKNOWN) for value in ids.tolist()], np.int64)


def _size(items: Items) -> Size:
    users, films = (int(column.max()) + 1 for column in items.inputs.T)
    return {"users": users, "films": films}
