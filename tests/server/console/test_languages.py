"""Every text of the console in every language, and numbers as each writes them."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter

import pytest

import onward.server.console
from onward.server.console.languages import choose, language
from onward.server.console.words import WORDS

_SAID = re.compile(r"""\b(tn?)\(\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')""")
_FOLDER = Path(onward.server.console.__file__).parent


def said() -> dict[str, str]:
    """Every message that templates and code say, and by which function."""
    found = dict.fromkeys(WORDS, "t")
    for path in (*_FOLDER.rglob("*.html"), *_FOLDER.rglob("*.py")):
        for how, one, other in _SAID.findall(path.read_text(encoding="utf-8")):
            found[one or other] = how
    return found


def test_every_message_is_translated_and_no_translation_is_left_over() -> None:
    """A message that is not in the table would be English among Chinese."""
    chinese = language("zh").messages
    assert {m for m in said() if m not in chinese} == set()
    assert {m for m in chinese if m not in said()} == set()
    assert {m for m in language("en").messages if m not in said()} == set()


def test_every_message_that_counts_has_an_english_singular() -> None:
    """`1 jobs` is no English; Chinese has one form."""
    english = language("en").messages
    for message, how in said().items():
        if how == "tn":
            assert set(english[message]) == {"one", "other"}, message


def test_translations_fill_in_the_same_facts() -> None:
    """A brace that is missing loses a fact, one too many is an error when a page is shown."""

    def braces(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name}

    for message, translated in language("zh").messages.items():
        assert braces(translated) == braces(message), message
    for message, forms in language("en").messages.items():
        assert all(braces(form) <= braces(message) for form in forms.values()), message


@pytest.mark.parametrize(
    ("cookie", "accepted", "expected"),
    [
        (None, "", "en"), (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"), (None, "fr, zh;q=0.1", "zh"),
        (None, "en;q=0.5, zh;q=0.9", "zh"), ("en", "zh", "en"), ("xx", "zh", "zh"),
        (None, "zh;q=0, en", "en"), (None, "zh;q=x", "en"), (None, ";;;,", "en"),
    ],
)  # fmt: skip
def test_the_viewers_choice_is_followed(cookie: str | None, accepted: str, expected: str) -> None:
    """The switch first, then the browser's order, then English."""
    assert choose(cookie, accepted).code == expected


def test_counts_sizes_and_durations_read_well_in_both() -> None:
    """Plural, thousands, units."""
    english, chinese = language("en"), language("zh")
    assert english.tn("{n} checkpoints saved", 1) == "1 checkpoint saved"
    assert english.tn("{n} checkpoints saved", 1200) == "1,200 checkpoints saved"
    assert chinese.tn("{n} checkpoints saved", 1) == "已保存 1 个检查点"
    assert [english.size(n) for n in (0, 999, 1000, 999_600, 1_250_000)] == [
        "0 B", "999 B", "1 kB", "1 MB", "1.25 MB",
    ]  # fmt: skip
    assert english.duration(200) == "3 min 20 s"
    assert chinese.duration(200) == "3 分 20 秒"
    assert english.duration(0.2) == "0 s"
    assert english.duration(None) == "–"
    assert english.number(float("nan")) == "nan"
