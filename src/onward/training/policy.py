"""When to save: every N steps, every T seconds, at an epoch's end, or any of them."""

from __future__ import annotations

from dataclasses import dataclass

from onward.errors import UsageError


@dataclass(slots=True)
class SavePolicy:
    """Says after which step a checkpoint is due. `None` turns a trigger off; triggers combine.

    Time is monotonic seconds, passed in. A save for any reason starts all intervals anew.
    """

    every_steps: int | None = None
    every_seconds: float | None = 600.0
    every_epoch: bool = True
    _last_step: int = 0
    _last_time: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("steps", self.every_steps), ("seconds", self.every_seconds)):
            if value is not None and not value > 0:
                raise UsageError(
                    f"save_every_{name} is {value!r}",
                    do="give a positive number, or None for never",
                )

    def saved(self, *, step: int, now_s: float) -> None:
        """A checkpoint was taken, or training began."""
        self._last_step = step
        self._last_time = now_s

    def due(self, *, step: int, now_s: float) -> str:
        """Why a save is due after this step, or '' if none is."""
        if self.every_steps is not None and step - self._last_step >= self.every_steps:
            return f"every {self.every_steps} steps"
        if self.every_seconds is not None and now_s - self._last_time >= self.every_seconds:
            return f"every {self.every_seconds:g} s"
        return ""
