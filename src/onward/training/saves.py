"""The saves of a run: begun, merged, waited for; how each ended, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from onward.errors import Conflict, Fenced, RepositoryError, StoreError, Unsettled
from onward.repository import Commit, Facts
from onward.training.policy import SavePolicy
from onward.training.reporting import monotonic_s
from onward.training.saver import Saved, Saver


class Saves:
    """Between a run, which knows its state, and the saver, which stores it.

    `take` gives the state and the facts of a checkpoint with this reason, finished or not; `tell`
    is told each commit. A save that fails in the background costs its checkpoint, not the training,
    unless `on_failure` is "stop" or somebody else took over the output.
    """

    def __init__(
        self,
        saver: Saver,
        policy: SavePolicy,
        *,
        take: Callable[[str, bool], tuple[Any, Facts]],
        tell: Callable[[Commit], None],
        say: Callable[[str], None],
        on_failure: str,
    ) -> None:
        self.saver = saver
        self.policy = policy
        self.wanted = ""
        """Why a save is to come after the next step that finds no other on its way."""
        self._take = take
        self._tell = tell
        self._say = say
        self._on_failure = on_failure

    def now(self, reason: str, *, finished: bool = False) -> str:
        """Saves in this thread, after the one on its way; raises what went wrong."""
        self.settle(wait=True)
        state, facts = self._take(reason, finished)
        saved = self.saver.now(state, facts)
        self._begun(facts)
        if saved.error is not None:
            raise saved.error
        return self._told(saved)

    def start(self, reason: str) -> str:
        """Saves in the background; nothing else may be on its way. Returns the checkpoint's id."""
        state, facts = self._take(reason, False)
        checkpoint = self.saver.start(state, facts)
        self._begun(facts)
        return checkpoint

    def soon(self, reason: str) -> None:
        """Saves in the background, or, while another save is on its way, after a later step."""
        if self.saver.busy:
            self.wanted = reason
        else:
            self.start(reason)
            self.settle()  # without a staging copy it has ended

    def settle(self, *, wait: bool = False) -> None:
        """Takes note of how the save on its way ended, if it has; with `wait`, once it has."""
        saved = self.saver.ended(wait=wait)
        if saved is None:
            return
        error = saved.error
        if error is None:
            self.policy.observe(stall_s=saved.stall_s, durable_s=saved.durable_s)
            self._told(saved)
            return
        harmless = isinstance(error, StoreError | RepositoryError | Unsettled)
        if isinstance(error, Fenced | Conflict) or not harmless or self._on_failure == "stop":
            raise error
        self._say(f"step {saved.step} was NOT saved, training goes on: {error}")

    def _begun(self, facts: Facts) -> None:
        self.wanted = ""
        self.policy.saved(step=facts.step, now_s=monotonic_s())

    def _told(self, saved: Saved) -> str:
        assert saved.commit is not None
        self._tell(saved.commit)
        return saved.commit.checkpoint
