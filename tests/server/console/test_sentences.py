"""Sentences that the server writes, in the languages of the console."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import onward
from onward import errors
from onward.server import problems
from onward.server.console.languages import language
from onward.server.console.languages.sentences import Sentences
from onward.server.database.tables import Attempt, Job
from onward.server.scheduling.endings import ended, turn, vanished
from onward.server.settings import Settings

SOURCE = Path(onward.__file__).parent
CATALOGUE = json.loads(
    (SOURCE / "server/console/languages/sentences.zh.json").read_text(encoding="utf-8")
)
ROOMS = ("server", "engines", "jobs", "training/opening.py")
"""Whose sentences a page may show."""

ELSEWHERE = {
    "alone.py", "backup.py", "listening.py", "opening.py", "migrating.py", "audit.py", "first.py",
    "rebuilding.py", "cleaning.py",
}  # fmt: skip
"""What only whoever starts a server, or a command, is told."""

PLACE = re.compile(r"\{[0-9]\}")
_ERRORS = {
    name
    for module in (errors, problems)
    for name, kind in vars(module).items()
    if isinstance(kind, type) and issubclass(kind, errors.OnwardError)
} | {"NotPublic", "Overtaken", "problem", "Ending", "Turn"}
_SAYING = ("why", "do", "reason")
LEAST_LETTERS = 9
"""A template with less of its own, such as `{1} is {2}`, would fit what it does not mean."""


def said() -> Iterator[str]:
    """Every sentence that code of the rooms hands to an error or a reason, its places numbered."""
    for room in ROOMS:
        place = SOURCE / room
        for path in [place] if place.is_file() else sorted(place.rglob("*.py")):
            if path.name in ELSEWHERE and room != "training/opening.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call):
                    yield from _said_by(node)


def _said_by(call: ast.Call) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    told: list[ast.expr] = [each.value for each in call.keywords if each.arg in _SAYING]
    told += call.args if name in _ERRORS else []
    for node in told:
        for text in map(_whole, _texts(node)):
            own = PLACE.sub("", text)
            if " " in text and ("{1}" not in text or len(own.strip()) >= LEAST_LETTERS):
                yield text


def _whole(text: str) -> str:
    """Without a place that is glued to its end: another sentence, or nothing, comes there."""
    return re.sub(r"(?<=[a-z])\{[0-9]\}$", "", text)


def _texts(node: ast.expr) -> list[str]:
    if isinstance(node, ast.IfExp):
        return [*_texts(node.body), *_texts(node.orelse)]
    if isinstance(node, ast.BoolOp):
        return [text for each in node.values for text in _texts(each)]
    places = iter("123456789")
    text = _text(node, places)
    return [] if text is None else [text]


def _text(node: ast.expr, places: Iterator[str]) -> str | None:
    match node:
        case ast.Constant(value=str() as text):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(
                str(part.value) if isinstance(part, ast.Constant) else f"{{{next(places)}}}"
                for part in parts
            )
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            both = [_text(side, places) for side in (left, right)]
            return "".join(f"{{{next(places)}}}" if part is None else part for part in both)
    return None


def test_every_sentence_that_a_page_may_show_is_translated() -> None:
    """One that is not in the catalogue would be English among Chinese."""
    spoken = language("zh")
    missing = sorted({text for text in said() if spoken.said(text) == text})
    assert missing == []


COMPOSED = {
    "all {1} retries are used up for {2}", "there are no retries for {1}", "cancelled by {1}",
    "{1} items show nothing: at least {2} items are needed",
}  # fmt: skip
"""Made in several steps, so that no piece of code holds them as they are."""


def test_no_translation_is_left_over() -> None:
    """Each stretch of a template stands somewhere in the code."""
    texts = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(node.value)
    whole = "\0".join(texts)
    left = {
        text
        for text in CATALOGUE.keys() - COMPOSED
        for part in PLACE.split(text)
        if len(part.strip()) >= LEAST_LETTERS and part.strip(" ;:") not in whole
    }
    assert left == set()


def test_translations_fill_in_the_same_facts() -> None:
    """A place that is missing loses a fact."""
    for text, translated in CATALOGUE.items():
        assert set(PLACE.findall(text)) == set(PLACE.findall(translated)), text


def outcome(exit_code: int, message: str, **more: Any) -> dict[str, Any]:
    return {"exit_code": exit_code, "outcome": {"exit_code": exit_code, "message": message}, **more}


@pytest.mark.parametrize(
    ("document", "retries", "expected"),
    [
        (outcome(1, "the script ended with exit status 3", cause="crash"), {"crash": 2},
         "脚本以 退出状态 3 结束；10 秒后进行因“崩溃”的第 1 次重试（共 2 次）"),
        (outcome(1, "the script ended with SIGKILL", cause="out-of-memory"), {},
         "内存耗尽；脚本以 SIGKILL 结束；因“内存不足”不重试"),
        (outcome(1, "the script ended with exit status 1", cause="crash", lost=["a", "b"]),
         {"crash": 0}, "脚本以 退出状态 1 结束；因“崩溃”不重试；未推送：a, b"),
    ],
)  # fmt: skip
def test_reasons_of_jobs_are_chinese_to_their_last_part(
    document: dict[str, Any], retries: dict[str, int], expected: str
) -> None:
    """They are made of several sentences."""
    attempt = Attempt(asked_why="", saves=0, step=5, cause="")
    job = Job(
        wanted="run", committed=False, fruitless=0, retried={}, spec={"retries": retries},
    )  # fmt: skip
    found = turn(job, attempt, ended(attempt, document), Settings(), now_s=0.0, earlier=[])
    assert language("zh").said(found.reason) == expected
    assert language("en").said(found.reason) == found.reason


def test_a_lost_attempt_and_a_loop_are_chinese() -> None:
    """A crash loop names its step."""
    attempt = Attempt(asked_why="", saves=0, step=1200, cause="crash")
    job = Job(wanted="run", committed=True, fruitless=2, retried={}, spec={})
    before = [Attempt(cause="crash", saves=0, step=1200) for _ in range(2)]
    ending = ended(attempt, outcome(1, "the script ended with exit status 3", cause="crash"))
    found = turn(job, attempt, ending, Settings(), now_s=0.0, earlier=before)
    assert language("zh").said(found.reason) == (
        "脚本以 退出状态 3 结束；连续 3 次尝试都结束于第 1,200 步，没有新的检查点：再试也会如此"
    )
    gone = vanished(attempt, "its agent is gone without an outcome")
    assert language("zh").said(gone.reason) == "代理已消失，没有留下结果"


def test_what_is_no_sentence_of_the_server_stays_as_it_is() -> None:
    """Words of scripts, of stores and of people, whatever they hold."""
    spoken = language("zh")
    for text in ("", "CUDA error: device-side assert", "x" * 5000, "a\nb", "{1}", "(?P<x>", "训练"):
        assert spoken.said(text) == text
    assert spoken.said("there is no job '<b>'") == "没有作业 '<b>'"


def test_of_two_templates_that_fit_the_more_exact_one_is_meant() -> None:
    """`{1} by {2}` would fit very much."""
    made = Sentences({"paused by {1}": "由 {1} 暂停", "{1} by {2}": "{2}：{1}"}, lambda word: word)
    assert made.said("paused by me") == "由 me 暂停"
    assert made.said("one by one") == "one：one"
