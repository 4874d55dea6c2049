"""`onward report`: what each increment cost, beside what a full retrain costs."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from pathlib import Path

import click

from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.report_page import page, picture
from onward.cli.report_text import report_lines
from onward.cli.report_words import ENGLISH
from onward.cli.text import clean
from onward.errors import UsageError
from onward.facts.outputs import open_output
from onward.facts.report import Facts, gather
from onward.facts.report_document import report_document
from onward.learning.heatmap import heat_map as drawn
from onward.learning.matrix import matrix_of
from onward.stores import LocalStore
from onward.stores.os_errors import written

_MOST_HOLDOUTS, _MOST_ROWS = 40, 60


@click.command()
@output_argument
@click.option("--html", metavar="FILE", help="Write one page with curves, matrix and lineage.")
@click.option("--picture", "svg", metavar="FILE", help="Write curves and matrix as one SVG file.")
@json_option
def report(output: str, html: str | None, svg: str | None, as_json: bool) -> None:
    """Show what each increment cost, beside what a full retrain costs.

    Steps, samples, seconds and bytes of each increment and over the model's life. What a full
    retrain costs is measured where `onward audit` trained one, else estimated, and marked so.
    """
    facts = gather(open_output(output))
    made = []
    if html is not None:
        time = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
        made.append(_write(html, page(facts, time=time, matrix=heat_map)))
    if svg is not None:
        picture_text = picture(facts, matrix=heat_map)
        if not picture_text:
            raise UsageError(
                f"{facts.url} has nothing to draw", why="no metric and no score was recorded"
            )
        made.append(_write(svg, picture_text))
    if as_json:
        write_json({**report_document(facts), "files": [str(path) for path in made]})
    else:
        write_lines(report_lines(facts) + [f"written: {clean(path)}" for path in made])


def heat_map(facts: Facts) -> str:
    """The matrix of scores on frozen holdouts as `<svg>`; '' where nothing was scored.

    Of very many increments or holdouts the newest, as a page cannot show more.
    """
    matrix = matrix_of(facts.history)
    if not matrix.holdouts:
        return ""
    holdouts = dict(list(matrix.holdouts.items())[-_MOST_HOLDOUTS:])
    rows = {number: matrix.rows[number] for number in sorted(matrix.rows)[-_MOST_ROWS:]}
    return drawn(replace(matrix, holdouts=holdouts, rows=rows), title=ENGLISH.matrix)


def _write(file: str, text: str) -> Path:
    """Replaces a file as a whole: who is looking at the old one sees all of it."""
    path = Path(file).absolute()
    if path.is_dir() or not path.parent.is_dir():
        raise UsageError(
            f"{file!r} cannot be written",
            why="it is a folder" if path.is_dir() else f"there is no folder {path.parent}",
            do="give the name of a file in a folder that exists",
        )
    data = text.encode("utf-8", "backslashreplace")
    with written(f"could not write {path}"):
        LocalStore(path.parent).put(path.name, [data], len(data))
    return path
