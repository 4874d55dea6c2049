"""MovieLens-100k (Harper and Konstan 2015): 100,000 ratings of films, with their times.

python -m examples.data.movielens DATA --share 0.8      # the first 80 % of the ratings
python -m examples.data.movielens DATA --share 0.9      # the next 10 % have arrived

It comes out of the wheel `recbole` (MIT licence). The ratings are under GroupLens' terms: research
use with a citation, no commercial use, no redistribution without permission. So it is fetched.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from .fetching import from_wheel

FILE = "ml-100k.inter"
HEADER = ["user_id:token", "item_id:token", "rating:float", "timestamp:float"]
COLUMNS = ["user", "film", "rating", "time"]


def load() -> dict[str, np.ndarray]:
    """Four columns in order of time, int64 [100000]: user, film, rating (1 … 5), time (UNIX s).

    Ratings of the same second are in order of user, then film: the order is always the same.
    """
    paths = {FILE: f"recbole/dataset_example/ml-100k/{FILE}"}
    folder = from_wheel("recbole", paths, folder="movielens")
    with (folder / FILE).open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file, delimiter="\t")
        header = next(rows, [])
        if header != HEADER:
            raise ValueError(f"{folder / FILE} begins with {header}: delete it, try again")
        table = np.array([[int(float(value)) for value in row] for row in rows], np.int64)
    user, film, rating, time = table.T
    order = np.lexsort((film, user, time))
    return dict(zip(COLUMNS, (user[order], film[order], rating[order], time[order]), strict=True))


def write_ratings(folder: Path, *, share: float, part_items: int = 10_000) -> None:
    """Makes `folder` hold the first `share` of the ratings: CSV, `part_items` in a file.

    A file that is there already stays as it is; the last one grows until it is full.
    """
    columns = load()
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.stack(list(columns.values()), axis=1)[: round(len(columns["time"]) * share)]
    for number, first in enumerate(range(0, len(rows), part_items)):
        partial = folder / f".ratings-{number:02d}.csv"
        with partial.open("w", newline="") as file:
            table = csv.writer(file)
            table.writerow(COLUMNS)
            table.writerows(rows[first : first + part_items].tolist())
        partial.replace(folder / f"ratings-{number:02d}.csv")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch MovieLens-100k, write the first ratings.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", type=float, default=0.8)
    arguments = parser.parse_args()
    write_ratings(arguments.folder, share=arguments.share)
