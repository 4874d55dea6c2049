"""Two checkpoints compared: facts, configuration, metrics, plain state, tensors. No text here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from onward.cli.values import Difference, difference
from onward.facts.contents import Contents, contents, flattened, same
from onward.facts.outputs import Found
from onward.repository import Tensor
from onward.repository.reading import read_tensors

_BATCH_BYTES = 64 << 20

ABSENT: Any = object()
"""Stands where only the other checkpoint has a value."""

Pair = tuple[Any, Any]


@dataclass(frozen=True, slots=True)
class Changed:
    """A tensor that both have; `by` is None where shapes differ, or one is complex."""

    path: str
    first: Tensor
    second: Tensor
    by: Difference | None


@dataclass(slots=True)
class Comparison:
    """Only what differs; `same_tensors` counts those that do not."""

    facts: dict[str, Pair] = field(default_factory=dict)
    configuration: dict[str, Pair] = field(default_factory=dict)
    about: dict[str, Pair] = field(default_factory=dict)
    metrics: dict[str, Pair] = field(default_factory=dict)
    values: dict[str, Pair] = field(default_factory=dict)
    added: dict[str, Tensor] = field(default_factory=dict)
    removed: dict[str, Tensor] = field(default_factory=dict)
    changed: list[Changed] = field(default_factory=list)
    same_tensors: int = 0

    @property
    def bytes_differ(self) -> bool:
        """Whether a restore of one gives another state than a restore of the other."""
        return bool(self.added or self.removed or self.changed or self.values)


def compare(
    first: Found, second: Found, *, progress: Callable[[int], None] | None = None
) -> Comparison:
    """Compares two checkpoints; reads only tensors whose digests differ. Raises `Damaged`."""
    a, b = first.manifest, second.manifest
    held_a, held_b = contents(a), contents(b)
    config_a, about_a = _split(a.about)
    config_b, about_b = _split(b.about)
    result = Comparison(
        facts=_differing(_facts(first), _facts(second)),
        configuration=_differing(config_a, config_b),
        about=_differing(about_a, about_b),
        metrics=_differing(dict(a.metrics), dict(b.metrics)),
        values=_differing(held_a.values, held_b.values),
        added={p: t for p, t in held_b.tensors.items() if p not in held_a.tensors},
        removed={p: t for p, t in held_a.tensors.items() if p not in held_b.tensors},
    )
    pairs = list(_differing_tensors(held_a, held_b, result))
    result.changed = _measure(first, second, pairs, progress)
    return result


def bytes_to_read(first: Found, second: Found) -> int:
    """What `compare` will read, for a progress bar."""
    pairs = _differing_tensors(contents(first.manifest), contents(second.manifest), Comparison())
    return sum(a.size_bytes + b.size_bytes for _, a, b in pairs if _comparable(a, b))


def _facts(found: Found) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "step": manifest.step,
        "epoch": manifest.epoch,
        "increment": manifest.increment,
        "finished": manifest.finished,
        "verb": manifest.verb,
        "reason": manifest.reason,
        "framework": f"{manifest.framework.name} {manifest.framework.version}",
    }


def _split(about: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Configuration, and everything else that is said about a checkpoint."""
    config = about.get("config")
    rest = {key: value for key, value in about.items() if key != "config"}
    if isinstance(config, Mapping):
        return flattened(config), flattened(rest)
    return ({} if config is None else {"config": config}), flattened(rest)


def _differing(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Pair]:
    return {
        key: (first.get(key, ABSENT), second.get(key, ABSENT))
        for key in dict.fromkeys((*first, *second))
        if key not in first or key not in second or not same(first[key], second[key])
    }


def _differing_tensors(
    first: Contents, second: Contents, count_into: Comparison
) -> Iterator[tuple[str, Tensor, Tensor]]:
    for path, a in first.tensors.items():
        b = second.tensors.get(path)
        if b is None:
            continue
        described = (a.dtype, a.shape) == (b.dtype, b.shape)
        if described and (a.parts == b.parts or (a.digest is not None and a.digest == b.digest)):
            count_into.same_tensors += 1
        else:
            yield path, a, b


def _measure(
    first: Found,
    second: Found,
    pairs: list[tuple[str, Tensor, Tensor]],
    progress: Callable[[int], None] | None,
) -> list[Changed]:
    measured: dict[int, Difference] = {}
    comparable = [(i, a, b) for i, (_, a, b) in enumerate(pairs) if _comparable(a, b)]
    for batch in _batches(comparable):
        read_a = read_tensors(
            first.repository.store, {i: a for i, a, _ in batch}, progress=progress
        )
        read_b = read_tensors(
            second.repository.store, {i: b for i, _, b in batch}, progress=progress
        )
        for i, a, b in batch:
            measured[i] = difference(read_a.pop(i), read_b.pop(i), (a.dtype, b.dtype))
    return [Changed(path, a, b, measured.get(i)) for i, (path, a, b) in enumerate(pairs)]


def _comparable(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and a.dtype.startswith("C") == b.dtype.startswith("C")


def _batches(
    items: list[tuple[int, Tensor, Tensor]],
) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
    """Several small tensors at a time, or one large one: bounded memory."""
    batch: list[tuple[int, Tensor, Tensor]] = []
    held = 0
    for item in items:
        if batch and held + item[1].size_bytes > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
        batch.append(item)
        held += item[1].size_bytes
    if batch:
        yield batch
