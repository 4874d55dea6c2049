"""Sentences that the server wrote in English, in other languages: reasons, errors, refusals.

They are written where they arise, into the database and into answers of the API, and stay English
there. A page that shows one looks up the template that it was made from, such as `waits for a free
slot: {1} of {2} are taken`, and fills in what stood in its places. What is no sentence of the
server (a script's words, a name, a store's own message) is shown as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

_PLACE = re.compile(r"\{([0-9])\}")
_LONGEST = 4000
_MOST_PARTS = 12


@dataclass(frozen=True, slots=True)
class _Template:
    """`letters` are those that are its own: of two that fit, the one that has more is meant."""

    pattern: re.Pattern[str]
    translated: str
    letters: int


class Sentences:
    """The sentences of one language. `word` translates what is none: a state, a cause."""

    def __init__(self, translations: Mapping[str, str], word: Callable[[str], str]) -> None:
        self._whole = {text: each for text, each in translations.items() if "{1}" not in text}
        made = [_template(text, each) for text, each in translations.items() if "{1}" in text]
        self._templates = sorted(made, key=lambda each: -each.letters)
        self._word = word
        self.said = lru_cache(maxsize=4096)(self._said)

    def _said(self, text: str) -> str:
        """The sentences, each line by itself, as far as they are known."""
        if not text or len(text) > _LONGEST:
            return text
        return "\n".join(self._line(line) for line in text.split("\n"))

    def _line(self, text: str) -> str:
        """Sentences are joined by semicolons, and some have one: the longest known counts."""
        parts, found, known = text.split("; ", _MOST_PARTS), [], False
        while parts:
            for count in range(len(parts), 0, -1):
                translated = self._sentence("; ".join(parts[:count]))
                if translated is not None:
                    break
            known |= translated is not None
            found.append(parts[0] if translated is None else translated)
            parts = parts[count:]
        return "；".join(found) if known else text

    def _sentence(self, text: str) -> str | None:
        """None for what is none of ours; of `what: why` one part may be."""
        found = self._whole.get(text)
        if found is not None:
            return found
        for template in self._templates:
            match = template.pattern.fullmatch(text)
            if match is not None:
                return self._filled(template, match)
        first, colon, rest = text.partition(": ")
        if colon:
            parts = (self._sentence(first), self._sentence(rest))
            if any(parts):
                return f"{parts[0] or first}：{parts[1] or rest}"
        return None

    def _filled(self, template: _Template, match: re.Match[str]) -> str:
        def place(found: re.Match[str]) -> str:
            text = match[int(found[1])]
            return self._sentence(text) or self._word(text)

        return _PLACE.sub(place, template.translated)


def _template(text: str, translated: str) -> _Template:
    pattern, seen = "", set()
    for index, part in enumerate(_PLACE.split(text)):
        if index % 2 == 0:
            pattern += re.escape(part)
        elif part in seen:
            pattern += f"(?P=_{part})"
        else:
            seen.add(part)
            pattern += f"(?P<_{part}>(?:(?!; ).)+?)"
    letters = len(_PLACE.sub("", text))
    return _Template(re.compile(pattern), translated, letters)
