"""`onward report`: text, JSON, page and picture, of kind outputs and of hostile ones."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from onward.cli.report_page import page
from onward.cli.report_text import share_text, time_text
from onward.facts.report import gather
from onward.repository import Commit, FrozenHoldout, Scores, open_repository, record_audit
from onward.repository.auditing import Retrain
from onward.stores import LocalStore
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output, floats

HOSTILE = (
    "</style></svg><script>alert(1)</script>\"'><img src=http://x/ onerror=a>\x1b[31m\x00\u202e"
)
_VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Refuses what does not nest, and collects what a browser would fetch or run."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data + " "


def learning(steps: int, **more: Any) -> dict[str, Any]:
    """`about` as a run writes it."""
    told = {
        "steps": steps, "samples": steps * 64, "seconds": steps / 10, "batch_size": 64, "new": 5,
        "old": 5, "known": 10, "strategy": "uniform replay", "memory": None, "plan": None,
        "retrain": {"steps": 1000, "samples": 64_000, "epochs": 8}, "curve": [],
    }  # fmt: skip
    return {"learning": {**told, **more}, "seconds": steps / 10}


def two_increments(output: Output, **more: Any) -> list[Commit]:
    first = output.save(step=100, finished=True, about=learning(100, retrain=None))
    frozen = {"old": FrozenHoldout(1, "accuracy")}
    second = output.save(
        step=200, increment=2, finished=True, parent=first.checkpoint, verb="continue",
        about=learning(100, **more),
        scores=Scores(after={"old": 0.75}, frozen=frozen, verdict="regression: old"),
    )  # fmt: skip
    return [first, second]


def audit(output: Output, commit: Commit, share: float = 1.0, **more: Any) -> None:
    usual: dict[str, Any] = {
        "retrain": "a" * 16, "steps": 800, "samples": None, "seconds": 70.0, "stored": 4000,
        "scores": Scores(after={"old": 0.875}),
    }  # fmt: skip
    record_audit(
        output.repository, Retrain(checkpoint=commit.checkpoint, share=share, **{**usual, **more})
    )


def written(tmp_path: Path, onward: Onward, output: Output) -> str:
    onward("report", output.url, "--html", tmp_path / "report.html")
    return (tmp_path / "report.html").read_text()


def test_estimated_retrain_is_marked_as_estimated(onward: Onward, output: Output) -> None:
    two_increments(output)
    text = onward("report", output.url).stdout
    lines = text.splitlines()
    assert re.search(r"^1 +100  is one +10 s  is one +6,400", lines[2])
    assert re.search(r"^2 +100  ~10 % of ~1,000 +10 s  ~10 % of ~1.7 min +6,400", lines[3])
    assert "~ estimated: the retrain's planned steps" in text
    assert max(map(len, lines[1:5])) <= 100


def test_measured_retrain_and_its_excess_forgetting(onward: Onward, output: Output) -> None:
    _, second = two_increments(output)
    audit(output, second)
    text = onward("report", output.url).stdout
    assert re.search(r"2 +100  12 % of 800 +10 s  14 % of 70 s", text)
    assert "~" not in text
    assert "full retrain measured" in text
    assert re.search(r"old +0.75 +0.875 +0.125", text)


def test_scaled_retrain_is_marked_as_scaled(onward: Onward, output: Output) -> None:
    _, second = two_increments(output)
    audit(output, second, 0.25, steps=250)
    text = onward("report", output.url).stdout
    assert "~10 % of ~1,000" in text
    assert "scaled from a sample of 25 %" in text


def test_json_has_all_of_it(as_json: AsJson, output: Output) -> None:
    _, second = two_increments(output)
    audit(output, second)
    document = as_json("report", output.url)
    one, two = document["increments"]
    assert one["retrain"]["basis"] == "itself"
    assert two["retrain"]["basis"] == "measured"
    assert two["ratio"]["steps"] == 100 / 800
    assert two["retrain"]["samples"] is None
    assert two["verdict"] == "regression: old"
    assert two["gaps"] == [
        {"holdout": "old", "metric": "accuracy", "ours": 0.75, "retrain": 0.875, "excess": 0.125}
    ]
    assert document["totals"]["steps"] == {
        "used": 200, "at_least": False, "compared": 200, "retrain": 900, "increments": 2,
        "estimated": False, "ratio": 200 / 900, "saved": 700,
    }  # fmt: skip
    assert document["audits"][0]["scores"]["after"] == {"old": 0.875}


def test_older_checkpoints_have_an_honest_bill(onward: Onward, output: Output) -> None:
    """They say nothing of samples or a retrain; steps and bytes are in the log."""
    first = output.save(step=30, finished=True)
    output.save(step=50, increment=2, finished=True, parent=first.checkpoint, verb="continue")
    text = onward("report", output.url).stdout
    assert re.search(r"^2 +20  unknown +unknown  unknown +unknown", text.splitlines()[3])
    assert "`onward audit` measures it" in text


def test_an_empty_output_says_so(onward: Onward, output: Output, tmp_path: Path) -> None:
    assert "holds no checkpoint yet" in onward("report", output.url).stdout
    assert "holds no checkpoint yet" in Page(written(tmp_path, onward, output)).text
    result = onward("report", output.url, "--picture", tmp_path / "x.svg", code=2)
    assert "nothing to draw" in result.stderr


def test_the_page_needs_nothing_else(tmp_path: Path, onward: Onward, output: Output) -> None:
    """No script, no network, no link; a policy forbids what would slip through."""
    curve = [[step, {"loss": 1 / step}] for step in range(101, 201)]
    _, second = two_increments(output, curve=curve)
    audit(output, second)
    output.repository.set_alias("champion", second.checkpoint)
    text = written(tmp_path, onward, output)
    found = Page(text)
    assert not found.tags & {"script", "link", "img", "iframe", "a", "object", "base"}
    assert not found.attributes & {"src", "href", "style", "onload", "onclick"}
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")
    assert "default-src 'none'" in text
    for word in ("champion", "regression", "measured", "0.125", "loss", "audited", "v2"):
        assert word in found.text, word
    for svg in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(svg)
    onward("report", output.url, "--picture", tmp_path / "x.svg")
    ElementTree.fromstring((tmp_path / "x.svg").read_text())


def test_hostile_names_are_shown_and_do_nothing(
    tmp_path: Path, onward: Onward, output: Output
) -> None:
    """Names of metrics, strategies, holdouts, reasons and verdicts come from anybody."""
    name = HOSTILE[:60]
    first = output.save(
        step=100, finished=True, metrics={HOSTILE: 0.5}, reason=HOSTILE,
        about=learning(100, strategy=HOSTILE, curve=[[1, {HOSTILE: 1.0}], [2, {HOSTILE: 2.0}]]),
        scores=Scores(after={name: 1.0}, frozen={name: FrozenHoldout(1, name)}, verdict=HOSTILE),
    )  # fmt: skip
    audit(output, first, scores=Scores(after={name: 0.5}))
    plain = Page(page(gather(output.repository), time="now", matrix=lambda _: ""))
    text = written(tmp_path, onward, output)
    found = Page(text)
    assert found.tags - plain.tags <= {"linearGradient", "pattern", "defs", "stop"}
    assert "script" not in found.tags
    assert "img" not in found.tags
    assert not any(c in text for c in "\x1b\x00\u202e")
    onward("report", output.url, "--picture", tmp_path / "x.svg")
    svg = ElementTree.fromstring((tmp_path / "x.svg").read_text())
    assert not any("script" in element.tag or "img" in element.tag for element in svg.iter())


@pytest.mark.parametrize(
    "curve",
    [
        "text", 7, None, [1, 2], [[1]], [["x", {"loss": 1}]], [[1, {"loss": "x"}]],
        [[1, {"a": None}]], [[1, {"loss": True}]], [[1, {"loss": [1]}]],
        [[-5, {"loss": 1.0}], [10**300, {"loss": 2.0}]],
        [[1, {"loss": 1e300}], [2, {"loss": -1e300}]],
        [[1, {"loss": 1e-300}], [2, {"loss": 1e300}]],
    ],
)  # fmt: skip
def test_odd_curves_break_nothing(
    tmp_path: Path, onward: Onward, output: Output, curve: Any
) -> None:
    """Whatever a manifest holds: the page is whole, and no coordinate is not a number."""
    two_increments(output, curve=curve)
    text = written(tmp_path, onward, output)
    Page(text)
    assert not re.search(r'[ "ML]-?(nan|inf)', text)
    onward("report", output.url)


def test_what_was_not_finite_is_a_gap_in_the_curve(
    tmp_path: Path, onward: Onward, output: Output
) -> None:
    curve = [[step, {"loss": None if step == 3 else float(step)}] for step in range(1, 6)]
    output.save(step=5, finished=True, metrics={"loss": None}, about=learning(5, curve=curve))
    assert written(tmp_path, onward, output).count('class="curve"') == 2


def test_curves_of_increments_may_count_from_zero_or_over_life(output: Output) -> None:
    """Both are drawn where the increment is."""
    points = [[1, {"loss": 1.0}], [100, {"loss": 0.5}]]
    two_increments(output, curve=points)
    (curve,) = (c for c in gather(output.repository).curves if c.metric == "loss")
    assert curve.lines[-1] == (1, [(101.0, 1.0), (200.0, 0.5)])


def test_a_metric_that_no_curve_has_is_drawn_from_the_checkpoints(output: Output) -> None:
    """Such as what was evaluated at an epoch's end."""
    curve = [[5, {"loss": 1.0}]]
    output.save(step=5, metrics={"accuracy": 0.5, "loss": 7.0}, about=learning(5, curve=curve))
    found = {curve.metric: curve.lines for curve in gather(output.repository).curves}
    assert found == {"loss": [(0, [(5.0, 1.0)])], "accuracy": [(0, [(5, 0.5)])]}


def test_checkpoints_without_a_curve_are_its_points(output: Output) -> None:
    """Dropped ones too: their metrics are in the log."""
    commits = output.chain(3)
    output.repository.refresh()
    output.repository.drop([commits[0].checkpoint])
    (curve,) = gather(open_repository(LocalStore(output.folder))).curves
    assert curve.lines == [(0, [(10, 1.0), (20, 0.5), (30, 1 / 3)])]


def test_a_damaged_manifest_is_told_and_the_rest_reported(
    tmp_path: Path, onward: Onward, output: Output
) -> None:
    _, second = two_increments(output)
    output.flip(output.file("manifests", f"{second.checkpoint}.json"), 30)
    text = onward("report", output.url).stdout
    assert f"{second.checkpoint} could not be read" in text
    assert re.search(r"^2 +100  unknown", text.splitlines()[3])
    assert "could not be read" in Page(written(tmp_path, onward, output)).text


def test_hundreds_of_increments_make_a_page(tmp_path: Path, onward: Onward, output: Output) -> None:
    """Of moderate size: of lineage and matrix only the newest part is drawn."""
    parent = None
    for number in range(1, 221):
        parent = output.save(
            step=number * 5, increment=number, finished=True, parent=parent,
            metrics={"loss": 1 / number}, about={"seconds": 1.0},
            scores=Scores(
                after={f"of {number}": 0.5}, frozen={f"of {number}": FrozenHoldout(number, "acc")}
            ),
        ).checkpoint  # fmt: skip
    text = written(tmp_path, onward, output)
    assert "20 older are not drawn" in Page(text).text
    assert ">increment 161<" in text
    assert ">increment 160<" not in text
    assert len(text) < 1_500_000


def test_where_a_file_cannot_be_written(tmp_path: Path, onward: Onward, output: Output) -> None:
    two_increments(output)
    for place in (tmp_path, tmp_path / "no" / "x.html"):
        result = onward("report", output.url, "--html", place, code=2)
        assert "cannot be written" in result.stderr
    onward("report", output.url, "--html", tmp_path / "mein Bericht 报告.html")
    assert (tmp_path / "mein Bericht 报告.html").stat().st_size > 1000


def test_numbers_are_short() -> None:
    """For people, two digits that matter."""
    assert [time_text(s) for s in (0.001, 9.94, 9.96, 99.4, 100, 5970, 6000, 3e5, 1e9)] == [
        "0.001 s", "9.9 s", "10 s", "99 s", "1.7 min", "1.7 h", "1.7 h", "3.5 days", "11,574 days",
    ]  # fmt: skip
    assert [share_text(s) for s in (None, 0.0, 0.0012, 0.1, 12.0)] == [
        "", "0 %", "0.12 %", "10 %", "1,200 %",
    ]  # fmt: skip


def test_state_of_a_pin_and_of_lines_given_up_is_in_the_lineage(
    tmp_path: Path, onward: Onward, output: Output
) -> None:
    first = output.save(step=10, finished=True)
    output.save({"m": floats(2)}, step=20, increment=2, parent=first.checkpoint)
    output.save({"m": floats(3)}, step=30, increment=2, parent=first.checkpoint, finished=True)
    output.repository.refresh()
    output.repository.pin(first.checkpoint)
    found = Page(written(tmp_path, onward, output)).text
    for word in ("pinned", "not finished", "latest", "v1 · step 10", "v2 · step 20"):
        assert word in found, word
