"""What a report is made from: an output's history, its bill, its curves. Reads; changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

from onward.errors import OnwardError, Unreachable
from onward.learning.bill import Bill, Told, learning_of, make_bill, teller
from onward.learning.rounds import Round, rounds, telling
from onward.repository import Commit, History, Repository

_READS_AT_ONCE = 8
_POINTS_A_METRIC = 1200
_NAME = 60

Points = list[tuple[float, float | None]]
"""(optimizer step of the model's life, value); None where the value was not finite."""


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric over the model's life: the points of each round that has any."""

    metric: str
    lines: Sequence[tuple[int, Points]]
    """(position of the round in `Facts.rounds`, its points by step)."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that text, JSON and page show."""

    url: str
    history: History
    rounds: Sequence[Round]
    bill: Bill
    curves: Sequence[Curve]
    unreadable: Mapping[str, str]
    """Checkpoints whose manifest could not be read, and why."""


def gather(repository: Repository) -> Facts:
    """Reads the manifests that tell what increments cost; one that is damaged is only noted.

    Raises `Unreachable` where the store does not answer.
    """
    history = repository.history
    found = rounds(history)
    told: dict[str, Told] = {}
    unreadable: dict[str, str] = {}

    def read(commit: Commit) -> Told | str:
        try:
            manifest = repository.manifest(commit)
        except Unreachable:
            raise
        except OnwardError as error:
            return error.what + (f": {error.why}" if error.why else "")
        return Told(manifest.about, manifest.verb)

    wanted = telling(found, history)
    with ThreadPoolExecutor(_READS_AT_ONCE) as pool:
        for commit, answer in zip(wanted, pool.map(read, wanted), strict=True):
            if isinstance(answer, Told):
                told[commit.checkpoint] = answer
            else:
                unreadable[commit.checkpoint] = answer
    return Facts(
        repository.store.url, history, found, make_bill(history, told), curves(found, told),
        unreadable,
    )  # fmt: skip


def curves(found: Sequence[Round], told: Mapping[str, Told]) -> list[Curve]:
    """One curve for each metric, in the order in which they first appear.

    From `about["learning"]["curve"]` where a round has one for the metric, else from its
    checkpoints' metrics.
    """
    by_metric: dict[str, list[tuple[int, Points]]] = {}
    for position, its in enumerate(found):
        drawn = _told_points(its, told)
        for metric, points in [*drawn.items(), *_saved_points(its).items()]:
            if metric in drawn and points is not drawn[metric]:
                continue
            by_metric.setdefault(metric, []).append((position, points))
    return [Curve(metric, _thinned(lines)) for metric, lines in by_metric.items()]


def _told_points(its: Round, told: Mapping[str, Told]) -> dict[str, Points]:
    commit = teller(its, told)
    if commit is None:
        return {}
    curve = learning_of(told[commit.checkpoint].about).get("curve")
    if not isinstance(curve, Sequence) or isinstance(curve, str):
        return {}
    found: dict[str, Points] = {}
    for entry in curve:
        if not (isinstance(entry, Sequence) and len(entry) == 2 and isinstance(entry[1], Mapping)):
            continue
        step = _plain_number(entry[0])
        for name, value in entry[1].items() if step is not None else ():
            found.setdefault(str(name)[:_NAME], []).append((step or 0, _plain_number(value)))
    # Steps are counted over the model's life; a writer that counted from the increment's beginning
    # is understood too.
    last = max((points[-1][0] for points in found.values()), default=0)
    shift = its.start_step if last <= commit.step - its.start_step else 0
    return {
        name: sorted(((step + shift, value) for step, value in points), key=lambda p: p[0])
        for name, points in found.items()
    }


def _saved_points(its: Round) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for commit in its.path():
        for name, value in commit.metrics.items():
            found.setdefault(name[:_NAME], []).append((commit.step, _plain_number(value)))
    return found


def _thinned(lines: list[tuple[int, Points]]) -> list[tuple[int, Points]]:
    every = -(-sum(len(points) for _, points in lines) // _POINTS_A_METRIC)
    if every <= 1:
        return lines
    return [
        (position, [*islice(points[:-1], 0, None, every), points[-1]]) for position, points in lines
    ]


def _plain_number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) <= 1e300 else None
