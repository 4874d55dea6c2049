"""Whether a model has learned from an item."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3

from onward.data.items import DIGEST_BYTES, Items, digest_of_id
from onward.data.ledger import Ledger
from onward.errors import DataError, UsageError

_CHUNK_BYTES = 1 << 20


_KNOWN_BY = {
    "counted": ("by their number", "give --id with the number of each item, from 0"),
    "identified": ("by id", "give --id with the id of each item, or the file it is"),
    "keyed": ("by key and content", "give --key with the key of each item, or the file it is"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One item as it was asked for: a file, a key or an id."""

    by: str
    name: str


def answer_of(asked: Asked, ledgers: Sequence[Ledger]) -> tuple[bool, bool]:
    """Whether finished increments learned it, and whether the unfinished one is about it."""
    fitting = [ledger for ledger in ledgers if _fits(asked, ledger)]
    if not fitting:
        names, do = _KNOWN_BY[ledgers[0].kind or "counted"]
        raise UsageError(f"the items of this model are known {names}", do=do)
    learned = learning = False
    for ledger in fitting:
        if asked.by == "key":
            halves = np.frombuffer(b"".join(_ids(asked.name)), np.uint8).reshape(-1, DIGEST_BYTES)
            known, pinned = ledger.seen_keys(halves)
            learned, learning = learned or bool(known.any()), learning or bool(pinned.any())
            continue
        for items in _items(asked, ledger):
            learned = learned or bool(ledger.learned(items)[-1])
            learning = learning or bool(ledger.learning(items)[-1])
    return learned, learning


def _fits(asked: Asked, ledger: Ledger) -> bool:
    match asked.by:
        case "file":
            return ledger.kind != "counted"
        case "key":
            return ledger.kind in ("keyed", None)
    return ledger.kind in ("identified", None) or (
        ledger.kind == "counted" and re.fullmatch("[0-9]{1,15}", asked.name) is not None
    )


def _items(asked: Asked, ledger: Ledger) -> Iterator[Items]:
    """What the item may be known by; the last of the items is meant."""
    kind: Any = ledger.kind or "identified"
    if asked.by == "id" and kind == "counted":
        # Nothing beyond the last known one was seen, however large the number.
        yield Items.counted(min(int(asked.name), ledger.extent) + 1)
        return
    digests = _contents(asked.name, kind) if asked.by == "file" else _ids(asked.name)
    for digest in digests:
        yield Items(1, np.frombuffer(digest, np.uint8).reshape(1, DIGEST_BYTES), kind)


def _ids(name: str) -> Iterator[bytes]:
    """An id that reads as a number may have been one."""
    yield digest_of_id(name, 0)
    if re.fullmatch("-?[0-9]{1,40}", name) and str(int(name)) == name:
        yield digest_of_id(int(name), 0)


def _contents(name: str, kind: str) -> Iterator[bytes]:
    """A file's content, alone and with the class that a folder around it may stand for."""
    path = Path(name)
    whole = blake3()
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                whole.update(chunk)
    except OSError as error:
        raise DataError(
            f"{name} cannot be read",
            why=error.strerror or str(error),
            do="give a file that may be read, or name the item by --key or --id",
        ) from error
    content = whole.digest()
    if kind == "identified":
        yield content[:DIGEST_BYTES]
        return
    yield bytes(8) + content[:8]
    for folder in path.absolute().parent.parts:
        label = folder.encode("utf-8", "surrogatepass")
        yield bytes(8) + blake3(content + label).digest(length=8)
