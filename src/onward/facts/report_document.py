"""The report as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onward.facts.report import Facts
from onward.learning.bill import FIELDS, Cost, Gap, IncrementBill, Total
from onward.repository import Audit, Commit


def report_document(facts: Facts) -> dict[str, Any]:
    """The whole report for programs."""
    return {
        "output": facts.url,
        "increments": [_increment_document(one) for one in facts.bill.increments],
        "totals": {name: _total_document(facts.bill.totals[name]) for name in FIELDS},
        "audits": [
            audit_document(facts.history.commits[audit.checkpoint], audit)
            for audits in facts.history.audits.values()
            for audit in audits
        ],
        "curves": [
            {"metric": curve.metric, "points": [p for _, points in curve.lines for p in points]}
            for curve in facts.curves
        ],
        "unreadable": dict(facts.unreadable),
    }


def _increment_document(bill: IncrementBill) -> dict[str, Any]:
    row = bill.tip.row
    return {
        "increment": bill.increment,
        "finished": bill.finished,
        "checkpoint": bill.tip.checkpoint,
        "checkpoints": bill.checkpoints,
        "dropped": bill.dropped,
        "strategy": bill.strategy or None,
        "verdict": (row.verdict or None) if row else None,
        "used": _cost_document(bill.used),
        "retrain": {**_cost_document(bill.retrain), "basis": bill.basis},
        "ratio": {name: bill.ratio(name) for name in FIELDS},
        "audit": bill.audit.retrain if bill.audit is not None else None,
        "sample": bill.audit.share if bill.audit is not None else None,
        "gaps": [_gap_document(gap) for gap in bill.gaps],
    }


def _cost_document(cost: Cost) -> dict[str, Any]:
    return {
        "steps": cost.steps, "samples": cost.samples, "seconds": cost.seconds,
        "stored_bytes": cost.stored, "at_least": sorted(cost.at_least),
    }  # fmt: skip


def _total_document(total: Total) -> dict[str, Any]:
    return {
        "used": total.used, "at_least": total.at_least, "compared": total.compared,
        "retrain": total.retrain, "increments": total.increments, "estimated": total.estimated,
        "ratio": total.ratio, "saved": total.saved,
    }  # fmt: skip


def audit_document(
    commit: Commit, audit: Audit, gaps: Sequence[Gap] | None = None
) -> dict[str, Any]:
    """One audit for programs."""
    document: dict[str, Any] = {
        "checkpoint": audit.checkpoint, "increment": commit.increment, "retrain": audit.retrain,
        "sample": audit.share, "steps": audit.steps, "samples": audit.samples,
        "seconds": audit.seconds, "stored_bytes": audit.stored, "time": audit.time,
        "onward": audit.made_by, "metrics": audit.metrics, "scores": {"after": audit.scores.after},
    }  # fmt: skip
    if gaps is not None:
        document["gaps"] = [_gap_document(gap) for gap in gaps]
    return document


def _gap_document(gap: Gap) -> dict[str, Any]:
    return {
        "holdout": gap.holdout, "metric": gap.metric, "ours": gap.ours, "retrain": gap.retrain,
        "excess": gap.excess,
    }  # fmt: skip
