"""`onward data log`: what each increment learned from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import click

from onward.cli.data_ledgers import chosen, loader_option
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.outputs import find, label, open_output
from onward.cli.text import clean, table
from onward.data.provenance import described_ledgers, lineage
from onward.errors import Damaged, Dropped, NewerFormat, UnknownCheckpoint
from onward.repository import Commit, History, Manifest, Repository
from onward.repository.asking import with_checkpoint

_COLUMNS = ("items", "added", "changed", "removed", "known", "withdrawn")
_DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class _Round:
    """An increment by its newest checkpoint; `loaders` is None where that cannot be read."""

    commit: Commit
    loaders: dict[str, dict[str, Any]] | None


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
    rounds = [_read(repository, commit, loader) for commit in _newest_of_each(repository.history)]
    if as_json:
        write_json({"output": repository.store.url, "increments": list(map(_document, rounds))})
    else:
        write_lines(_lines(repository.history, rounds))


def _newest_of_each(history: History) -> list[Commit]:
    """Of each increment the newest checkpoint that is live, or else the newest there was."""
    found: dict[int, Commit] = {}
    for commit in lineage(history):
        known = found.get(commit.increment)
        if known is None or (
            known.checkpoint in history.dropped and commit.checkpoint not in history.dropped
        ):
            found[commit.increment] = commit
    return list(found.values())


def _read(repository: Repository, commit: Commit, loader: str) -> _Round:
    def choose(history: History) -> Commit:
        if commit.checkpoint in history.dropped:
            raise UnknownCheckpoint(f"checkpoint {commit.checkpoint} was dropped")
        return commit

    try:
        manifest = with_checkpoint(repository, choose, lambda _, manifest: manifest)
    except (Damaged, Dropped, NewerFormat, UnknownCheckpoint):
        return _Round(commit, None)
    loaders = _facts(manifest)
    return _Round(commit, chosen(loaders, loader) if loaders else loaders)


def _facts(manifest: Manifest) -> dict[str, dict[str, Any]]:
    """What a manifest tells of each loader's data; what it does not tell is None."""
    described = manifest.about.get("data")
    about = described if isinstance(described, Mapping) else {}
    ledgers = described_ledgers(manifest)
    snapshot = manifest.about.get("data_snapshot")
    facts = {}
    for name in [*about, *(name for name in ledgers if name not in about)]:
        told = about.get(name)
        told = told if isinstance(told, Mapping) else {}
        state = ledgers.get(name, {})
        pinned = state.get("pinned")
        pinned = pinned if isinstance(pinned, Mapping) else {}
        known, learning = state.get("known", told.get("known")), pinned.get("count")
        if pinned.get("again"):  # it learned what was known
            learning = _sum(pinned.get("added"), pinned.get("changed"))
        facts[name] = {
            "items": _number(told.get("items")),
            "added": _number(pinned.get("added", told.get("new"))),
            "changed": _number(pinned.get("changed", told.get("changed"))),
            "removed": _number(pinned.get("removed", told.get("removed"))),
            "known": _sum(known, learning) if pinned else _known_after(state, told),
            "withdrawn": _number(state.get("withdrawn")),
            "digest": _text(told.get("digest")) or _text(snapshot),
        }
    return facts


def _number(value: Any) -> int | None:
    return value if type(value) is int else None


def _known_after(state: Mapping[str, Any], told: Mapping[str, Any]) -> Any:
    """Of an increment that is over: its ledger knows; without one, what is told adds up."""
    known = _number(state.get("known"))
    if known is not None and state.get("pinned") is None:
        return known
    return _sum(told.get("known"), told.get("new"))


def _sum(first: Any, second: Any) -> int | None:
    return first + second if type(first) is int and type(second) is int else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _lines(history: History, rounds: list[_Round]) -> list[str]:
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


def _document(one: _Round) -> dict[str, Any]:
    return {
        "increment": one.commit.increment,
        "checkpoint": one.commit.checkpoint,
        "step": one.commit.step,
        "finished": one.commit.finished,
        "readable": one.loaders is not None,
        "loaders": one.loaders or {},
    }
