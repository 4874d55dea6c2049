"""Putting an audit on record: what a full retrain beside a checkpoint cost, and how it scored."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from onward import _version
from onward.repository.history import History
from onward.repository.records import AnyRecord, Audit, Scores, for_people, new_hex32, now
from onward.repository.repository import Repository


@dataclass(frozen=True, slots=True)
class Retrain:
    """A finished audit, to be put on record; the fields are those of `Audit`."""

    checkpoint: str
    retrain: str
    share: float
    steps: int
    samples: int | None
    seconds: float
    stored: int
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    scores: Scores | None = None


def record_audit(repository: Repository, found: Retrain) -> Audit:
    """Appends the record and returns it; one that is there already is returned as it is.

    The same retrain is never recorded twice, so that whoever was killed after appending may do it
    again. Raises `Damaged` for a checkpoint that the log does not know, and as `append` does.
    """
    record_id, writer = new_hex32(), new_hex32()

    def build(history: History) -> AnyRecord:
        there = recorded(history, found.checkpoint, found.retrain)
        if there is not None:
            raise _RecordedBefore(there)
        return Audit(
            seq=history.seq + 1, record=record_id, writer=writer, generation=history.generation,
            time=now(), prev=history.head_digest, checkpoint=found.checkpoint,
            retrain=found.retrain, share=found.share, steps=found.steps, samples=found.samples,
            seconds=found.seconds, stored=found.stored,
            made_by=for_people(f"onward {_version.__version__}"),
            metrics=_finite(found.metrics), scores=_recordable(found.scores),
        )  # fmt: skip

    try:
        record = repository.append(build)
    except _RecordedBefore as before:
        return before.audit
    assert isinstance(record, Audit)
    return record


def recorded(history: History, checkpoint: str, retrain: str) -> Audit | None:
    """The record of this very retrain, or None."""
    audits = history.audits.get(checkpoint, [])
    return next((audit for audit in audits if audit.retrain == retrain), None)


def _finite(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in metrics.items()
    }


def _recordable(scores: Scores | None) -> Scores:
    if scores is None:
        return Scores()
    return msgspec.structs.replace(
        scores, after=_finite(scores.after), before=_finite(scores.before)
    )


class _RecordedBefore(Exception):
    """The log holds this audit already."""

    def __init__(self, audit: Audit) -> None:
        super().__init__(audit.retrain)
        self.audit = audit
