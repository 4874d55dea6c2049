"""Which plain files `--predownload` fetches, and which it leaves at the store."""

from __future__ import annotations

from dataclasses import dataclass, field

from onward.stores import Entry


@dataclass(slots=True)
class Selection:
    """Which plain files `--predownload` fetches, and which it leaves at the store."""

    rule: str
    fetched: list[Entry] = field(default_factory=list)
    here: list[str] = field(default_factory=list)
    newer_here: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.fetched)

    def lines(self) -> list[str]:
        """What was chosen, by which rule, and what was passed over for what; for people."""
        found = len(self.fetched) + len(self.here) + len(self.newer_here)
        if not found:
            return []
        lines = [f"plain files: {self.rule}"]
        instead: dict[str, list[str]] = {}
        for key, newest in self.passed_over.items():
            instead.setdefault(newest, []).append(key)
        for newest, keys in sorted(instead.items()):
            shown = ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
            lines.append(f"plain files: {newest}, not {shown}")
        if self.newer_here:
            lines.append(f"plain files: changed here and kept: {', '.join(self.newer_here[:5])}")
        return lines
