"""Fashion-MNIST (Xiao et al. 2017, MIT licence), fetched when needed and cut into parts.

python -m examples.data.fashion_mnist DATA --parts 5     # parts 0 … 4, 6,000 images each
python -m examples.data.fashion_mnist DATA --parts 6     # one more has arrived
"""

from __future__ import annotations

import argparse
import gzip
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import numpy as np

from .fetching import CACHE as ALL

FILES = {
    "train-images": "train-images-idx3-ubyte.gz",
    "train-labels": "train-labels-idx1-ubyte.gz",
    "test-images": "t10k-images-idx3-ubyte.gz",
    "test-labels": "t10k-labels-idx1-ubyte.gz",
}
INSTALLED = Path("/usr/share/datasets/fashion-mnist")
DEBIAN_PACKAGE = "dataset-fashion-mnist"
HOME = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
CACHE = ALL / "fashion-mnist"
PART_ITEMS = 6_000


def load() -> dict[str, np.ndarray]:
    """The four arrays: images uint8 [N, 28, 28], labels uint8 [N]."""
    folder = find_files()
    return {name: read_idx(folder / file) for name, file in FILES.items()}


def find_files() -> Path:
    """The folder with the four files: installed, cached, or fetched now."""
    for folder in (INSTALLED, CACHE):
        if all((folder / file).is_file() for file in FILES.values()):
            return folder
    reasons = []
    for fetch in (fetch_from_debian, fetch_from_home):
        try:
            fetch()
            return CACHE
        except (OSError, subprocess.SubprocessError) as error:
            reasons.append(f"  {fetch.__doc__}: {error}")
    sys.exit(
        "error: Fashion-MNIST could not be fetched:\n" + "\n".join(reasons) + "\n  what to do: "
        f"apt-get install {DEBIAN_PACKAGE}, or put the four .gz files into {CACHE}"
    )


def fetch_from_debian() -> None:
    """the Debian package dataset-fashion-mnist"""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise OSError("this is not a Debian machine")
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["apt-get", "download", "-q", DEBIAN_PACKAGE]
        found = subprocess.run(fetch, cwd=folder, capture_output=True, text=True)
        if found.returncode:  # a new machine has no package lists yet
            update = subprocess.run(["apt-get", "update", "-q"], capture_output=True, text=True)
            found = subprocess.run(fetch, cwd=folder, capture_output=True, text=True)
            if found.returncode:
                raise OSError((update.stderr + found.stderr).strip().splitlines()[-1])
        package = next(Path(folder).glob("*.deb"))
        subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        for file in FILES.values():
            shutil.copy(Path(folder) / INSTALLED.relative_to("/") / file, CACHE / file)


def fetch_from_home() -> None:
    """its public home"""
    CACHE.mkdir(parents=True, exist_ok=True)
    for file in FILES.values():
        partial = CACHE / (file + ".partial")
        with urllib.request.urlopen(HOME + file, timeout=30) as answer, partial.open("wb") as out:
            shutil.copyfileobj(answer, out)
        partial.replace(CACHE / file)


def read_idx(path: Path) -> np.ndarray:
    """An IDX file of unsigned bytes (LeCun's format: magic, extents, data)."""
    data = gzip.decompress(path.read_bytes())
    extents = np.frombuffer(data, ">u4", count=data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(extents)


def write_parts(folder: Path, parts: int) -> None:
    """Makes `folder` hold the first `parts` parts of the training data, and the test data."""
    arrays = load()
    folder.mkdir(parents=True, exist_ok=True)
    pieces = {"test": (arrays["test-images"], arrays["test-labels"])}
    for part in range(parts):
        chosen = slice(part * PART_ITEMS, (part + 1) * PART_ITEMS)
        pieces[f"part-{part:03d}"] = arrays["train-images"][chosen], arrays["train-labels"][chosen]
    for name, (images, labels) in pieces.items():
        write_npz(folder / f"{name}.npz", images=images, labels=labels)


def write_npz(path: Path, **arrays: np.ndarray) -> None:
    """Writes `arrays` into one file, unless it is there; it appears whole or not at all."""
    if not path.exists():
        partial = path.with_name("." + path.name)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        partial.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fetch Fashion-MNIST and write its first parts.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parts", type=int, default=5, choices=range(1, 11))
    arguments = parser.parse_args()
    write_parts(arguments.folder, arguments.parts)
