"""Snapshots of tables and folders: the first one, and one when nothing has changed.

Beside each first one stands the physical limit: reading the same bytes and hashing them.
"""

from __future__ import annotations

import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.measuring import Result
from onward.data import Folder, Source, Table
from onward.data.files import digest_of_file, files_at

ROWS = 1_000_000
FILES = 20_000
REPETITIONS = 3


def measure() -> Iterator[Result]:
    """Seconds; rows are an id, two numbers, a word and a flag."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name, write in WRITERS.items():
            if name == "parquet" and importlib.util.find_spec("pyarrow") is None:
                print("parquet is left out: pyarrow is not installed")
                continue
            path = home / f"table.{name}"
            write(path)
            yield from _measure(
                f"{ROWS:,} rows of {name}",
                lambda cache, path=path: Table(path, key="id", cache=cache),
                home / f"cache-{name}",
                [path],
                (20, 2),
            )
            path.unlink()
        files = home / "files"
        files.mkdir()
        for number in range(FILES):
            (files / f"{number:05}.bin").write_bytes(os.urandom(1024))
        yield from _measure(
            f"{FILES:,} files of 1 KiB",
            lambda cache: Folder(files, cache=cache),
            home / "cache-files",
            [files],
            (5, 1),
        )


def _measure(
    what: str,
    opened: Callable[[Path], Source],
    cache: Path,
    read: list[Path],
    targets: tuple[float, float],
) -> Iterator[Result]:
    _wait_until_settled()
    limit = [_seconds(lambda: _read_and_hash(read)) for _ in range(REPETITIONS)]
    first = [
        _seconds(lambda number=number: opened(cache / str(number)).snapshot())
        for number in range(REPETITIONS)
    ]
    again = [_seconds(lambda: opened(cache / "0").snapshot()) for _ in range(REPETITIONS)]
    snapshot = opened(cache / "0").snapshot()
    digests = snapshot.identified.digests
    assert digests is not None
    yield Result(f"{what}: reading and hashing them", "s", targets[0], tuple(limit))
    yield Result(f"{what}: first snapshot", "s", targets[0], tuple(first))
    yield Result(f"{what}: nothing changed", "s", targets[1], tuple(again))
    yield Result(f"{what}: ledger", "bytes/item", 16, (digests.nbytes / snapshot.items,))


def _read_and_hash(paths: list[Path]) -> None:
    for path in paths:
        for file in files_at(path):
            digest_of_file(file, file.stamp())


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _row(number: int) -> tuple[str, int, float, str, bool]:
    return (
        f"item-{number:08}",
        number * 7919 % 5000,
        number / 3,
        f"word {number % 977}",
        not number % 3,
    )


def _write_csv(path: Path) -> None:
    with path.open("w") as file:
        file.write("id,count,score,word,flag\n")
        file.writelines(",".join(map(str, _row(number))) + "\n" for number in range(ROWS))


def _write_jsonl(path: Path) -> None:
    names = ("id", "count", "score", "word", "flag")
    with path.open("w") as file:
        file.writelines(
            json.dumps(dict(zip(names, _row(number), strict=True))) + "\n" for number in range(ROWS)
        )


def _write_parquet(path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    columns = zip(*(_row(number) for number in range(ROWS)), strict=True)
    names = ("id", "count", "score", "word", "flag")
    table = pyarrow.table([pyarrow.array(column) for column in columns], names=names)
    pyarrow.parquet.write_table(table, path)


def _wait_until_settled() -> None:
    time.sleep(2.1)  # what has just been written is not believed to stay as it is


WRITERS = {"csv": _write_csv, "jsonl": _write_jsonl, "parquet": _write_parquet}
