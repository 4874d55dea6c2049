"""Takes the values of secrets out of what passes, also where one arrives in pieces."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MARK = b"[secret]"
_SHORTEST_LINE = 8


class Redactor:
    """Replaces secrets in a stream of bytes.

    What could be the beginning of a secret waits for what comes next; everything else passes at
    once, so that whoever follows a log sees a prompt or a bar as it is printed.
    """

    def __init__(self, values: Iterable[str]) -> None:
        self._words = sorted(_forms(values), key=len, reverse=True)
        self._pattern = re.compile(b"|".join(map(re.escape, self._words))) if self._words else None
        self._longest = len(self._words[0]) if self._words else 0
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What may be passed on."""
        if self._pattern is None:
            return data
        data = self._held + data
        passed = bytearray()
        at = 0
        hold = self._begins_secret(data, 0)
        # Most of what is printed holds no secret, and this finds that out much faster.
        found = any(word in data for word in self._words)
        for match in self._pattern.finditer(data) if found else ():
            if match.start() >= hold:
                break  # may be the beginning of a longer one
            passed += data[at : match.start()] + MARK
            at = match.end()
            if at > hold:
                hold = self._begins_secret(data, at)
        hold = max(hold, at)
        passed += data[at:hold]
        self._held = data[hold:]
        return bytes(passed)

    def finish(self) -> bytes:
        """What still waited: nothing comes any more."""
        held, self._held = self._held, b""
        return self._pattern.sub(MARK, held) if self._pattern is not None else held

    def whole(self, text: str) -> str:
        """A text that is complete."""
        if self._pattern is None:
            return text
        data = self._pattern.sub(MARK, text.encode("utf-8", "surrogateescape"))
        return data.decode("utf-8", "surrogateescape")

    def _begins_secret(self, data: bytes, first: int) -> int:
        """Where the longest end of `data` that is the beginning of a secret starts."""
        found = len(data)
        for word in self._words:
            at = data.find(word[:1], max(first, len(data) - len(word) + 1), found)
            while at >= 0:
                if word.startswith(data[at:]):
                    found = at
                    break
                at = data.find(word[:1], at + 1, found)
        return found


def _forms(values: Iterable[str]) -> set[bytes]:
    """Each value as programs tend to print it, and each line of those that have several."""
    found: set[bytes] = set()
    for value in values:
        lines = [line.strip() for line in value.splitlines()]
        for text in {value, value.strip(), *(x for x in lines if len(x) >= _SHORTEST_LINE)}:
            if not text:
                continue
            raw = text.encode("utf-8", "surrogateescape")
            found |= {
                raw, json.dumps(text)[1:-1].encode(), repr(text)[1:-1].encode("utf-8", "replace"),
                quote(raw, safe="").encode(), quote_plus(raw).encode(),
            }  # fmt: skip
            if len(raw) >= _SHORTEST_LINE:
                found.add(base64.b64encode(raw).rstrip(b"="))
    return found
