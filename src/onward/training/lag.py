"""How far pushing is behind, in words: always to be seen, said aloud only when it grows."""

from __future__ import annotations

from onward.repository.working import Lag
from onward.training.wording import counted, lasting, size

_PATIENCE_S = 10.0


def lag_text(lag: Lag) -> str:
    """Such as `2 checkpoints (1.2 GB, oldest 35 s) not pushed`; '' where all is pushed."""
    if not lag.checkpoints:
        return ""
    return (
        f"{counted(lag.checkpoints, 'checkpoint')} ({size(lag.size_bytes)}, oldest "
        f"{lasting(lag.oldest_s)}) not pushed"
    )


def waiting_text(lag: Lag) -> str:
    """Such as `waiting for 2 checkpoints, 1.2 GB, to be pushed`."""
    what = counted(lag.checkpoints, "checkpoint")
    return f"waiting for {what}, {size(lag.size_bytes)}, to be pushed"


class LagNotices:
    """What to say about a lag, and when.

    Behind by more than a save interval means that a checkpoint was saved while the one before is
    not pushed yet. That is said once it lasts, again each time its age has doubled, and once more
    when all is pushed.
    """

    def __init__(self, *, patience_s: float = _PATIENCE_S) -> None:
        self._patience_s = patience_s
        self._next_s = patience_s
        self._behind = False

    def about(self, lag: Lag) -> str:
        """A line for people, or ''."""
        if lag.checkpoints >= 2 and lag.oldest_s >= self._next_s:
            self._next_s = 2 * lag.oldest_s
            self._behind = True
            return f"pushing lags, training goes on: {lag_text(lag)}"
        if self._behind and not lag.checkpoints:
            self._next_s = self._patience_s
            self._behind = False
            return "pushing has caught up"
        return ""
