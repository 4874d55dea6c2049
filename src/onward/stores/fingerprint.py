"""What an upload must look like when the store reports it: length, MD5 as in ETags, BLAKE3."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import blake3

from onward.stores.base import Chunk


class Fingerprint:
    """Digests of an object, taken part by part on its way out.

    MD5 is here because it is what stores report without being asked; it guards against accidents
    only. BLAKE3 is for the stores whose ETag is something else.
    """

    def __init__(self) -> None:
        self.size_bytes = 0
        self._parts_md5: list[bytes] = []
        self._blake3 = blake3.blake3()

    def add(self, part: Chunk) -> None:
        """Take the next part, exactly as it is uploaded."""
        self.size_bytes += len(part)
        self._parts_md5.append(hashlib.md5(part, usedforsecurity=False).digest())
        self._blake3.update(part)

    def noting(self, parts: Iterable[bytearray]) -> Iterator[bytearray]:
        """The same parts, each taken as it passes."""
        for part in parts:
            self.add(part)
            yield part

    def is_etag(self, etag: str | None) -> bool:
        """Whether `etag` proves that the store holds these bytes.

        False proves nothing: ETags of encrypted objects, for one, are not made from the content.
        """
        if etag is None or not self._parts_md5:
            return False
        # One part uploaded as a multipart upload of one is "<md5 of md5>-1"; alone, it is its MD5.
        of_parts = hashlib.md5(b"".join(self._parts_md5), usedforsecurity=False).hexdigest()
        expected = {f"{of_parts}-{len(self._parts_md5)}"}
        if len(self._parts_md5) == 1:
            expected.add(self._parts_md5[0].hex())
        return etag.removeprefix("W/").strip('"').lower() in expected

    def is_content(self, pieces: Iterable[Chunk]) -> bool:
        """Whether `pieces`, cut in any way, are the same bytes."""
        content = blake3.blake3()
        size_bytes = 0
        for piece in pieces:
            content.update(piece)
            size_bytes += len(piece)
        same_length = size_bytes == self.size_bytes
        return same_length and content.digest() == self._blake3.digest()


def in_parts(views: Iterable[memoryview], part_bytes: int) -> Iterator[bytearray]:
    """The same bytes in parts of `part_bytes`, the last one shorter.

    Each part is a buffer of its own: it stays as it is while it is being uploaded, even if the
    source reuses its buffers.
    """
    part, filled = bytearray(part_bytes), 0
    for view in views:
        while view.nbytes:
            taken = min(view.nbytes, part_bytes - filled)
            part[filled : filled + taken] = view[:taken]
            view, filled = view[taken:], filled + taken
            if filled == part_bytes:
                yield part
                part, filled = bytearray(part_bytes), 0
    if filled:
        del part[filled:]
        yield part
