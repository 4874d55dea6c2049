"""Which of a stream of items a bounded memory keeps, and in which slots: pure functions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Flags = npt.NDArray[np.bool_]


def reservoir(filled: Flags, *, offered: int, count: int, seed: int) -> dict[int, int]:
    """Slot → place in a stream of `count` items, for those that are in a slot when it ends.

    After it every item ever offered is remembered with equal chance. `filled` says which slots are
    taken, `offered` how many items came before. SOURCE: Vitter 1985 (Random sampling with a
    reservoir, ACM TOMS 11:37), algorithm R.
    """
    places: dict[int, int] = {}
    free = np.flatnonzero(~filled).tolist()
    # A slot that a withdrawal emptied is for whoever comes next, whatever the chance.
    for place, slot in zip(range(count), free, strict=False):
        places[slot] = place
    first = len(places)
    chance = _chances(count - first, seed)
    seen = offered + first + 1 + np.arange(count - first, dtype=np.float64)
    drawn = np.floor(chance * seen).astype(np.int64)
    for hit in np.flatnonzero(drawn < len(filled)).tolist():
        places[int(drawn[hit])] = first + hit
    return places


def balanced(
    filled: Flags,
    held: npt.NDArray[np.int64],
    offered: npt.NDArray[np.int64],
    *,
    seed: int,
) -> dict[int, int]:
    """Slot → place in a stream with labels `offered`, so that no class has more than it must.

    Every class gets the same number of slots, or one more, as far as it has items; within a class
    what is there gives way at random. `held`: the label of each slot, where `filled`.
    SOURCE: the greedy balancing sampler of Prabhu et al. 2020 (GDumb), algorithm 1; the ring buffer
    of Chaudhry et al. 2019 is the same for classes that come one after another.
    """
    classes = np.unique(np.concatenate([held[filled], offered]))
    stock = {int(c): int(np.sum(filled & (held == c))) + int(np.sum(offered == c)) for c in classes}
    quota = _quotas(stock, len(filled))
    key = iter(_chances(len(filled) + len(offered), seed).tolist())
    freed = np.flatnonzero(~filled).tolist()
    wanted: list[int] = []
    for c in classes.tolist():
        slots = np.flatnonzero(filled & (held == c)).tolist()
        new = np.flatnonzero(offered == c).tolist()
        # Old and new of a class have equal chances: what stays is a sample of both.
        lots = sorted([(next(key), 0, s) for s in slots] + [(next(key), 1, p) for p in new])
        stays = {slot for _, is_new, slot in lots[: quota[c]] if not is_new}
        freed += [slot for slot in slots if slot not in stays]
        wanted += [place for _, is_new, place in lots[: quota[c]] if is_new]
    return dict(zip(sorted(freed), wanted, strict=False))


def _quotas(stock: dict[int, int], capacity: int) -> dict[int, int]:
    """How many slots each class gets: as equal as what there is of it allows."""
    quota = dict.fromkeys(stock, 0)
    left, open_ = capacity, sorted(stock, key=lambda c: (stock[c], c))
    while open_ and left:
        share = left // len(open_)
        smallest = open_[0]
        if stock[smallest] <= share:
            quota[smallest] = stock[smallest]
            left -= stock[smallest]
            open_.pop(0)
            continue
        extra = left - share * len(open_)
        for number, c in enumerate(open_):
            # Those with the most have room for one more.
            quota[c] = share + (number >= len(open_) - extra)
        break
    return quota


def _chances(count: int, seed: int) -> npt.NDArray[np.float64]:
    raw = np.random.Philox(key=seed).random_raw(count)
    return (raw >> np.uint64(11)).astype(np.float64) * 2.0**-53
