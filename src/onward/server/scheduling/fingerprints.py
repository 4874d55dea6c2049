"""Whether a location holds what it held before, from its listing alone."""

from __future__ import annotations

from blake3 import blake3

from onward.stores import Store

_BYTES = 32


def fingerprint(store: Store) -> str:
    """Of keys, sizes and versions, in whatever order they are listed; '' where there is nothing.

    A sum, so that nothing has to be kept or sorted, however many objects there are.
    """
    total, count = 0, 0
    for entry in store.list(""):
        facts = f"{len(entry.key)} {entry.key} {entry.size_bytes} {entry.version}"
        total += int.from_bytes(blake3(facts.encode("utf-8", "surrogatepass")).digest(), "big")
        count += 1
    if not count:
        return ""
    whole = f"{count} {total % 2 ** (8 * _BYTES)}"
    return blake3(whole.encode()).hexdigest()
