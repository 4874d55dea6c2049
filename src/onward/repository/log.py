"""The log on a store: reading forward, appending one record at a time, the summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from onward.errors import (
    AlreadyExists,
    Conflict,
    Damaged,
    Fenced,
    Indeterminate,
    Missing,
    NotAnOutput,
    StoreError,
    Unreachable,
)
from onward.repository.documents import digest_of
from onward.repository.history import History
from onward.repository.records import AnyRecord, parse_record, record_bytes, record_key
from onward.repository.summary import read_summary, write_summary
from onward.stores.base import Store

SUMMARY_EVERY = 32
_PARALLEL_READS = 16

Build = Callable[[History], AnyRecord]
"""Makes the record to append from the history it will follow; raises if it may not follow."""


class Log:
    """The records of one output, folded into `history`.

    `exclusive` says whether the store honours create-if-absent. Where it does not, the user has
    promised a single writer; every append is read back, and a foreign record is a `Conflict`.
    """

    def __init__(self, store: Store, *, exclusive: bool = True) -> None:
        self.store = store
        self.exclusive = exclusive
        self.history = History()
        self._summary_seq = -1

    def load(self) -> History:
        """Reads the whole log, by way of the summary where one can be trusted."""
        summary = read_summary(self.store)
        if summary is not None:
            self.history = summary
            self._summary_seq = summary.seq
        self.refresh()
        if self.history.seq < 0:
            raise NotAnOutput(
                f"{self.store.url} is not an Onward output",
                why="it has no onward/log",
                do="check the location; a first training run makes one",
            )
        return self.history

    def refresh(self) -> list[AnyRecord]:
        """Reads and folds in what was appended since; returns those records."""
        fresh: list[AnyRecord] = []
        window = 1 if self.history.seq >= 0 else 2
        while True:
            start = self.history.seq + 1
            found = self._read_slots(start, window)
            for data in found:
                fresh.append(self._fold(data))
            if len(found) < window:
                return fresh
            window = min(window * 2, 64)

    def _read_slots(self, start: int, count: int) -> list[bytes]:
        """The records from `start`, up to `count`, without a gap."""
        if count == 1:
            one = self._read_slot(start)
            return [] if one is None else [one]
        with ThreadPoolExecutor(min(count, _PARALLEL_READS)) as pool:
            slots = list(pool.map(self._read_slot, range(start, start + count)))
        if None not in slots:
            return [data for data in slots if data is not None]
        gap = slots.index(None)
        if any(data is not None for data in slots[gap:]):
            # Either the log grew while it was read, or a record is gone: only then is the slot
            # still empty now that a later one has been seen.
            again = self._read_slot(start + gap)
            if again is None:
                raise Damaged(
                    f"log record {start + gap} is missing",
                    why="later records exist",
                    do="restore that file from a copy of the output",
                )
        return [data for data in slots[:gap] if data is not None]

    def _read_slot(self, seq: int) -> bytes | None:
        try:
            return self.store.read(record_key(seq))
        except Missing:
            return None

    def _fold(self, data: bytes) -> AnyRecord:
        record = parse_record(data, self.history.seq + 1)
        self.history.apply(record, digest_of(data))
        return record

    def append(self, build: Build, *, claimed_generation: int | None, deadline_s: float = 120.0) -> AnyRecord:
        """Appends the record that `build` makes, and returns it once it is durable.

        `claimed_generation` is the generation of a writer that claimed the output; a higher claim
        ends it with `Fenced`. `None` is for one who never claimed (aliases, drops, claims).
        Raises `Indeterminate` if the store does not say within `deadline_s` whether the record
        was stored.
        """
        deadline = time.monotonic() + deadline_s
        while True:
            self.refresh()
            self.check_fence(claimed_generation)
            record = build(self.history)
            self.history.check(record)
            if self._create(record, deadline):
                if record.seq - self._summary_seq >= SUMMARY_EVERY:
                    self._write_summary()
                return record

    def check_fence(self, claimed_generation: int | None) -> None:
        """Raises `Fenced` if somebody claimed the output after the given generation."""
        if claimed_generation is not None and self.history.generation > claimed_generation:
            raise Fenced(
                f"another writer took over {self.store.url}",
                why=f"{self.history.who} claimed it as generation {self.history.generation}; "
                f"this one was generation {claimed_generation}",
                do="let the new writer go on; nothing that was committed is lost",
            )

    def _create(self, record: AnyRecord, deadline: float) -> bool:
        """True once `record` stands in its slot, False if another record does (folded in)."""
        data = record_bytes(record)
        key = record_key(record.seq)
        pause_s = 0.05
        while True:
            answer: StoreError | None = None
            try:
                self.store.create(key, data)
                if self.exclusive:
                    self.history.apply(record, digest_of(data))
                    return True
            except (AlreadyExists, Unreachable) as error:
                answer = error
            # Whatever the store said, only the slot itself tells who won it.
            try:
                stored = self._read_slot(record.seq)
            except Unreachable as error:
                stored, answer = None, error
            if stored is not None:
                return self._fold_winner(stored, record)
            if time.monotonic() >= deadline:
                raise Indeterminate(
                    f"it is unknown whether log record {record.seq} was stored at {self.store.url}",
                    why=str(answer or "the slot reads as empty after a successful write"),
                    do="look with `onward log` once the store answers; nothing older is affected",
                ) from answer
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)

    def _fold_winner(self, stored: bytes, mine: AnyRecord) -> bool:
        won = self._fold(stored)
        if won.record == mine.record:
            return True
        if not self.exclusive:
            raise Conflict(
                f"log slot {won.seq} at {self.store.url} was taken by another writer",
                why=f"its record is a {type(won).__name__.lower()} of writer {won.writer}, although "
                "this output was opened for a single writer",
                do="stop the other writer; this store cannot keep two apart",
            )
        return False

    def _write_summary(self) -> None:
        try:
            write_summary(self.store, self.history)
        except StoreError:
            return  # only a cache: the log is complete without it
        self._summary_seq = self.history.seq

