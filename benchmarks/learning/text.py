"""Posts: 16 topics of 20 Newsgroups, then four new ones.

A post is its first 300 words, hashed into 2^16 rows (BLAKE3, so that it is the same everywhere);
the model is the mean of their embeddings (Joulin et al. 2016, without n-grams) and a linear head.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from blake3 import blake3
from examples.data import newsgroups
from examples.data.newsgroups import Post
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from benchmarks.learning.scenarios import Items, Scenario, Stage, accuracy

ROWS, WIDTH, WORDS = 1 << 16, 64, 300
OLD_TOPICS = 16
PADDING = 0


def scenario(name: str) -> Scenario:
    """This file's only one."""
    parts = newsgroups.load()
    topics = newsgroups.topics(parts["train"])
    train, test = (_items(parts[part], topics) for part in ("train", "test"))
    stages = tuple(
        Stage(train.take(chosen), test.take(held_out), {"topics": size})
        for chosen, held_out, size in (
            (train.targets < OLD_TOPICS, test.targets < OLD_TOPICS, OLD_TOPICS),
            (train.targets >= OLD_TOPICS, test.targets >= OLD_TOPICS, len(topics)),
        )
    )
    return Scenario(
        name=name,
        title="20 Newsgroups, four new topics of twenty",
        stages=stages,
        make_model=lambda size: Words(size["topics"]),
        loss=cross_entropy,
        score=accuracy,
        unit="accuracy %",
        batch_size=64,
        peak_rate=1e-2,  # of those tried, the best for the full retrain
        retrain_steps=1_411,  # 8 epochs
    )


class Words(nn.Module):
    """The mean of the words' embeddings, then one linear layer."""

    def __init__(self, topics: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(ROWS, WIDTH, mode="mean", padding_idx=PADDING)
        with torch.no_grad():  # as they are, their noise drowns the mean of a few hundred words
            self.words.weight.mul_(0.1)
        self.head = nn.Linear(WIDTH, topics)

    def forward(self, words: Tensor) -> Tensor:
        """`words`: int32 [N, 300]."""
        outputs: Tensor = self.head(self.words(words))
        return outputs


def _items(posts: list[Post], topics: list[str]) -> Items:
    words = np.full((len(posts), WORDS), PADDING, np.int32)
    for row, post in zip(words, posts, strict=True):
        found = [_row(word) for word in post.text.split(maxsplit=WORDS)[:WORDS]]
        row[: len(found)] = found
    number = {topic: place for place, topic in enumerate(topics)}
    targets = torch.tensor([number[post.topic] for post in posts])
    return Items(torch.from_numpy(words), targets)


@cache
def _row(word: str) -> int:
    digest = blake3(word.encode()).digest(length=8)
    return 1 + int.from_bytes(digest, "little") % (ROWS - 1)
