"""Pushing and predownloading checkpoints beside obstore's own bare transfer of the same bytes.

SeaweedFS on loopback is the store. It shares the cores with both, so that what Onward does beside
the transfer (hashing every byte, reading back, the log) shows more than it would on a network.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import obstore
from tests.servers import S3Server, seaweedfs_in

from benchmarks.measuring import Result
from onward.frameworks.base import TensorLeaf
from onward.repository import Facts
from onward.repository.mirror import Mirror
from onward.repository.packs import pack_key
from onward.stores import LocalStore

CHECKPOINTS, CHECKPOINT_BYTES, REPETITIONS = 2, 256 << 20, 9
PART_BYTES = 8 << 20
BARE_AT_ONCE = 4
"""Parts and ranges of the bare transfers: more of them, or larger ones, were slower here."""


def measure() -> Iterator[Result]:
    """Throughput of Onward over the bare one, each repetition between two bare ones.

    Push: from files to objects that the store has acknowledged. Predownload: from objects to
    files that are durable.
    """
    with tempfile.TemporaryDirectory() as folder, seaweedfs_in(_made(Path(folder, "s3"))) as server:
        for name, ratios, mb_per_s in _measured(Path(folder), server):
            text = f"{name} / bare obstore, {CHECKPOINTS} × {CHECKPOINT_BYTES >> 20} MiB"
            yield Result(text, "×", 0.9, tuple(ratios), at_least=True)
            yield Result(f"{name} on loopback", "MB/s", 0, tuple(mb_per_s), at_least=True)


def _measured(folder: Path, server: S3Server) -> Iterator[tuple[str, list[float], list[float]]]:
    total = CHECKPOINTS * CHECKPOINT_BYTES
    bare = server.store("bare")
    pushes: list[float] = []
    ratios: list[float] = []
    for number in range(REPETITIONS):
        here = LocalStore(folder / f"output-{number}")
        mirror = _with_unpushed(here, server, f"push-{number}")
        packs = [here.path(pack_key(pack)) for pack in _packs(mirror)]
        before = seconds(lambda: _bare_push(bare, packs))  # noqa: B023
        pushes.append(seconds(mirror.push))
        after = seconds(lambda: _bare_push(bare, packs))  # noqa: B023
        ratios.append((before + after) / 2 / pushes[-1])
        shutil.rmtree(here.folder)
    yield "push", ratios, [total / 1e6 / each for each in pushes]

    keys = [path.name for path in packs]
    pulls: list[float] = []
    ratios = []
    for number in range(REPETITIONS):
        there = folder / f"copy-{number}"
        before = seconds(lambda: _bare_pull(bare, keys, there / "before"))  # noqa: B023
        copy = Mirror(LocalStore(there / "output"), mirror.remote.store)
        copy.pull_log()
        manifests = copy.manifests(copy.remote.history.live())
        pulls.append(seconds(lambda: copy.pull(manifests)))  # noqa: B023
        after = seconds(lambda: _bare_pull(bare, keys, there / "after"))  # noqa: B023
        ratios.append((before + after) / 2 / pulls[-1])
        shutil.rmtree(there)
    yield "predownload", ratios, [total / 1e6 / each for each in pulls]


def _with_unpushed(local: LocalStore, server: S3Server, place: str) -> Mirror:
    """A working copy with checkpoints of random bytes that are not pushed yet."""
    mirror = Mirror(local, server.store(place))
    mirror.pull_log()
    writer = mirror.claim("benchmark")
    parent = None
    for step in range(CHECKPOINTS):
        data = np.random.default_rng(step).integers(0, 256, CHECKPOINT_BYTES, dtype=np.uint8)
        facts = Facts(
            step=step, epoch=0, increment=1, parent=parent, finished=False, reason="benchmark",
            verb="fresh", framework="numpy", framework_version="0",
        )  # fmt: skip
        leaf = TensorLeaf("U8", data.shape, "numpy", data)
        parent = writer.commit({"weights": leaf}, facts).checkpoint
    return mirror


def _packs(mirror: Mirror) -> list[str]:
    return [pack for commit in mirror.unpushed() for pack in mirror.local.manifest(commit).packs]


def _bare_push(store: Any, paths: list[Path]) -> None:
    for path in paths:
        obstore.put(
            store._client, path.name, path,
            use_multipart=True, chunk_size=PART_BYTES, max_concurrency=BARE_AT_ONCE,
        )  # fmt: skip


def _bare_pull(store: Any, keys: list[str], folder: Path) -> None:
    _made(folder)
    with ThreadPoolExecutor(BARE_AT_ONCE) as pool:
        for key in keys:
            size_bytes = obstore.head(store._client, key)["size"]
            file = os.open(folder / key, os.O_RDWR | os.O_CREAT)

            def fetch(start: int, key: str = key, file: int = file, end: int = size_bytes) -> None:
                length = min(PART_BYTES, end - start)
                data = obstore.get_range(store._client, key, start=start, length=length)
                os.pwrite(file, data, start)

            list(pool.map(fetch, range(0, size_bytes, PART_BYTES)))
            os.fsync(file)
            os.close(file)


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
