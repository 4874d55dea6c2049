"""Bytes that a script printed as text that can only be read: nothing in it acts on who shows it."""

from __future__ import annotations

import re

LONGEST_LINE = 8192
"""Bytes of a line that are shown at once."""

# Escape sequences of terminals, then what is left of control characters (but for the tab), marks
# that turn the direction of text, and separators that some take for the end of a line.
_ESCAPES = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]?|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[PX^_][^\x1b]*(?:\x1b\\)?"
    r"|[ -/]*[0-~]?)|\x9b[0-?]*[ -/]*[@-~]?"
)
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def readable(data: bytes) -> str:
    """One line, without its end. A bar that drew itself anew shows as it was drawn last."""
    if data.endswith(b"\r"):
        data = data[:-1]
    _, found, last = data.rpartition(b"\r")
    text = (last if found else data).decode("utf-8", "replace")
    if text.isascii() and text.isprintable():
        return text
    return _UNSEEN.sub("", _ESCAPES.sub("", text))


def whole_characters(data: bytes) -> bytes:
    """`data` without a character at its end that is not all there."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            break
        if byte >= 0xC0:  # the first byte of a character says how many there are
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return data[:-back] if back < needed else data
    return data
