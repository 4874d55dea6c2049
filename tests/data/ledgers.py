"""Ledgers and data of a few items, and the state tree of a run that has such a ledger."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np

from onward.data.items import Items
from onward.data.ledger import Ledger
from onward.data.order import derive_seed
from onward.frameworks.base import TensorLeaf

_NAMES = {"uint8": "U8", "uint32": "U32", "int64": "I64", "bool": "BOOL"}


def keyed(data: Mapping[str, int]) -> Items:
    """Items by key, whose contents are numbers."""
    contents = np.zeros((len(data), 8), np.uint8)
    contents.view("<u8")[:, 0] = list(data.values())
    return Items.keyed(list(data), contents)


def learned(*rounds: Items) -> Ledger:
    """A ledger after increments over each of `rounds`."""
    ledger = Ledger()
    for items in rounds:
        ledger.pin(items)
        ledger.learn_pinned()
    return ledger


def reloaded(ledger: Ledger) -> Ledger:
    """What another process makes of the stored ledger."""
    other = Ledger()
    other.load_state_dict(copy.deepcopy(ledger.state_dict()))
    return other


def digests(seed: str, count: int) -> Any:
    """As many digests as chance would make, the same ones each time."""
    raw = np.random.Philox(key=derive_seed(seed)).random_raw(2 * count)
    return raw.astype("<u8").view(np.uint8).reshape(count, 16)


def state_with(**ledgers: Mapping[str, Any]) -> dict[str, Any]:
    """The tree of a run whose loaders have ledgers with these states."""
    loaders = {
        name: {"position": {"epoch": 0}, "ledger": state, "items": 1}
        for name, state in ledgers.items()
    }
    return {"onward": frozen({"loaders": {"seed": 0, "loaders": loaders}})}


def frozen(tree: Any) -> Any:
    """The state as every framework stores it, arrays as leaves."""
    match tree:
        case np.ndarray():
            data = np.ascontiguousarray(tree).reshape(-1).view(np.uint8)
            return TensorLeaf(_NAMES[str(tree.dtype)], tree.shape, "numpy", data)
        case dict():
            return {key: frozen(child) for key, child in tree.items()}
        case list():
            return [frozen(child) for child in tree]
    return tree
