"""What stores check alike: prefixes to list, and chunks against their promised length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from onward.errors import BadURL, StoreError
from onward.stores.base import Chunk, checked_key


def checked_prefix(prefix: str) -> str:
    """`prefix` itself if some valid key can start with it, else `BadURL`.

    Its last part may be any beginning of a name: `logs/`, `logs/2` and the empty text are fine.
    """
    folder, slash, start = prefix.rpartition("/")
    if slash:
        checked_key(folder)
    if start.strip("."):
        checked_key(start)
    return prefix


def is_key(text: str) -> bool:
    """Whether `text`, found in a listing, can be used as a key everywhere."""
    try:
        checked_key(text).encode()
    except (BadURL, UnicodeEncodeError):
        return False
    return True


def counted(chunks: Iterable[Chunk], size_bytes: int, key: str) -> Iterator[memoryview]:
    """The chunks as bytes, none of them empty; `StoreError` if they are not `size_bytes` long.

    The error comes before a byte too many is handed out, or instead of an early end.
    """
    seen_bytes = 0
    for chunk in chunks:
        view = memoryview(chunk)
        seen_bytes += view.nbytes
        if seen_bytes > size_bytes:
            raise _wrong_length(key, f"at least {seen_bytes:,}", size_bytes)
        if view.nbytes:
            yield view.cast("B")
    if seen_bytes != size_bytes:
        raise _wrong_length(key, f"{seen_bytes:,}", size_bytes)


def _wrong_length(key: str, seen: str, size_bytes: int) -> StoreError:
    return StoreError(
        f"{key!r} was not stored",
        why=f"{size_bytes:,} bytes were promised, but {seen} came",
        do="if it is a file, let nobody write to it while it is copied",
    )
