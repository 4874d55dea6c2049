"""The lineage of checkpoints: those that matter, and where each is drawn. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from onward.learning.rounds import Round
from onward.repository import Commit, History

MOST_LANES = 8
_MOST_ROWS = 200


@dataclass(slots=True)
class Node:
    """A checkpoint that matters; `between` counts those that are not shown up to `parent`."""

    commit: Commit
    parent: str | None
    between: int
    row: int = 0
    lane: int = 0


def nodes_of(history: History, found: Sequence[Round]) -> tuple[list[Node], int]:
    """What is shown, newest first, each with the nearest shown ancestor; and how many are not."""
    children: dict[str, int] = {}
    for commit in history.commits.values():
        if commit.parent is not None:
            children[commit.parent] = children.get(commit.parent, 0) + 1
    matter = {its.tip.checkpoint for its in found}
    matter |= {id_ for id_, count in children.items() if count > 1}
    matter |= {*history.aliases.values(), *history.pins, *history.audits}
    matter |= {c.checkpoint for c in history.commits.values() if c.row and c.row.verdict}
    newest = history.latest()
    if newest is not None:
        matter.add(newest.checkpoint)
    nearest: dict[str, tuple[str | None, int]] = {}  # the next shown at or above, and how far
    nodes = []
    for id_, commit in history.commits.items():
        above, between = nearest.get(commit.parent or "", (None, 0))
        if id_ in matter:
            nodes.append(Node(commit, above, between))
            nearest[id_] = (id_, 0)
        else:
            nearest[id_] = (above, between + 1)
    nodes.reverse()
    return nodes[:_MOST_ROWS], max(0, len(nodes) - _MOST_ROWS)


def place(nodes: list[Node]) -> int:
    """Gives each node its row and lane; returns how many lanes there are.

    A lane is held from a child down to its parent, so that lines do not cross nodes.
    """
    lanes = _Lanes()
    for row, node in enumerate(nodes):
        node.row = row
        node.lane = lanes.take(node.commit.checkpoint)
        if node.parent is not None:
            lanes.reserve(node.parent, node.lane)
    return lanes.most


@dataclass(slots=True)
class _Lanes:
    most: int = 0
    _waiting: dict[str, int] = field(default_factory=dict)  # parent → lane of its first child
    _joining: dict[str, list[int]] = field(default_factory=dict)
    _used: set[int] = field(default_factory=set)

    def take(self, id_: str) -> int:
        lane = self._waiting.pop(id_, None)
        if lane is None:
            lane = next(n for n in range(len(self._used) + 1) if n not in self._used)
        self._used -= set(self._joining.pop(id_, []))
        self._used.discard(lane)
        self.most = max(self.most, min(lane + 1, MOST_LANES))
        return lane

    def reserve(self, parent: str, lane: int) -> None:
        if parent in self._waiting:
            self._joining.setdefault(parent, []).append(lane)
        else:
            self._waiting[parent] = lane
        self._used.add(lane)
