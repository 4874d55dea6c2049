"""`onward data log`: what each increment learned from."""

from __future__ import annotations

import click

from onward.cli.data_ledgers import loader_option
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.text import clean, table
from onward.facts.data_log import LearnedRound, learned_rounds, round_document
from onward.facts.outputs import find, label, open_output
from onward.repository import History

_COLUMNS = ("items", "added", "changed", "removed", "known", "withdrawn")
_DIGEST_SHOWN = 12


@click.command()
@output_argument
@loader_option
@json_option
def log(output: str, loader: str, as_json: bool) -> None:
    """List what each increment learned from, newest first.

    Of the newest checkpoint's line, for each increment: the items of its data; how many of them
    were added and changed since the one before, and how many were removed; how many items the model
    knows after it, and how many of these are gone from its data. Only manifests are read.
    """
    repository = open_output(output)
    find(repository.history, "latest")
    rounds = learned_rounds(repository, loader)
    if as_json:
        write_json(
            {"output": repository.store.url, "increments": list(map(round_document, rounds))}
        )
    else:
        write_lines(_lines(repository.history, rounds))


def _lines(history: History, rounds: list[LearnedRound]) -> list[str]:
    several = any(len(one.loaders or {}) > 1 for one in rounds)
    rows = [["increment", "checkpoint", *(["loader"] if several else []), *_COLUMNS, "data"]]
    for one in rounds:
        state = "" if one.commit.finished else " (unfinished)"
        head = [f"{one.commit.increment:,}{state}", label(history, one.commit)]
        for name, facts in (one.loaders or {"": {}}).items():
            cells = [_cell(facts.get(column)) for column in _COLUMNS]
            digest = clean((facts.get("digest") or "—")[:_DIGEST_SHOWN])
            if one.loaders is None:
                dropped = one.commit.checkpoint in history.dropped
                digest = "dropped" if dropped else "cannot be read"
            elif not one.loaders:
                digest = "no data is told of"
            rows.append([*head, *([clean(name)] if several else []), *cells, digest])
            head = ["", ""]
    first = 3 if several else 2
    return table(rows, right=range(first, first + len(_COLUMNS)))


def _cell(value: int | None) -> str:
    return "—" if value is None else f"{value:,}"
