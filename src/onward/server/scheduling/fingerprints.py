"""Whether a location holds what it held before, from its listing alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from blake3 import blake3

from onward.stores import Entry, Store

_BYTES = 32


def fingerprint(open_at: Callable[[str], Store], location: str) -> str:
    """Of the folder or the one object at `alias:path`; '' where there is nothing."""
    found = fingerprint_of(open_at(location).list(""))
    if found:
        return found
    alias, _, path = location.partition(":")
    above, _, name = path.rpartition("/")
    if not name:
        return ""
    entries = open_at(f"{alias}:{above}").list(name)
    return fingerprint_of(entry for entry in entries if entry.key == name)


def fingerprint_of(entries: Iterable[Entry]) -> str:
    """Of keys, sizes and versions, in whatever order they are listed; '' where there is none.

    A sum, so that nothing has to be kept or sorted, however many objects there are.
    """
    total, count = 0, 0
    for entry in entries:
        facts = f"{len(entry.key)} {entry.key} {entry.size_bytes} {entry.version}"
        total += int.from_bytes(blake3(facts.encode("utf-8", "surrogatepass")).digest(), "big")
        count += 1
    if not count:
        return ""
    whole = f"{count} {total % 2 ** (8 * _BYTES)}"
    return blake3(whole.encode()).hexdigest()
