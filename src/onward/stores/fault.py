"""Faults on purpose: a wrapper that makes any store fail, lose replies or die at a chosen call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

from onward.errors import Unreachable
from onward.stores.base import Chunk, Entry, Store
from onward.stores.direct import holding, read_into

When: TypeAlias = Literal["before", "after"]
Answer = TypeVar("Answer")


class Died(BaseException):
    """The process is gone: raised instead of ending the test's own process.

    Not an `Exception`, so that no handler for errors mistakes it for one.
    """


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens at one call: the `at`-th, counted from 1 among calls of `verb` (or of any).

    `before` has no effect on the store; `after` has its full effect and loses the reply. The
    error is made by `error`; `Died` lasts: every later call dies too, without effect.
    """

    at: int
    when: When = "before"
    verb: str | None = None
    error: Callable[[], BaseException] = lambda: Unreachable("a fault, on purpose", do="try again")


@dataclass(frozen=True, slots=True)
class Call:
    """One call that was made: which verb, on what."""

    verb: str
    key: str


class FaultPlan:
    """Counts calls, keeps their trace, and lets the planned faults happen.

    Shared by wrappers around any interface: `perform` is given each call as a function.
    """

    def __init__(self, *faults: Fault) -> None:
        self.faults = faults
        self.calls: list[Call] = []
        self.dead = False
        self._counts: Counter[str | None] = Counter()
        self._lock = threading.Lock()

    def count(self, verb: str | None = None) -> int:
        """How many calls of `verb` were made so far, or of all verbs."""
        return self._counts[verb]

    def perform(self, verb: str, key: str, call: Callable[[], Answer]) -> Answer:
        """Do `call` unless a fault says otherwise."""
        with self._lock:
            if self.dead:
                raise Died(f"dead at {verb} {key}")
            self.calls.append(Call(verb, key))
            self._counts[verb] += 1
            self._counts[None] += 1
            due = [
                fault
                for fault in self.faults
                if fault.verb in (None, verb) and self._counts[fault.verb] == fault.at
            ]
        self._fail(due, "before")
        try:
            return call()
        finally:  # the reply is lost whether it is an answer or an error
            self._fail(due, "after")

    def _fail(self, due: list[Fault], when: When) -> None:
        for fault in due:
            if fault.when == when:
                error = fault.error()
                self.dead = isinstance(error, Died)
                raise error


def dies(at: int, *, when: When = "before", verb: str | None = None) -> Fault:
    """The process ends at this call, before or after its effect."""
    return Fault(at, when, verb, lambda: Died(f"at call {at}"))


class Faulty:
    """A store with a plan of faults; without faults it just keeps the trace.

    A listing counts as one call, made when its first entry is asked for.
    """

    def __init__(self, store: Store, plan: FaultPlan | None = None) -> None:
        self.store = store
        self.plan = plan or FaultPlan()

    @property
    def url(self) -> str:
        return self.store.url

    def create(self, key: str, data: bytes) -> None:
        self.plan.perform("create", key, lambda: self.store.create(key, data))

    def put(self, key: str, chunks: Iterable[Chunk], size_bytes: int) -> None:
        self.plan.perform("put", key, lambda: self.store.put(key, chunks, size_bytes))

    def read(self, key: str, start: int = 0, size_bytes: int | None = None) -> bytes:
        return self.plan.perform("read", key, lambda: self.store.read(key, start, size_bytes))

    def read_into(self, key: str, start: int, target: memoryview) -> int:
        call = lambda: read_into(self.store, key, start, target)  # noqa: E731
        return self.plan.perform("read", key, call)

    @contextmanager
    def holding(self, keys: Iterable[str]) -> Iterator[Faulty]:
        # No call of its own: what it cannot open is missing when it is read.
        with holding(self.store, keys) as held:
            yield Faulty(held, self.plan)

    def size(self, key: str) -> int:
        return self.plan.perform("size", key, lambda: self.store.size(key))

    def list(self, prefix: str) -> Iterator[Entry]:
        yield from self.plan.perform("list", prefix, lambda: [*self.store.list(prefix)])

    def delete(self, key: str) -> None:
        self.plan.perform("delete", key, lambda: self.store.delete(key))
