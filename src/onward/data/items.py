"""The items of a dataset at one moment, as a ledger knows them: 16 bytes each, or a count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import blake3
import numpy as np
import numpy.typing as npt

from onward.data.order import Indices
from onward.errors import DataError

Digests = npt.NDArray[np.uint8]
"""One row of 16 bytes for each item."""

Halves = npt.NDArray[np.uint64]
"""A number for each item: the first or the last 8 bytes of its digest."""

DIGEST_BYTES = 16

Kind = Literal["counted", "identified", "keyed"]
"""How items are known: by their place in data that only grows at its end; by an id that stands for
all of the item (a name that never gets another content, or the content itself); or by a key whose
content may change, which is half of the 16 bytes each."""


@dataclass(frozen=True, eq=False)
class Items:
    """The items that a dataset has at this moment: how many, and what each is known by."""

    count: int
    digests: Digests | None = None
    kind: Kind = "counted"

    def __post_init__(self) -> None:
        assert (self.digests is None) == (self.kind == "counted")

    @classmethod
    def counted(cls, count: int) -> Items:
        """Items of data that only ever grows at its end."""
        return cls(count)

    @classmethod
    def identified(cls, ids: Iterable[str | int | bytes]) -> Items:
        """Items with an id each, in the order of the dataset.

        Raises `DataError` that names the ids which appear more than once.
        """
        names = ids.tolist() if isinstance(ids, np.ndarray) else list(ids)
        joined = b"".join(digest_of_id(name, index) for index, name in enumerate(names))
        digests = np.frombuffer(joined, np.uint8).reshape(len(names), DIGEST_BYTES)
        _refuse_duplicates(digests, names)
        return cls(len(names), digests, "identified")

    @classmethod
    def keyed(cls, keys: Sequence[str | int | bytes], contents: Digests) -> Items:
        """Items with a key each, such as a path, and the digest of what is under it now.

        `contents`: uint8 of shape [n, 8 or more]; the first 8 bytes count. An item that is known
        under another key is the same item (a rename); another content under a known key is a
        changed one. Raises `DataError` that names the keys which appear more than once.
        """
        joined = b"".join(digest_of_id(key, index)[:8] for index, key in enumerate(keys))
        halves = np.frombuffer(joined, np.uint8).reshape(len(keys), 8)
        whole = np.concatenate([halves, contents[:, :8]], axis=1)
        _refuse_duplicates(np.concatenate([halves, halves], axis=1), keys)
        return cls(len(keys), whole, "keyed")

    def at(self, indices: Indices) -> Items:
        """Only these items; counted ones cannot be chosen from."""
        assert self.digests is not None
        return Items(len(indices), self.digests[indices], self.kind)


def digest_of_id(name: str | int | bytes, index: int) -> bytes:
    """The 16 bytes by which an id is known; `index` is for the message."""
    # The first byte keeps the text "1", the number 1 and the byte "1" apart.
    match name:
        case str():
            text = b"s" + name.encode("utf-8", "surrogatepass")
        case bool():
            raise DataError(f"the id of item {index} is {name}", do="give text, numbers or bytes")
        case int() | np.integer():
            text = b"i%d" % int(name)
        case bytes():
            text = b"b" + name
        case _:
            raise DataError(
                f"the id of item {index} is a {type(name).__name__}",
                do="give text, numbers or bytes",
            )
    return blake3.blake3(text).digest(length=DIGEST_BYTES)


def _refuse_duplicates(digests: Digests, names: Sequence[str | int | bytes]) -> None:
    high, low = halves(digests)
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    again = order[1:][(high[1:] == high[:-1]) & (low[1:] == low[:-1])]
    if len(again):
        shown = ", ".join(repr(names[index]) for index in np.sort(again)[:5])
        raise DataError(
            f"{len(again)} of {len(names)} items have an id that another item has: {shown}"
            + (", …" if len(again) > 5 else ""),
            do="give every item its own id",
        )


def locate(wanted: Digests, present: Digests) -> Indices:
    """For each row of `wanted` its row in `present`, or -1; of several, one of them."""
    rows = np.full(len(wanted), -1, np.int64)
    if not len(present) or not len(wanted):
        return rows
    high, low = halves(present)
    sought_high, sought_low = halves(wanted)
    # Data is mostly listed in the order in which it was learned: what stands in its place already
    # needs no search, and where all does, there is nothing to sort.
    shared = min(len(wanted), len(present))
    same = (sought_high[:shared] == high[:shared]) & (sought_low[:shared] == low[:shared])
    rows[:shared][same] = np.flatnonzero(same)
    rest = np.flatnonzero(rows < 0)
    if len(rest):
        rows[rest] = _search(sought_high[rest], sought_low[rest], high, low)
    return rows


def _search(sought_high: Halves, sought_low: Halves, high: Halves, low: Halves) -> Indices:
    order = np.argsort(high)
    if bool(np.any(high[order[1:]] == high[order[:-1]])):
        order = np.lexsort((low, high))
    high, low = high[order], low[order]
    # What is sought in ascending order is found several times as quickly: memory is near.
    sought = np.argsort(sought_high)
    sought_high, sought_low = sought_high[sought], sought_low[sought]
    last = len(order) - 1
    places = np.minimum(np.searchsorted(high, sought_high), last)
    # Behind an equal first half (one chance in 2^64 per pair) the second may need a step further.
    while True:
        further = (high[places] == sought_high) & (low[places] < sought_low) & (places < last)
        if not further.any():
            break
        places = places + further
    found = (high[places] == sought_high) & (low[places] == sought_low)
    rows = np.empty(len(sought), np.int64)
    rows[sought] = np.where(found, order[places], -1)
    return rows


def contained(wanted: Halves, present: Halves) -> npt.NDArray[np.bool_]:
    """For each of `wanted` whether it is among `present`."""
    found = np.zeros(len(wanted), np.bool_)
    if not len(present) or not len(wanted):
        return found
    order, among = np.argsort(wanted), np.sort(present)
    sought = wanted[order]
    places = np.minimum(np.searchsorted(among, sought), len(among) - 1)
    found[order] = among[places] == sought
    return found


def halves(digests: Digests) -> tuple[Halves, Halves]:
    """Each digest as two numbers, which NumPy sorts far more quickly than bytes.

    Of keyed items the first stands for the key, the second for the content.
    """
    numbers = np.ascontiguousarray(digests).view("<u8")
    return numbers[:, 0], numbers[:, 1]
