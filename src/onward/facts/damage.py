"""What `verify` found, as a document."""

from __future__ import annotations

from typing import Any

from onward.repository import Repository
from onward.repository.verifying import Findings

PROGRESS = "progress.json"
"""The file in which a child tells how far it is (`child.py`)."""


def damage_document(
    repository: Repository, findings: Findings, *, every_byte: bool
) -> dict[str, Any]:
    """The findings as plain JSON values."""
    history = repository.history
    versions = history.versions()

    def entry(id_: str, reasons: list[str]) -> dict[str, Any]:
        commit = history.commits.get(id_)
        return {
            "checkpoint": id_ or None,
            "version": versions.get(id_),
            "step": commit.step if commit else None,
            "reasons": reasons,
        }

    return {
        "output": repository.store.url,
        "intact": findings.intact,
        "every_byte": every_byte,
        "checkpoints": findings.checkpoints,
        "bytes_read": findings.bytes_read,
        "damaged": [entry(id_, reasons) for id_, reasons in findings.damaged.items()],
        "not_here": findings.not_here,
        "leftovers": findings.leftovers,
    }
