"""Languages: an English message is its own key, and the other languages translate it.

`t("Jobs")` says a message; `tn` one that counts. `en.json` holds only the
messages whose English has a singular, `zh.json` all of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from onward.server.console.languages.sentences import Sentences

LANGUAGES = {"en": "English", "zh": "中文"}


@dataclass(frozen=True, slots=True)
class Language:
    """One language and how it writes numbers, sizes and durations."""

    code: str
    messages: Mapping[str, Any]

    def t(self, message: str, **facts: object) -> str:
        """The message in this language, its braces filled in. It is text, never HTML."""
        found = self.messages.get(message, message)
        text = found if isinstance(found, str) else found["other"]
        return text.format(**facts) if facts else text

    def tn(self, message: str, n: int, **facts: object) -> str:
        """A message that counts `n` things."""
        found = self.messages.get(message, message)
        if not isinstance(found, str):
            found = found["one"] if n == 1 else found["other"]
        return str(found.format(n=self.number(n), **facts))

    def said(self, text: str) -> str:
        """A sentence that the server wrote, in this language as far as it is known."""
        sentences = sentences_of(self.code)
        return text if sentences is None else sentences.said(text)

    def number(self, value: float | None, digits: int | None = None) -> str:
        """With thousands apart; both languages write them the same way."""
        if value is None:
            return "–"
        if isinstance(value, int):
            return f"{value:,}"
        if digits is not None:
            return f"{value:,.{digits}f}"
        if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"

    def percent(self, share: float | None, digits: int = 1) -> str:
        return "–" if share is None else f"{100 * share:.{digits}f}%"

    def size(self, count: float | None) -> str:
        """Bytes, in units of 1,000."""
        if count is None:
            return "–"
        value = float(count)
        for unit in ("B", "kB", "MB", "GB", "TB"):
            if abs(value) < 999.5 or unit == "TB":
                return f"{value:.0f} {unit}" if unit == "B" else f"{value:.3g} {unit}"
            value /= 1000
        raise AssertionError

    def duration(self, seconds: float | None) -> str:
        """The two largest units, such as `3 min 20 s`."""
        if seconds is None:
            return "–"
        whole = max(0, round(seconds))
        parts = []
        for unit, length in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
            count, whole = divmod(whole, length)
            if count:
                parts.append(f"{count} {self.t(unit)}")
        return " ".join(parts[:2]) or f"0 {self.t('s')}"


@cache
def sentences_of(code: str) -> Sentences | None:
    """None for English, in which they are written."""
    path = Path(__file__).parent / f"sentences.{code}.json"
    if not path.is_file():
        return None
    return Sentences(json.loads(path.read_text(encoding="utf-8")), language(code).t)


@cache
def language(code: str) -> Language:
    """One of `LANGUAGES`."""
    text = (Path(__file__).parent / f"{code}.json").read_text(encoding="utf-8")
    return Language(code, json.loads(text))


def choose(cookie: str | None, accepted: str) -> Language:
    """What the viewer chose, else the first of `Accept-Language` that there is, else English."""
    if cookie in LANGUAGES:
        return language(cookie)
    wishes = []
    for position, part in enumerate(accepted[:500].split(",")):
        tag, _, quality = part.strip().partition(";q=")
        try:
            weight = float(quality or 1)
        except ValueError:
            continue
        wishes.append((-weight, position, tag.split("-")[0].lower()))
    for weight, _, code in sorted(wishes):
        if code in LANGUAGES and weight < 0:
            return language(code)
    return language("en")
