"""The log on a store: reading forward, appending one record at a time, the summary."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile

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
from onward.repository.documents import MAX_RECORD_BYTES, digest_of
from onward.repository.history import History
from onward.repository.records import AnyRecord, parse_record, record_bytes, record_key
from onward.repository.summary import read_summary, write_summary
from onward.stores.base import Store

SUMMARY_EVERY = 16  # so that opening an output takes fewer than 50 requests, the probe included
# How many slots are read at once. Beyond the head that is wasted, so that with a fresh summary few
# are; it is also how large a hole in the log may be to be told from its end when it is opened.
_AHEAD = 8
_AT_ONCE = 64
_THREADS = 16
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0

Build = Callable[[History], AnyRecord]
"""Makes the record to append from the history it will follow; raises if it may not follow."""


class Log:
    """The records of one output, folded into `history`.

    `exclusive` says whether the store honours create-if-absent. Where it does not, the user has
    promised a single writer; every append is read back, and a foreign record is a `Conflict`.
    """

    def __init__(
        self,
        store: Store,
        *,
        exclusive: bool = True,
        deadline_s: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.store = store
        self.exclusive = exclusive
        self.history = History()
        self._deadline_s = deadline_s
        self._clock = clock
        self._sleep = sleep
        self._summary_seq = -1

    def load(self) -> History:
        """Reads the whole log, by way of the summary where one can be trusted."""
        summary = read_summary(self.store)
        if summary is not None:
            self.history = summary
            self._summary_seq = summary.seq
        self.refresh(ahead=_AHEAD - 1)
        if self.history.seq < 0:
            raise NotAnOutput(
                f"{self.store.url} is not an Onward output",
                why="it has no onward/log",
                do="check the location; a first training run makes one",
            )
        return self.history

    def refresh(self, *, ahead: int = 0) -> list[AnyRecord]:
        """Reads and folds in what was appended since; returns those records.

        Raises `Damaged` where a record is missing although one of the `ahead` behind it exists.
        """
        fresh: list[AnyRecord] = []
        window = ahead + 1
        while True:
            start = self.history.seq + 1
            slots = self._read_slots(start, window)
            found = list(takewhile(lambda data: data is not None, slots))
            fresh += [self._fold(data) for data in found if data is not None]
            if len(found) == window:
                window = min(window * 2, _AHEAD if len(fresh) < SUMMARY_EVERY else _AT_ONCE)
                continue
            beyond = slots[len(found) + 1 :]
            beyond += self._read_slots(start + window, ahead - len(beyond))
            if all(data is None for data in beyond):
                return fresh
            fresh.append(self._fold(self._read_skipped_slot()))

    def append(
        self, build: Build, *, claimed_generation: int | None, deadline_s: float | None = None
    ) -> AnyRecord:
        """Appends the record that `build` makes, and returns it once it is durable.

        `claimed_generation` is the generation of a writer that claimed the output; a higher claim
        ends it with `Fenced`. `None` is for one who never claimed (aliases, drops, claims).
        Raises `Indeterminate` if the store does not say within `deadline_s` whether the record
        was stored; any other error means that it was not.
        """
        deadline = self._clock() + (self._deadline_s if deadline_s is None else deadline_s)
        while True:
            self._check_head()
            self.refresh()
            self.check_fence(claimed_generation)
            record = build(self.history)
            self.history.check(record)
            if self._create(record, record_bytes(record), deadline):
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

    # Reading.

    def _read_slots(self, start: int, count: int) -> list[bytes | None]:
        if count <= 1:
            return [self._read_slot(seq) for seq in range(start, start + count)]
        with ThreadPoolExecutor(min(count, _THREADS)) as pool:
            return list(pool.map(self._read_slot, range(start, start + count)))

    def _read_slot(self, seq: int) -> bytes | None:
        try:
            return self.store.read(record_key(seq), 0, MAX_RECORD_BYTES + 1)
        except Missing:
            return None

    def _read_skipped_slot(self) -> bytes:
        """The next record, which was not there a moment ago although a later one was.

        Either the log grew meanwhile, or a record is gone: only then is it still not there.
        """
        seq = self.history.seq + 1
        data = self._read_slot(seq)
        if data is None:
            raise Damaged(
                f"log record {seq} at {self.store.url} is missing",
                why="later records exist",
                do="restore that file from a copy of the output",
            )
        return data

    def _fold(self, data: bytes) -> AnyRecord:
        record = parse_record(data, self.history.seq + 1)
        self.history.apply(record, digest_of(data))
        return record

    # Appending.

    def _create(self, record: AnyRecord, data: bytes, deadline: float) -> bool:
        """True once `record` stands in its slot, False if another record does (folded in)."""
        pause_s = 0.0
        while True:
            answer = self._answer_to_create(record.seq, data)
            if answer is None and self.exclusive:
                self.history.apply(record, digest_of(data))
                return True
            vouched = answer is None or isinstance(answer, AlreadyExists)
            refused = not vouched and not isinstance(answer, Unreachable)
            # Whatever the store said, only the slot itself tells who won it.
            unread: StoreError | None = None
            try:
                stored = self._read_slot(record.seq)
            except StoreError as error:
                stored, unread = None, error
            if stored is not None:
                mine = parse_record(stored, record.seq).record == record.record
                # Our own, but the store has not vouched for it: it may not outlive a power cut.
                # Creating it again makes the store say so, where that cannot overwrite another.
                if not mine or vouched or not self.exclusive:
                    return self._fold_winner(stored, mine=mine)
            elif unread is None and refused and answer is not None:
                raise answer
            lost = unread is not None and not isinstance(unread, Unreachable)
            if refused or lost or self._clock() >= deadline:
                why = answer or unread or "the slot reads as empty after a successful write"
                raise Indeterminate(
                    f"it is unknown whether log record {record.seq} was stored at {self.store.url}",
                    why=str(why),
                    do="look with `onward log` once the store answers; nothing older is affected",
                ) from (answer or unread)
            self._sleep(pause_s)
            pause_s = min(pause_s * 2 or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)

    def _answer_to_create(self, seq: int, data: bytes) -> StoreError | None:
        try:
            self.store.create(record_key(seq), data)
        except StoreError as error:
            return error
        return None

    def _fold_winner(self, stored: bytes, *, mine: bool) -> bool:
        won = self._fold(stored)
        if not mine and not self.exclusive:
            raise self._conflict(won)
        return mine

    def _check_head(self) -> None:
        """Raises `Conflict` if the head was overwritten, where the store lets anybody do that."""
        if self.exclusive or self.history.seq < 0:
            return
        data = self._read_slot(self.history.seq)
        if data is None or digest_of(data) != self.history.head_digest:
            raise self._conflict(None if data is None else parse_record(data, self.history.seq))

    def _conflict(self, found: AnyRecord | None) -> Conflict:
        seq = self.history.seq if found is None else found.seq
        what = "it is gone"
        if found is not None:
            what = f"its record is a {type(found).__name__.lower()} of writer {found.writer}"
        return Conflict(
            f"log slot {seq} at {self.store.url} was taken by another writer",
            why=f"{what}, although this output was opened for a single writer",
            do="stop the other writer; this store cannot keep two apart",
        )

    def _write_summary(self) -> None:
        try:
            write_summary(self.store, self.history)
        except StoreError:
            return  # only a cache: the log is complete without it
        self._summary_seq = self.history.seq
