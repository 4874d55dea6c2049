"""The lineage of checkpoints as a column of lines, newest first. Pure."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

_MOST_LANES = 8
_ASCII = str.maketrans({"●": "*", "│": "|", "├": "|", "─": "-", "╯": "'", "┴": "-", "…": "+"})


def in_ascii(text: str) -> str:
    """The same drawing for an encoding without lines."""
    return text.translate(_ASCII)


@dataclass(slots=True)
class Row:
    """What stands left of one checkpoint: lines before it, beside its first line, beside others."""

    before: list[str]
    node: str
    rest: str


@dataclass(slots=True)
class Graph:
    """Lanes from the newest checkpoints down to those that they came from.

    A lane waits for the parent of the checkpoint it last showed. A checkpoint that several lanes
    wait for is where they branched off: the others join the leftmost. Beyond eight lanes only
    their presence is shown, so that a line stays a line.
    """

    waiting: dict[str, list[int]] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)
    _free: list[int] = field(default_factory=list)

    def add(self, checkpoint: str, parent: str | None) -> Row:
        """The row of the next older checkpoint; `parent` is None where its lineage ends."""
        lanes = self.waiting.pop(checkpoint, [])
        if not lanes:
            lanes = [self._take()]
        lanes.sort()
        own, joining = lanes[0], lanes[1:]
        before = [self._join(own, joining)] if joining else []
        for lane in joining:
            self._leave(lane)
        node = self._draw({own: "●"})
        if parent is None:
            self._leave(own)
        else:
            self.waiting.setdefault(parent, []).append(own)
        rest = self._draw({})
        wide = max(len(node), len(rest))
        return Row(before, node.ljust(wide), rest.ljust(wide))

    @property
    def margin(self) -> str:
        """What stands left of a line that belongs to no checkpoint."""
        return self._draw({})

    def _take(self) -> int:
        lane = heapq.heappop(self._free) if self._free else len(self._used)
        self._used.add(lane)
        return lane

    def _leave(self, lane: int) -> None:
        self._used.discard(lane)
        heapq.heappush(self._free, lane)

    def _draw(self, special: dict[int, str]) -> str:
        cells = [
            special.get(lane) or ("│" if lane in self._used else " ")
            for lane in range(min(self._end(), _MOST_LANES))
        ]
        return " ".join(cells).rstrip() + self._beyond(special)

    def _join(self, own: int, joining: list[int]) -> str:
        last = min(max(joining), _MOST_LANES - 1)
        text = ""
        for lane in range(min(self._end(), _MOST_LANES)):
            inside = own < lane < last
            if lane == own:
                text += "├"
            elif lane == last and lane in joining:
                text += "╯"
            elif lane in joining:
                text += "┴"
            elif lane in self._used:
                text += "│"
            else:
                text += "─" if inside else " "
            text += "─" if own <= lane < last else " "
        return text.rstrip() + self._beyond({})

    def _end(self) -> int:
        """Lanes were numbered up to here; the highest may be free by now."""
        return len(self._used) + len(self._free)

    def _beyond(self, special: dict[int, str]) -> str:
        hidden = self._end() > _MOST_LANES and any(lane >= _MOST_LANES for lane in special)
        many = self._end() - len(self._free) > _MOST_LANES
        return (" ●" if hidden else " …") if hidden or many else ""
