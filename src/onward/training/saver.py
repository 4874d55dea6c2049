"""Saving behind the training loop's back: one checkpoint at a time, in order, none forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from threading import Event, main_thread
from typing import Any

from onward.errors import OnwardError, SpaceLimit, Unsettled
from onward.repository import Commit, Draft, Facts, Writer
from onward.repository.records import Missed, for_people
from onward.repository.staging import TooLarge
from onward.training.courtesy import Courtesy
from onward.training.reporting import monotonic_s

_MISSED_TOLD = 20
_LOOK_FOR_ROOM_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Saved:
    """How one save ended: a commit, or the error that it met."""

    step: int
    commit: Commit | None
    error: OnwardError | None
    stall_s: float
    """How long the training loop stood still for it."""
    durable_s: float
    """From when it was asked for until it was durable."""


class Saver:
    """Stores the states that it is given, each as a child of the one before it.

    With a staging copy, `start` returns when the state is copied; without, when it is stored.
    """

    def __init__(
        self, writer: Writer, *, say: Callable[[str], None], at_once: bool = False
    ) -> None:
        self.newest: str | None = None
        """The newest checkpoint that exists: the next one's parent."""
        self.after_commit: list[Callable[[Commit], None]] = []
        """Called in the storing thread. An error of theirs is warned about, and no more."""
        self.give_up: Callable[[], bool] = lambda: False
        """Whether waiting for pushes to make room is in vain."""
        self.at_once = at_once
        """Whether tensors on an accelerator are copied at once, not during the next passes."""
        self._writer = writer
        self._say = say
        self._courtesy = Courtesy()
        self._pool = ThreadPoolExecutor(1, "onward-save", initializer=self._courtesy.give_way)
        self._future: Future[Saved] | None = None
        self._past = Event()  # nothing is on its way, or what is waits for pushes
        self._past.set()
        self._reserving: Future[None] | None = None
        self._priming: Future[None] | None = None
        self._staged = False
        self._missed: list[Missed] = []

    @property
    def busy(self) -> bool:
        """Whether a save is on its way, so that the next one must wait for its turn."""
        return self._future is not None or (self._priming is not None and not self._priming.done())

    def reserve(self, state: Any) -> None:
        """Makes memory ready, behind the loop's back, for saving states like this one."""

        def reserve() -> None:
            with suppress(TooLarge):  # the first save will say so
                self._writer.reserve(state)

        self._reserving = self._pool.submit(reserve)

    def prime(self, state: Any) -> None:
        """Compares the next save with `state`, as far as it is what was just restored.

        Not where something was saved since: what it staged may be on its way to the store.
        """
        if self._staged:
            return
        try:
            self._writer.prime(state)
        except TooLarge as error:
            self._do_without_staging(error)
        else:
            self._priming = self._pool.submit(self._writer.check_primed)

    def let_change(self) -> None:
        """Returns when parameters may change: called before each optimizer step."""
        if self._writer.staging is not None and not self._writer.staging.complete.is_set():
            with self._courtesy.awaited():
                self._writer.staging.complete.wait()

    def start(self, state: Any, facts: Facts) -> str:
        """Saves `state` in the background, once nothing else is on its way; returns its id."""
        assert self._future is None
        began_s = monotonic_s()
        draft = self._snapshot(state, at_once=self.at_once)
        stall_s = monotonic_s() - began_s
        if draft.slots is None:
            self._future = Future()
            saved = self._store(draft, facts, began_s, stall_s)
            self._future.set_result(replace(saved, stall_s=saved.durable_s))
        else:
            self._past.clear()
            self._future = self._pool.submit(self._store, draft, facts, began_s, stall_s)
            self._future.add_done_callback(lambda _: self._past.set())
        return draft.checkpoint

    def now(self, state: Any, facts: Facts) -> Saved:
        """Saves `state` in this thread; nothing else may be on its way."""
        assert self._future is None
        began_s = monotonic_s()
        draft = self._snapshot(state)
        return self._store(draft, facts, began_s, monotonic_s() - began_s)

    def let_pass(self) -> None:
        """Waits for the save on its way, but not for a store that lags: what waits for pushes to
        make room is left alone.
        """
        with self._courtesy.awaited():
            if self._priming is not None:
                self._priming.result()
            self._past.wait()

    def ended(self, *, wait: bool = False) -> Saved | None:
        """How the save in the background ended, told once; None if there is none or it goes on.

        With `wait`, nothing is on its way afterwards.
        """
        if wait and self._priming is not None:
            with self._courtesy.awaited():
                self._priming.result()
        future = self._future
        if future is None or not (wait or future.done()):
            return None
        with self._courtesy.awaited():
            saved = future.result()
        self._future = None
        return saved

    def close(self) -> None:
        """Lets go of threads and memory. What is on its way is stored first."""
        with self._courtesy.awaited():
            self._pool.shutdown()
        if self._writer.staging is not None:
            self._writer.staging.close()

    def _snapshot(self, state: Any, *, at_once: bool = True) -> Draft:
        # A save that is due would pay for its memory itself: it need not give way to that.
        for preparing in (self._reserving, self._priming):
            if preparing is not None:
                with self._courtesy.awaited():
                    preparing.result()
        self._reserving = self._priming = None
        self._staged = True
        try:
            return self._writer.snapshot(state, at_once=at_once)
        except TooLarge as error:
            self._do_without_staging(error)
            return self._writer.snapshot(state)

    def _do_without_staging(self, error: TooLarge) -> None:
        self._say(
            f"there is too little memory for a second copy of the state ({error}): training waits "
            "while a checkpoint is stored; staging=False says so from the start"
        )
        assert self._writer.staging is not None
        self._writer.staging.close()
        self._writer.staging = None

    def _store(self, draft: Draft, facts: Facts, began_s: float, stall_s: float) -> Saved:
        facts = replace(facts, parent=self.newest, missed=tuple(self._missed[:_MISSED_TOLD]))
        try:
            commit = self._store_once_there_is_room(draft, facts)
        except OnwardError as error:
            if isinstance(error, Unsettled):
                self.at_once = True  # so that the next one cannot meet this
            self._missed.append(Missed(facts.step, for_people(error.sentence())))
            return Saved(facts.step, None, error, stall_s, monotonic_s() - began_s)
        self._missed = []
        self.newest = commit.checkpoint
        durable_s = monotonic_s() - began_s
        for call in self.after_commit:
            try:
                call(commit)
            except OnwardError as error:
                self._say(str(error))
        return Saved(facts.step, commit, None, stall_s, durable_s)

    def _store_once_there_is_room(self, draft: Draft, facts: Facts) -> Commit:
        told = False
        while True:
            try:
                return self._writer.store_draft(draft, facts)
            except SpaceLimit as error:
                # Nor for a script that has ended without `finish` or `close`.
                if error.for_good or self.give_up() or not main_thread().is_alive():
                    raise
                if not told:
                    self._past.set()
                    self._say(f"saving step {facts.step} waits for pushes to make room: {error}")
                told = True
            time.sleep(_LOOK_FOR_ROOM_EVERY_S)
