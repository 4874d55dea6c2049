"""What a manifest holds, flattened by path: tensors here, everything else there. Reads no pack."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onward.errors import Damaged, StateError
from onward.repository import Commit, Manifest, Repository, Tensor
from onward.repository.tree import decode, join

RESERVED = ("onward", "randomness")


@dataclass(slots=True)
class Contents:
    """The leaves of a state tree. Tied tensors appear under each of their paths."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    """Path → the stored form of a plain value: comparable bit for bit, never decoded."""


def contents(manifest: Manifest) -> Contents:
    """Every leaf of the checkpoint's state tree by its path, as packs and messages name it."""
    found = Contents()
    for path, leaf in _leaves(manifest.state, ""):
        if isinstance(leaf, _Index):
            found.tensors[path] = manifest.tensor(leaf.index)
        else:
            found.values[path] = leaf
    return found


@dataclass(frozen=True, slots=True)
class _Index:
    index: int


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    # Walks the stored form, so that nothing need be loaded, not even the class of an enum.
    match value:
        case {"$tensor": int() as index} if len(value) == 1:
            yield path, _Index(index)
        case {"$tuple": list() as children} if children and len(value) == 1:
            yield from _each(children, path)
        case {"$dict": list() as pairs} if pairs and len(value) == 1:
            for pair in pairs:
                if not (isinstance(pair, list) and len(pair) == 2):
                    raise Damaged("the state tree has a bad $dict")
                yield from _leaves(pair[1], join(path, _key(pair[0])))
        case {"$tagged": [str() as tag, body]} if isinstance(body, dict | list) and body:
            yield from _leaves(body, join(path, tag))
        case dict() if value and not any(key.startswith("$") for key in value):
            for key, child in value.items():
                yield from _leaves(child, join(path, key))
        case list() if value:
            yield from _each(value, path)
        case _:
            yield path, value


def _each(children: list[Any], path: str) -> Iterator[tuple[str, Any]]:
    for position, child in enumerate(children):
        yield from _leaves(child, join(path, position))


def _key(stored: Any) -> Any:
    return stored if isinstance(stored, str | int) else shown(stored)


def shown(stored: Any) -> str:
    """A stored value for people; what is long is cut."""
    try:
        value = decode(stored, lambda index: f"tensor {index}")
    except (Damaged, StateError):
        value = stored
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def plain(stored: Any) -> Any:
    """A stored value for `--json`: numbers, text and containers as they are, the rest as text."""
    if isinstance(stored, dict) and any(key.startswith("$") for key in stored):
        return shown(stored)
    return stored


def same(first: Any, second: Any) -> bool:
    """Whether two stored values are equal bit for bit (1 and 1.0, or 0.0 and −0.0, are not)."""
    return json.dumps(first) == json.dumps(second)


def flattened(document: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested configuration as one level of paths."""
    flat: dict[str, Any] = {}
    for key, value in document.items():
        here = f"{path}.{key}" if path else str(key)
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, here))
        else:
            flat[here] = value
    return flat


def top(path: str) -> str:
    """The object that a path belongs to: `model` of `model/fc.weight`."""
    return path.partition("/")[0]


def own_packs(repository: Repository, commit: Commit, manifest: Manifest) -> set[str]:
    """The packs that this checkpoint wrote itself; the others it shares with older ones.

    Told by their length, which the log names, and by their absence from the checkpoint before.
    """
    fitting = {pack for pack, ref in manifest.packs.items() if ref.size == commit.stored}
    if len(fitting) < 2:
        return fitting
    history = repository.history
    older = history.commits.get(commit.parent or "")
    if older is None or older.checkpoint in history.dropped:
        before = [c for c in history.live() if c.seq < commit.seq]
        older = before[-1] if before else None
    if older is None:
        return fitting
    try:
        return fitting - repository.manifest(older).packs.keys()
    except Damaged:
        return fitting
