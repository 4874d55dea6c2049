"""Numbered files: which of `ckpt_9.pth` and `ckpt_10.pth` is the newest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from onward.jobs.series import Version, version_of

RULE = (
    "the newest of files that differ only in numbers, compared as numbers (10 is after 9, a "
    "restarted net_1-2_391 after net-12_391, a folder such as checkpoint-500/ is one), and all "
    "others (1-of-4 or rank2 are not compared)"
)


@dataclass(slots=True)
class Choice:
    """Which files were chosen, and for each one passed over what was chosen instead."""

    chosen: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def choose_latest(keys: Iterable[str]) -> Choice:
    """The newest of every series: files that differ only in numbers, compared as integers.

    What cannot be told apart by numbers is chosen together.
    """
    series: dict[str, list[tuple[Version, str]]] = {}
    for key in sorted(keys):
        version = version_of(key)
        series.setdefault(version.series, []).append((version, key))
    choice = Choice()
    for members in series.values():
        newest, _ = max(members, key=lambda member: member[0].order)
        for version, key in members:
            if version.order == newest.order:
                choice.chosen.append(key)
            else:
                choice.passed_over[key] = newest.name
    choice.chosen.sort()
    return choice
