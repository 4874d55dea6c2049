"""When to save: every N steps, every T seconds, at an epoch's end, or any of them."""

from __future__ import annotations

from dataclasses import dataclass

from onward.errors import UsageError
from onward.training.interval import MeasuredInterval


@dataclass(slots=True)
class SavePolicy:
    """Says after which step a checkpoint is due. `None` turns a trigger off; triggers combine.

    Time is monotonic seconds, passed in. A save for any reason starts all intervals anew. With
    `measured`, what saves cost decides about the seconds.
    """

    every_steps: int | None = None
    every_seconds: float | None = 600.0
    every_epoch: bool = True
    measured: MeasuredInterval | None = None
    _last_step: int = 0
    _last_time: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.every_steps), ("seconds", self.every_seconds)):
            if value is not None and not value > 0:
                raise UsageError(
                    f"save_every_{name} is {value!r}",
                    do="give a positive number, or None for never",
                )

    @property
    def seconds(self) -> float | None:
        """The interval in seconds, as it is now."""
        return self.every_seconds if self.measured is None else self.measured.seconds

    def saved(self, *, step: int, now_s: float) -> None:
        """A checkpoint was taken, or training began."""
        self._last_step = step
        self._last_time = now_s

    def observe(self, *, stall_s: float, durable_s: float) -> None:
        """A save cost the training so much, and took so long until it was durable."""
        if self.measured is not None:
            self.measured.observe(stall_s=stall_s, durable_s=durable_s)

    def due(self, *, step: int, now_s: float) -> str:
        """Why a save is due after this step, or '' if none is."""
        if self.every_steps is not None and step - self._last_step >= self.every_steps:
            return f"every {self.every_steps} steps"
        seconds = self.seconds
        if seconds is not None and now_s - self._last_time >= seconds:
            return f"every {seconds:.3g} s" if self.measured else f"every {seconds:g} s"
        return ""

    def about(self) -> dict[str, float]:
        """How the interval was chosen, for people; empty where the user chose it."""
        return self.measured.about() if self.measured is not None else {}
