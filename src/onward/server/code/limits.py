"""How much code may be: it is scripts, not data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes are in bytes. `ratio` is unpacked to packed, of archives over a mebibyte unpacked."""

    archive_bytes: int = 64 << 20
    total_bytes: int = 256 << 20
    file_bytes: int = 64 << 20
    files: int = 20_000
    depth: int = 32
    path_bytes: int = 1000
    ratio: int = 200
    git_s: float = 120.0
    git_bytes: int = 512 << 20
