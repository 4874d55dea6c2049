"""What an upload must look like when the store reports it: length, and MD5 as in ETags."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future

from onward.stores.base import Chunk

_HASHED_AT_ONCE = 4


class Fingerprint:
    """Digests of an object, taken part by part on its way out.

    MD5 because it is what stores report without being asked, at no cost of theirs; it guards
    against accidents only. Parts are independent of each other, so that they are hashed at once.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._parts: list[tuple[int, bytes]] = []

    def add(self, part: Chunk) -> None:
        """Take the next part, exactly as it is uploaded."""
        self._note(len(part), _md5(part))

    def noting(self, parts: Iterable[Chunk], threads: Executor) -> Iterator[Chunk]:
        """The same parts, each taken as it passes: hashed in `threads` while it is uploaded.

        Complete once the iteration is through. At most a few parts wait to be hashed.
        """
        waiting: deque[tuple[int, Future[bytes]]] = deque()
        for part in parts:
            waiting.append((len(part), threads.submit(_md5, part)))
            yield part
            if len(waiting) == _HASHED_AT_ONCE:
                size_bytes, digest = waiting.popleft()
                self._note(size_bytes, digest.result())
        for size_bytes, digest in waiting:
            self._note(size_bytes, digest.result())

    def is_etag(self, etag: str | None) -> bool:
        """Whether `etag` proves that the store holds these bytes.

        False proves nothing: ETags of encrypted objects, for one, are not made from the content.
        """
        if etag is None or not self._parts:
            return False
        # One part uploaded as a multipart upload of one is "<md5 of md5>-1"; alone, it is its MD5.
        of_parts = _md5(b"".join(digest for _, digest in self._parts)).hex()
        expected = {f"{of_parts}-{len(self._parts)}"}
        if len(self._parts) == 1:
            expected.add(self._parts[0][1].hex())
        return etag.removeprefix("W/").strip('"').lower() in expected

    def is_content(self, pieces: Iterable[Chunk]) -> bool:
        """Whether `pieces`, cut in any way, are the same bytes."""
        largest = max([1, *(size_bytes for size_bytes, _ in self._parts)])
        found = Fingerprint()
        for part in in_parts((memoryview(piece).cast("B") for piece in pieces), largest):
            found.add(part)
        if not found._parts:
            found.add(b"")
        return found._parts == self._parts

    def _note(self, size_bytes: int, digest: bytes) -> None:
        self.size_bytes += size_bytes
        self._parts.append((size_bytes, digest))


def in_parts(views: Iterable[memoryview], part_bytes: int) -> Iterator[bytes | bytearray]:
    """The same bytes in parts of `part_bytes`, the last one shorter.

    Each part stays as it is while it is being uploaded, even if the source reuses its buffers: it
    is a buffer of its own, or a whole `bytes` object of the source, which nobody can change.
    """
    part, filled = bytearray(), 0
    for view in views:
        whole = view.obj
        if not filled and type(whole) is bytes and view.nbytes == len(whole) == part_bytes:
            yield whole
            continue
        while view.nbytes:
            if not filled:
                part = bytearray(part_bytes)
            taken = min(view.nbytes, part_bytes - filled)
            part[filled : filled + taken] = view[:taken]
            view, filled = view[taken:], filled + taken
            if filled == part_bytes:
                yield part
                filled = 0
    if filled:
        del part[filled:]
        yield part


def _md5(data: Chunk) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()
