"""Which plain files `--predownload` fetches, and which it leaves at the store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from onward.jobs.series import version_of
from onward.stores import Entry

_SHOWN = 3


@dataclass(slots=True)
class Selection:
    """Which plain files `--predownload` fetches, and which it leaves at the store.

    `passed_over` tells for each file left there what was chosen instead, `torn` why a newest one
    was left there although it is the newest.
    """

    rule: str
    fetched: list[Entry] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    newer_here: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    torn: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.fetched)

    def lines(self) -> list[str]:
        """What was chosen, by which rule, and what was passed over for what; for people."""
        if not (self.fetched or self.here or self.newer_here):
            return []
        lines = [f"plain files: {self.rule}", *self.choices()]
        if self.newer_here:
            lines.append(f"plain files: changed here and kept: {', '.join(self.newer_here[:5])}")
        return lines

    def choices(self) -> list[str]:
        """For each newest what it was preferred to."""
        lines = []
        for newest in sorted(set(self.passed_over.values())):
            older = [version_of(key) for key, by in self.passed_over.items() if by == newest]
            older.sort(key=lambda version: version.order, reverse=True)
            names = list(dict.fromkeys(version.name for version in older))
            shown = ", ".join(names[:_SHOWN])
            if len(names) > _SHOWN:
                shown += f" and {len(names) - _SHOWN} more"
            words = version_of(newest).words
            lines.append(f"plain files: {newest}{f' ({words})' if words else ''}, not {shown}")
        return lines

    def document(self) -> dict[str, Any]:
        """The same, for programs."""
        return {
            "rule": self.rule,
            "fetch": [{"key": e.key, "size_bytes": e.size_bytes} for e in self.fetched],
            "here": self.here,
            "newer_here": self.newer_here,
            "passed_over": self.passed_over,
            "torn": self.torn,
        }
