"""Numbers in sentences: sizes, counts, times."""

from __future__ import annotations


def size(size_bytes: float) -> str:
    """Such as `12.3 MB`."""
    if size_bytes < 1000:
        return f"{int(size_bytes)} B"
    for unit in ("kB", "MB", "GB", "TB"):
        size_bytes /= 1000
        if size_bytes < 999.95 or unit == "TB":
            break
    return f"{size_bytes:.1f} {unit}"


def counted(number: int, noun: str) -> str:
    """Such as `1 file`, `2,000 files`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def lasting(seconds: float) -> str:
    """Such as `35 s`, `12 min`, `3.4 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
