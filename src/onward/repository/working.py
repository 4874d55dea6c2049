"""What a working copy says of itself: which output it copies, and how far it was pushed.

Whoever has only the folder (a script under an agent, a command) learns from it which checkpoints
are nowhere else yet. It lags behind the truth, never ahead: what it calls pushed, is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from onward.errors import Damaged, Missing, NewerFormat, OnwardError
from onward.repository.documents import FORMAT, MAX_RECORD_BYTES, convert, from_bytes, to_bytes
from onward.repository.history import History
from onward.repository.records import CheckpointId, Commit, Hex32, Text
from onward.repository.repository import Repository
from onward.stores.base import Store
from onward.stores.local import LocalStore

WORKING_KEY = "onward/working.json"


class Working(Struct, frozen=True, kw_only=True):
    """`pushed` is the newest local checkpoint that is pushed, as are all before it in the log."""

    format: int = FORMAT
    repository: Hex32
    url: Text
    pushed: CheckpointId | None


@dataclass(frozen=True, slots=True)
class Lag:
    """What is durable on this machine only: how many checkpoints, bytes of new packs, the age.

    `oldest_s` is by the clock that stamps records: for people.
    """

    checkpoints: int = 0
    size_bytes: int = 0
    oldest_s: float = 0.0


def write_working(store: Store, history: History, url: str) -> None:
    """Notes that every commit of `history`, the log of this working copy, is pushed."""
    pushed = next(reversed(history.commits), None)
    note_pushed(store, history.repository, url, pushed)


def note_pushed(store: Store, repository: str, url: str, pushed: str | None) -> None:
    """Notes that `pushed` and all before it in the local log are at the output."""
    working = Working(repository=repository, url=url, pushed=pushed)
    data = to_bytes(msgspec.to_builtins(working))
    store.put(WORKING_KEY, [data], len(data))


def read_working(store: Store) -> Working | None:
    """What the folder says; None if it is no working copy, or cannot be understood."""
    try:
        data = store.read(WORKING_KEY, 0, MAX_RECORD_BYTES)
        document = from_bytes(data, name=WORKING_KEY, max_bytes=MAX_RECORD_BYTES)
        return convert(document, Working, name=WORKING_KEY)
    except (Missing, Damaged, NewerFormat):
        return None


def unpushed_commits(history: History, working: Working) -> list[Commit]:
    """The commits of a working copy's log that are nowhere else, oldest first.

    All of them where its note is of another output, or of a checkpoint that the log does not know.
    """
    commits = list(history.commits.values())
    if working.repository != history.repository or working.pushed not in history.commits:
        return commits
    place = history.commits[working.pushed].seq
    return [commit for commit in commits if commit.seq > place]


def lag_of(commits: list[Commit], now: datetime | None = None) -> Lag:
    """How far pushing is behind, when these are not pushed."""
    if not commits:
        return Lag()
    now = now or datetime.now(UTC)
    try:
        oldest_s = (now - datetime.fromisoformat(commits[0].time)).total_seconds()
    except (ValueError, TypeError):
        oldest_s = 0.0
    return Lag(len(commits), sum(commit.stored for commit in commits), max(0.0, oldest_s))


class LagWatch:
    """Looks at a working copy from its folder alone, at any time and beside whoever pushes."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._repository = Repository(store)

    def unpushed(self) -> list[Commit]:
        """Commits that are not pushed yet, oldest first; none where there is nothing to read."""
        try:
            # The note first: what is committed after it only makes the lag larger.
            working = read_working(self._store)
            if working is None:
                return []
            if self._repository.history.seq < 0:
                self._repository.log.load()  # by way of the summary: the log may begin later
            self._repository.refresh()
        except OnwardError:
            self._repository = Repository(self._store)  # its log may have been replaced
            return []
        return unpushed_commits(self._repository.history, working)

    def look(self) -> Lag:
        """How far pushing is behind now."""
        return lag_of(self.unpushed())
