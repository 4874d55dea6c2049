"""Numbered files: which of `ckpt_9.pth` and `ckpt_10.pth` is the newest."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

RULE = (
    "of files that differ only in numbers the one with the highest numbers, and all others "
    "(shards such as 1-of-4 or rank2 belong together and are not compared)"
)

_DIGITS = re.compile(r"\d+")
# Numbers that count the pieces of one thing, not its versions.
_PIECE = re.compile(
    r"\d+[-_]of[-_]\d+|(?<![a-z])(?:rank|shard|part|worker|proc|process|tp|pp|dp|mp)[-_.]?\d+", re.I
)


@dataclass(slots=True)
class Choice:
    """Which files were chosen, and for each one passed over the one that was chosen instead."""

    chosen: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def choose_latest(keys: Iterable[str]) -> Choice:
    """Of keys that differ only in numbers the one with the highest, compared as integers."""
    families: dict[str, list[tuple[list[int], str]]] = {}
    for key in sorted(keys):
        template, numbers = _family(key)
        families.setdefault(template, []).append((numbers, key))
    choice = Choice()
    for members in families.values():
        _, newest = max(members)
        choice.chosen.append(newest)
        choice.passed_over.update({key: newest for _, key in members if key != newest})
    choice.chosen.sort()
    return choice


def _family(key: str) -> tuple[str, list[int]]:
    """The key with its numbers blanked, except those of pieces; and those numbers."""
    template: list[str] = []
    numbers: list[int] = []
    position = 0
    for piece in [*_PIECE.finditer(key), None]:
        end = piece.start() if piece is not None else len(key)
        between = key[position:end]
        numbers += [int(digits) for digits in _DIGITS.findall(between)]
        template.append(_DIGITS.sub("\0", between))
        if piece is not None:
            template.append(piece.group())
            position = piece.end()
    return "".join(template), numbers
