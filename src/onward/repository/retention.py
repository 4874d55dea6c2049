"""Which checkpoints stay: from a history and rules to a decision. Pure; no input or output."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from onward.errors import UsageError
from onward.repository.history import History
from onward.repository.records import Commit

_BEST = re.compile(r"(.+?)(?::(min|max))?(?::([0-9]{1,9}))?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class BestOf:
    """The `count` best checkpoints by a metric; of equals, the newer ones.

    A checkpoint without the metric, or where it was not finite, is never among them.
    """

    metric: str
    lowest: bool = False
    count: int = 1

    def __post_init__(self) -> None:
        if not self.metric:
            raise UsageError("keep_best names no metric", do="name one, such as accuracy:max")
        _check_positive("keep_best", self.count)

    @classmethod
    def parse(cls, text: str) -> BestOf:
        """Of `accuracy`, `loss:min`, `loss:min:3`: a metric, its direction (max), how many (1)."""
        match = _BEST.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise UsageError("keep_best names no metric", do="name one, such as accuracy:max")
        return cls(match[1], lowest=match[2] == "min", count=int(match[3] or 1))

    def __str__(self) -> str:
        return f"{self.metric}:{'min' if self.lowest else 'max'}:{self.count}"


@dataclass(frozen=True, slots=True)
class Retention:
    """Rules that add up: a checkpoint stays if any of them keeps it. Without a rule, all stay.

    `keep_last` keeps the newest N. `keep_every` keeps, for each multiple of N optimizer steps, the
    first checkpoint at or after it. `keep_best` keeps the best by metrics.

    Whatever the rules: the newest checkpoint stays, and those that an alias or a pin protects; and,
    unless `keep_finished` is off, the newest finished checkpoint of each increment: the model as
    it was when it had learned that data.
    """

    keep_last: int | None = None
    keep_every: int | None = None
    keep_best: tuple[BestOf, ...] = ()
    keep_finished: bool = True

    def __post_init__(self) -> None:
        _check_positive("keep_last", self.keep_last)
        _check_positive("keep_every", self.keep_every)

    @classmethod
    def of(cls, rules: Mapping[str, Any]) -> Retention:
        """The rules as `document` gave them. Raises `UsageError`."""
        best = rules.get("keep_best") or ()
        return cls(
            rules.get("keep_last"),
            rules.get("keep_every"),
            tuple(map(BestOf.parse, [best] if isinstance(best, str) else best)),
        )

    def document(self) -> dict[str, Any]:
        """The rules as plain values, to be passed to another process."""
        return {
            "keep_last": self.keep_last,
            "keep_every": self.keep_every,
            "keep_best": [str(best) for best in self.keep_best],
        }

    @property
    def drops_anything(self) -> bool:
        """Whether there is a rule at all."""
        return bool(self.keep_last or self.keep_every or self.keep_best)


@dataclass(frozen=True, slots=True)
class Decision:
    """For each live checkpoint, oldest first, why it stays; no reason means that it goes."""

    reasons: dict[str, tuple[str, ...]]

    @property
    def goes(self) -> list[str]:
        return [id_ for id_, reasons in self.reasons.items() if not reasons]


def decide(history: History, retention: Retention) -> Decision:
    """What stays and what goes. Dropping what goes and deciding again drops nothing more."""
    live = history.live()
    reasons: dict[str, list[str]] = {commit.checkpoint: [] for commit in live}

    def keep(commits: Iterable[Commit], reason: str) -> None:
        for commit in commits:
            reasons[commit.checkpoint].append(reason)

    keep(live[-1:], "newest")
    if not retention.drops_anything:
        keep(live, "no rule")
    if retention.keep_last is not None:
        keep(live[-retention.keep_last :], f"last {retention.keep_last}")
    if retention.keep_every is not None:
        keep(_milestones(live, retention.keep_every), f"every {retention.keep_every} steps")
    for rule in retention.keep_best:
        keep(_best(live, rule), f"best {rule.metric}" + (f" {rule.count}" * (rule.count > 1)))
    if retention.keep_finished:
        for increment, commit in _finished(live).items():
            keep([commit], f"finished increment {increment}")
    for name, id_ in sorted(history.aliases.items()):
        reasons[id_].append(f"alias {name}")
    for id_ in sorted(history.pins):
        reasons[id_].append("pinned")
    return Decision({id_: tuple(found) for id_, found in reasons.items()})


def check_metrics(history: History, retention: Retention) -> None:
    """Raises `UsageError` if no checkpoint carries a metric that a rule goes by.

    For people who may have mistyped it: by such a rule alone, the best checkpoint would be lost.
    """
    known = {name for c in history.live() for name, value in c.metrics.items() if value is not None}
    for rule in retention.keep_best:
        if rule.metric not in known:
            raise UsageError(
                f"no checkpoint has the metric {rule.metric!r}",
                why=f"there are {', '.join(sorted(known)[:12])}" if known else "there are none",
                do="name one that `onward log` shows",
            )


def _milestones(live: list[Commit], every: int) -> list[Commit]:
    """Of each stretch of `every` steps the checkpoint of the lowest step; of equals, the newer."""
    first: dict[int, Commit] = {}
    for commit in live:
        stretch = commit.step // every
        if stretch and (stretch not in first or commit.step <= first[stretch].step):
            first[stretch] = commit
    return list(first.values())


def _best(live: list[Commit], rule: BestOf) -> list[Commit]:
    scored = [
        (-value if rule.lowest else value, place, commit)
        for place, commit in enumerate(live)
        if (value := commit.metrics.get(rule.metric)) is not None and value == value
    ]
    return [commit for _, _, commit in sorted(scored, key=lambda s: s[:2])[-rule.count :]]


def _finished(live: list[Commit]) -> dict[int, Commit]:
    return {commit.increment: commit for commit in live if commit.finished}


def _check_positive(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise UsageError(f"{name} is {value!r}", do="give a whole number above 0, or leave it out")
