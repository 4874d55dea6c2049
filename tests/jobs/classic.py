"""The classic scripts of the field under `onward run`, on images that can be learned at once."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from json import loads
from pathlib import Path
from typing import Any

import numpy as np

from onward.stores import Store, open_store
from tests.jobs.bench import Bench

EXAMPLES = Path(__file__).parents[2] / "examples" / "classic"
Images = np.ndarray[Any, np.dtype[np.uint8]]


def bright_rows(items: int, *, seed: int = 0) -> tuple[Images, Images]:
    """Images whose bright rows say which of two labels they have."""
    labels = (np.arange(items) % 2).astype(np.uint8)
    images = np.random.default_rng(seed).integers(0, 60, (items, 28, 28), dtype=np.uint8)
    for label in (0, 1):
        images[labels == label, 14 * label : 14 * label + 14] += 150
    return images, labels


def idx(array: Images) -> bytes:
    head = bytes([0, 0, 8, array.ndim])
    return head + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()


def write_idx(folder: Path, items: int) -> None:
    """As MNIST is published: IDX files, gzipped."""
    images, labels = bright_rows(items)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))


def write_npz(folder: Path, items: int, *, name: str = "part-000.npz") -> None:
    images, labels = bright_rows(items)
    np.savez(folder / name, images=images, labels=labels)


class Classic:
    """A classic script that is run again and again with the same output on a real server."""

    def __init__(self, name: str, bench: Bench, s3_url: Callable[[str], str]) -> None:
        self.script = EXAMPLES / name
        self.bench = bench
        self.output = s3_url("out")

    @property
    def store(self) -> Store:
        return open_store(self.output)

    def run(
        self, *arguments: str, predownload: str = "latest", json: bool = False
    ) -> tuple[str, str]:
        """What the script said, and what Onward said; with `json` the document, and the rest."""
        return self.bench.command(
            str(self.script), "--data", "data", "--output", self.output,
            "--predownload", predownload, *(["--json"] if json else []), "--", *arguments,
            timeout_s=240,
        )  # fmt: skip

    def plan(self, *, predownload: str = "latest") -> dict[str, Any]:
        """`--dry-run --json`."""
        out, _ = self.bench.command(
            str(self.script), "--data", "data", "--output", self.output,
            "--predownload", predownload, "--dry-run", "--json",
        )  # fmt: skip
        found: dict[str, Any] = loads(out)
        return found

    def forget_this_machine(self) -> None:
        """As if the next start were on another one."""
        shutil.rmtree(self.bench.folder / "home")

    def at_store(self) -> set[str]:
        return {e.key for e in self.store.list("") if not e.key.startswith("onward/")}

    def here(self) -> set[str]:
        """What the script finds in its `--train_url`, on this machine."""
        (folder,) = (self.bench.folder / "home" / "outputs").glob("*/output")
        return {path.name for path in folder.iterdir() if path.name != "onward"}


def code_without_docstring(script: Path) -> str:
    return script.read_text().split('"""', 2)[2].lower()
