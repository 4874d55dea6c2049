"""How much an increment would train, as far as the checkpoint that it goes on from can tell.

A script decides that when it runs. What it decided the last time is known: the batch size, how many
batches an epoch had for so many items, and the budget. Where the same holds again the answer is
exact; where items or the mix have to be guessed it is an estimate, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from onward.data.file_list import DATA_FILES, FileList
from onward.errors import OnwardError
from onward.jobs.difference import Difference
from onward.jobs.spec import JobSpec
from onward.learning.plan import Budget, Retrain, planned_steps
from onward.repository import Manifest


@dataclass(frozen=True, slots=True)
class Training:
    """`items` are those that it is about, `epoch` the batches of an epoch, `batches` all of them,
    `seconds` instead where the budget is a time; None for what nobody can tell before.

    `exact` is False for an estimate; `rest` says that an unfinished increment goes on.
    """

    items: int | None = None
    epoch: int | None = None
    batches: int | None = None
    seconds: float | None = None
    budget: str = ""
    exact: bool = False
    rest: bool = False

    def sentence(self) -> str:
        """For people."""
        about = "" if self.exact else "about "
        if self.rest:
            return f"{self.batches:,} batches are left of this increment"
        parts = []
        if self.batches is not None:
            parts.append(f"{about}{self.batches:,} batches")
        elif self.seconds is not None:
            parts.append(f"for {self.seconds:g} s")
        if self.epoch is not None:
            parts.append(f"{about if not parts else ''}{self.epoch:,} batches an epoch")
        if self.items is not None:
            parts.append(f"{about}{self.items:,} items")
        if self.budget:
            parts.append(f"budget {self.budget}")
        return ", ".join(parts)


def rest_of(manifest: Manifest) -> Training | None:
    """What an unfinished increment has left; None where its script made no plan."""
    learning = _mapping(manifest.about.get("learning"))
    steps, planned = learning.get("steps"), _mapping(learning.get("plan")).get("steps")
    if not isinstance(steps, int) or not isinstance(planned, int):
        return None
    left = max(0, planned - steps) * _batches_of_step(learning)
    return Training(batches=left, exact=True, rest=True)


def next_training(
    spec: JobSpec, manifest: Manifest, difference: Difference | None, *,
    before: FileList | None = None,
) -> Training | None:  # fmt: skip
    """What the increment after a finished checkpoint trains; None where nothing can be told.

    `before` are the files that the increment before that one was trained on.
    """
    about = manifest.about
    learning, facts = _mapping(about.get("learning")), _last_loader(about)
    size = _count(learning, "batch_size")
    if not size or difference is None:
        return None
    found = _items(spec, about, learning, facts, difference, before)
    if found is None:
        return None
    items, exact = found
    known = _count(facts, "items") - _count(facts, "held_out")
    rule = _rule(learning, facts, size)
    exact = exact and rule.sure and not spec.strategy
    epoch = rule.batches(items, 0 if spec.verb == "continue" else known)
    training = Training(items=items, epoch=epoch, exact=exact)
    return _with_budget(training, spec, learning, known=known, size=size)


@dataclass(frozen=True, slots=True)
class _Rule:
    """How items become the batches of an epoch: `old` items beside the new ones, or none, or by the
    ratio of the last time."""

    size: int
    beside: bool
    whole: bool
    """Whether a last batch that is not full is left out."""
    ratio: float | None = None
    sure: bool = True

    def batches(self, new: int, old: int) -> int:
        if self.ratio is not None:
            return math.ceil(new * self.ratio)
        items = new + min(new, old) if self.beside else new
        return items // self.size if self.whole else math.ceil(items / self.size)


def _rule(learning: Mapping[str, Any], facts: Mapping[str, Any], size: int) -> _Rule:
    """The one that explains the last increment."""
    new, old, batches = _count(learning, "new"), _count(learning, "known"), _count(facts, "batches")
    if not new or not batches:
        return _Rule(size, beside=True, whole=False, sure=False)
    for rule in (
        _Rule(size, beside=True, whole=False), _Rule(size, beside=True, whole=True),
        _Rule(size, beside=False, whole=False), _Rule(size, beside=False, whole=True),
    ):  # fmt: skip
        if rule.batches(new, old) == batches:
            # Of a first increment all rules say the same: what is mixed in is seen from the second.
            return rule if old else _Rule(size, beside=True, whole=rule.whole, sure=False)
    return _Rule(size, beside=True, whole=False, ratio=batches / new, sure=False)


def _items(
    spec: JobSpec, about: Mapping[str, Any], learning: Mapping[str, Any],
    facts: Mapping[str, Any], difference: Difference, before: FileList | None,
) -> tuple[int, bool] | None:  # fmt: skip
    """How many items the increment is about, and whether that is exact."""
    items, held = _count(facts, "items"), _count(facts, "held_out")
    if difference.unit == "items":
        new, exact = difference.added + difference.changed, True
        total = new + difference.known
    else:
        density = _items_per_byte(about, learning, items, before)
        if density is None:
            return None
        new = round(density * difference.new_bytes)
        total, exact = items + new, new == 0 and difference.is_known
    if spec.verb == "continue":
        new = total  # who insists learns all of it again
    if new and 0 < held < items:
        # A share of what is new is frozen as this increment's holdout.
        new, exact = round(new * (1 - held / items)), False
    return new, exact


def _items_per_byte(
    about: Mapping[str, Any], learning: Mapping[str, Any], items: int, before: FileList | None
) -> float | None:
    """Of files: as in what came new the last time, else as in all data."""
    files = FileList.read(about.get(DATA_FILES))
    if files is None:
        return None
    if before is not None:
        delta, _ = before.delta(files)
        new, new_bytes = _count(learning, "new"), sum(files.sizes[at] for at in delta.new.tolist())
        if new and new_bytes:
            return float(new / new_bytes)
    return items / files.size_bytes if items and files.size_bytes else None


def _with_budget(
    training: Training, spec: JobSpec, learning: Mapping[str, Any], *, known: int, size: int
) -> Training:
    text = spec.budget or _mapping(learning.get("plan")).get("budget") or ""
    epochs = _mapping(learning.get("retrain")).get("epochs")
    items, epoch = training.items or 0, training.epoch or 0
    if not text or not items:
        return training
    step = _batches_of_step(learning)
    try:
        budget = Budget.of(float(text) if text.replace(".", "", 1).isdigit() else text)
        retrain = (
            Retrain.of(items + known, epochs=float(epochs), batch_size=size * step)
            if isinstance(epochs, int | float) and epochs > 0
            else None
        )
        steps = planned_steps(budget, batches=-(-epoch // step), retrain=retrain, increment=2)
    except OnwardError:
        return training  # the script says what is wrong with it
    return replace(
        training,
        batches=None if steps is None else steps * step,
        seconds=budget.amount if steps is None else None,
        budget=str(budget),
    )


def _batches_of_step(learning: Mapping[str, Any]) -> int:
    """Batches of an optimizer step, from what was counted."""
    counts = (_count(learning, name) for name in ("samples", "steps", "batch_size"))
    samples, steps, size = counts
    return max(1, round(samples / (steps * size))) if steps and size else 1


def _last_loader(about: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was told of the loader that was trained from last."""
    described = _mapping(about.get("data"))
    found = [each for each in described.values() if isinstance(each, Mapping)]
    return found[-1] if found else {}


def _count(facts: Mapping[str, Any], name: str) -> int:
    """A number that a checkpoint told; 0 where it told none."""
    value = facts.get(name)
    return value if type(value) is int and value > 0 else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
