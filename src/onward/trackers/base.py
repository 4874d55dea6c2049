"""What a tracker promises: one series per increment, one group per model, one step axis."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

Status: TypeAlias = Literal["finished", "killed", "failed"]
"""How a process left its increment: done; stopped, to be gone on with; or with an error."""


@dataclass(frozen=True, slots=True)
class Row:
    """The metrics of one step. `step` counts optimizer steps over the model's whole life."""

    step: int
    values: Mapping[str, float]
    time_s: float
    """When it was told, in seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Series:
    """What is shown as one run: an increment, of the model whose output has this repository.

    An increment that is gone on with is the same series, `name` and all. One that was begun again
    from the same checkpoint, or from an older one than its newest, is another.
    """

    repository: str
    output: str
    """The URL of the output, for people."""
    name: str
    """Such as `increment-2`, unlike all other series of this model."""
    increment: int
    step: int
    """The rows of this step and of later ones are told (again) from here on."""
    goes_on_at: int
    """The step of the checkpoint that training goes on from: later ones told before are rewound."""
    facts: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    finished: frozenset[str] = frozenset()
    """The names of the model's series that came to their end."""


class Tracker(Protocol):
    """Told by one thread, in order. Any exception means: not now; the same is told again later.

    A row that was told already must not be shown twice, whether this process told it or one that
    was killed. Where a killed process was ahead of the checkpoint that training goes on from, the
    same steps come again, with the same values; that this happened is to be recorded.
    """

    name: str

    def check(self, folder: Path | None) -> None:
        """Raises `UsageError` if this tracker cannot work here, as when it is not installed.

        Called when a run opens, so it is quick. `folder` is the output's, if it is a local one.
        """

    def begin(self, series: Series) -> None:
        """Begins a series, or goes on with the one of this name."""

    def tell(self, rows: Sequence[Row]) -> None:
        """Metrics of the series, their steps in order."""

    def tell_model(self, rows: Sequence[Row]) -> None:
        """Metrics of the model as it was when increments ended, from the first one on."""

    def note(self, facts: Mapping[str, str]) -> None:
        """Facts about the series: the newest checkpoint, the verdict. A later one replaces."""

    def end(self, status: Status) -> None:
        """This process tells nothing more of the series."""


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Nested plain values as names with dots and text."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)
