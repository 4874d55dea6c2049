"""Posts, by topic (20 Newsgroups): new topics arrive, and the head grows.

python -m examples.data.newsgroups DATA --topics 16     # later --topics 20
onward run examples/text.py --data DATA --output OUT

A fifth of what each increment brings is frozen as its holdout. Adam's moments are kept: they know
which words matter.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import onward
from onward.data import DataSnapshot, Table

ROWS, WIDTH, WORDS = 1 << 16, 64, 300
RETRAIN_EPOCHS = 8


class Posts(torch.utils.data.Dataset):
    """The rows of a table as numbers: the first 300 words of each post, and its topic."""

    def __init__(self, table: Table) -> None:
        self.table = table
        posts = [table[index] for index in range(len(table))]
        self.names = [post["topic"] for post in posts]
        self.words = torch.zeros(len(posts), WORDS, dtype=torch.int32)
        for row, post in zip(self.words, posts, strict=True):
            found = [hashed(word) for word in post["text"].split(maxsplit=WORDS)[:WORDS]]
            row[: len(found)] = torch.tensor(found, dtype=torch.int32)

    def snapshot(self) -> DataSnapshot:
        """What the posts are known by: their key in the table."""
        return self.table.snapshot()

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.words[index], self.labels[index]

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """A whole batch at once."""
        return self.words[indices], self.labels[indices]


@cache
def hashed(word: str) -> int:
    """The row of a word, from 1, the same on every machine; 0 stands for no word."""
    return 1 + int.from_bytes(blake3(word.encode()).digest(length=8), "little") % (ROWS - 1)


class Network(nn.Module):
    """The mean of the words' embeddings, and a head with a row for each topic."""

    def __init__(self, topics: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(ROWS, WIDTH, mode="mean", padding_idx=0)
        with torch.no_grad():  # as they are, their noise drowns the mean of a few hundred words
            self.words.weight.mul_(0.1)
        self.head = nn.Linear(WIDTH, topics)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.words(words))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data_url", type=Path, required=True)
    parser.add_argument("--train_url", required=True)
    parser.add_argument("--budget", default="0.2 x retrain")
    args = parser.parse_args()

    posts = Posts(Table(args.data_url, key="id"))
    topics = onward.names(args.train_url, "topics", posts.names)
    # A topic that came during an unfinished increment has no row yet: it is learned in the next.
    posts.labels = torch.tensor([topics.row(t) if t in topics else -1 for t in posts.names])

    torch.manual_seed(1)
    model = Network(len(topics))
    optimizer = torch.optim.Adam(model.parameters(), 1e-2, fused=True)
    with onward.open(
        args.train_url, model=model, optimizer=optimizer, topics=topics,
        grow={"model.head": topics}, keep_last=2, config=vars(args),
    ) as run:  # fmt: skip
        run.scoring(lambda batch: model(batch[0]).argmax(1) == batch[1])
        loader = run.loader(posts, batch_size=64, holdout=0.2)
        run.plan(args.budget, retrain_epochs=RETRAIN_EPOCHS, moments="kept")
        for _epoch in run.epochs():
            for words, labels in loader:
                loss = cross_entropy(model(words), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.step(loss=loss)


if __name__ == "__main__":
    main()
