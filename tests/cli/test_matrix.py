"""`onward log --matrix`: the scores of every increment, read from the log alone."""

from __future__ import annotations

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

from onward.learning.heatmap import heat_map
from onward.learning.matrix import Matrix
from onward.repository import FrozenHoldout
from tests.cli.conftest import AsJson, Onward
from tests.cli.outputs import Output
from tests.cli.scored import ITEMS, Scored, answers


@pytest.fixture
def scored(tmp_path: Path) -> Scored:
    output = Scored(tmp_path / "out")
    output.freeze("digits", 1)
    output.increment(1, digits=answers())
    output.freeze("letters", 2)
    output.freeze("error", 2, metric="mse", higher_is_better=False)
    letters, losses = answers(won=100), np.full(ITEMS, 2.5)
    output.increment(
        2, "no change", digits=answers(lost=40), letters=letters, before_letters=answers(lost=1000),
        error=losses,
    )  # fmt: skip
    return output


def test_the_table_has_a_row_for_each_increment(onward: Onward, scored: Scored) -> None:
    """Plain in a pipe: numbers and words, no shades."""
    lines = onward("log", scored.url, "--matrix").stdout.splitlines()
    assert lines[0].split() == ["increment", "checkpoint", "digits", "letters", "error"]
    assert lines[1].split() == ["1", "v1", "0.900", "0.400", "-"]
    assert lines[2].split() == ["2", "v2", "0.880", "0.950", "2.500"]
    assert lines[4].split() == ["metric", "ACC", "BWT", "FWT", "forgetting"]
    assert lines[5].split() == ["accuracy", "0.915", "-0.02", "-", "0.02"]
    assert lines[6] == "mse (lower is better)    2.5      -    -           -"
    assert lines[-1] == "increment 2: no change"
    assert not set("".join(lines)) & set("░▒▓█")


def test_the_matrix_as_json(as_json: AsJson, scored: Scored) -> None:
    document = as_json("log", scored.url, "--matrix")
    assert [row["scores"] for row in document["rows"]] == [
        {"digits": 0.9, "letters": 0.4}, {"digits": 0.88, "letters": 0.95, "error": 2.5}
    ]  # fmt: skip
    assert document["summaries"][0]["backward_transfer"] == pytest.approx(-0.02)
    assert document["holdouts"][2]["lower_is_better"]
    assert as_json("log", scored.url)["checkpoints"][0]["scores"]["after"]["digits"] == 0.88


def test_the_matrix_is_read_from_the_log_alone(onward: Onward, scored: Scored) -> None:
    """Neither manifests nor packs are needed."""
    before = onward("log", scored.url, "--matrix").stdout
    shutil.rmtree(scored.folder / "onward" / "manifests")
    shutil.rmtree(scored.folder / "onward" / "packs")
    assert onward("log", scored.url, "--matrix").stdout == before


def test_an_output_without_scores_says_so(onward: Onward, as_json: AsJson, output: Output) -> None:
    assert "no increment was scored" in onward("log", output.url, "--matrix").stdout
    output.chain(2)
    assert "no increment was scored" in onward("log", output.url, "--matrix").stdout
    assert as_json("log", output.url, "--matrix")["rows"] == []


def test_on_a_terminal_there_are_shades_and_narrow_blocks(
    onward: Onward, scored: Scored, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onward.cli.matrix import matrix_lines

    monkeypatch.setattr("onward.cli.matrix.on_terminal", lambda: True)
    monkeypatch.setattr("onward.cli.matrix.width", lambda: 44)
    lines = matrix_lines(scored.repository.history, "out", shades=True)
    assert any("0.900 ██" in line for line in lines)
    assert sum(line.startswith("increment  checkpoint") for line in lines) == 2


def test_the_picture_is_one_svg_file(onward: Onward, scored: Scored, tmp_path: Path) -> None:
    picture = tmp_path / "m.svg"
    for _ in range(2):
        onward("log", scored.url, "--matrix", "--picture", picture)
    root = ET.parse(picture).getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"increment 1", "digits", "0.900", "2.500", "–"} <= set(texts)
    for bad in ("m.png", "m"):
        assert ".svg" in onward("log", scored.url, "--picture", bad, code=2).stderr
    assert onward("log", scored.url, "--picture", tmp_path / "no" / "m.svg", code=2).stderr


def test_hostile_names_stay_text_in_a_picture() -> None:
    """Markup, quotes, control and half characters are shown or replaced, never obeyed."""
    hostile = "</text><script>alert(1)</script>\"'&]]>\x00\x1b\u202e\ud800\ufffe"
    frozen = {hostile: FrozenHoldout(1, hostile), "x" * 64: FrozenHoldout(1, "m")}
    svg = heat_map(Matrix(frozen, {1: {hostile: 0.5}}), hostile)
    root = ET.fromstring(svg.encode())
    assert not [element for element in root.iter() if element.tag.endswith("script")]
    assert "http" not in svg.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    "scores",
    [{}, {"a": None}, {"a": 1e308, "b": -1e308}, {"a": 0.0, "b": 0.0}, {"a": 5e-324, "b": -0.0},
     {"a": 7.0}],
)  # fmt: skip
def test_any_scores_make_a_picture(scores: dict[str, float | None]) -> None:
    frozen = {name: FrozenHoldout(1, "m", lower=True) for name in "ab"}
    ET.fromstring(heat_map(Matrix(frozen, {1: scores})).encode())
    ET.fromstring(heat_map(Matrix()).encode())
