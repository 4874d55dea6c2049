"""Leftovers: packs and manifests that no record names, of saves that were cut off.

One may belong to a save in flight, whose record is yet to come. What tells is the log: a leftover
that was seen under one generation was stored by a writer whom the next claim fences, so that under
a higher generation no record can ever name it. What was seen, and when, is kept in a note.
"""

from __future__ import annotations

from msgspec import Struct, to_builtins

from onward.errors import Damaged, Missing, NewerFormat
from onward.repository.collecting import Collector, stem
from onward.repository.documents import (
    FORMAT,
    MAX_SUMMARY_BYTES,
    check_seal,
    convert,
    from_bytes,
    sealed,
)
from onward.repository.history import History
from onward.repository.manifest import manifest_key
from onward.repository.packs import pack_key
from onward.repository.records import Count

NOTE_KEY = "onward/leftovers.json"


class _Note(Struct, frozen=True, kw_only=True):
    """Keys that were leftovers when the log had so many claims."""

    format: int = FORMAT
    generation: Count = 0
    keys: list[str] = []


class Leftovers:
    """Finds leftovers, and deletes those that cannot become anything else any more."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._store = collector.repository.store

    def due(self) -> list[str]:
        """The keys that a sweep would delete now."""
        return self._due(self._found()[1], self._note())

    def sweep(self) -> int:
        """Deletes what is due and notes the others for a later sweep; returns how many went."""
        generation, found = self._found()
        note = self._note()
        due = self._due(found, note)
        for key in due:
            self._store.delete(key)
        rest = _Note(generation=generation, keys=sorted(found.difference(due)))
        if rest.keys != note.keys or (rest.keys and rest.generation != note.generation):
            data = sealed(to_builtins(rest))
            self._store.put(NOTE_KEY, [data], len(data))
        return len(due)

    def _due(self, found: set[str], note: _Note) -> list[str]:
        fenced = note.generation < self._collector.repository.history.generation
        return sorted(found.intersection(note.keys)) if fenced else []

    def _found(self) -> tuple[int, set[str]]:
        """The generation, and the leftovers that were stored before it was read.

        The order matters: whatever is listed was written under this generation or an earlier one.
        With a damaged manifest it is unknown what it needs: then nothing is a leftover.
        """
        store = self._store
        listed = [
            entry.key
            for folder, key in (("onward/packs/", pack_key), ("onward/manifests/", manifest_key))
            for entry in store.list(folder)
            if key(stem(entry.key)) == entry.key
        ]
        history = self._collector.repository.refresh()
        try:
            needed = _needed(self._collector, history)
        except (Damaged, NewerFormat):
            return history.generation, set()
        return history.generation, set(listed) - needed

    def _note(self) -> _Note:
        try:
            data = self._store.read(NOTE_KEY, 0, MAX_SUMMARY_BYTES + 1)
            check_seal(data, name=NOTE_KEY)
            document = from_bytes(data, name=NOTE_KEY, max_bytes=MAX_SUMMARY_BYTES)
            return convert(document, _Note, name=NOTE_KEY)
        except (Missing, Damaged, NewerFormat):
            return _Note()  # only a note: what is a leftover is seen again


def _needed(collector: Collector, history: History) -> set[str]:
    """What records name: for checkpoints that live, or to be deleted by a sweep."""
    live = history.live()
    packs = {pack for found in collector.reach.of(live).values() for pack in found}
    names = {history.manifest_place(commit).name for commit in live}
    return {pack_key(pack) for pack in packs | history.condemned} | {
        manifest_key(name) for name in names | history.outdated_at.keys()
    }
