"""What each increment learned from, as manifests tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onward.data.provenance import described_ledgers, lineage
from onward.errors import Damaged, Dropped, NewerFormat, UnknownCheckpoint
from onward.facts.ledgers import chosen
from onward.repository import Commit, History, Manifest, Repository
from onward.repository.asking import with_checkpoint


def learned_rounds(repository: Repository, loader: str = "") -> list[LearnedRound]:
    """Each increment of the newest checkpoint's line, newest first."""
    return [_read(repository, commit, loader) for commit in _newest_of_each(repository.history)]


@dataclass(frozen=True, slots=True)
class LearnedRound:
    """An increment by its newest checkpoint; `loaders` is None where that cannot be read."""

    commit: Commit
    loaders: dict[str, dict[str, Any]] | None


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


def _read(repository: Repository, commit: Commit, loader: str) -> LearnedRound:
    def choose(history: History) -> Commit:
        if commit.checkpoint in history.dropped:
            raise UnknownCheckpoint(f"checkpoint {commit.checkpoint} was dropped")
        return commit

    try:
        manifest = with_checkpoint(repository, choose, lambda _, manifest: manifest)
    except (Damaged, Dropped, NewerFormat, UnknownCheckpoint):
        return LearnedRound(commit, None)
    loaders = data_facts(manifest)
    return LearnedRound(commit, chosen(loaders, loader) if loaders else loaders)


def data_facts(manifest: Manifest) -> dict[str, dict[str, Any]]:
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


def round_document(one: LearnedRound) -> dict[str, Any]:
    """As plain JSON values."""
    return {
        "increment": one.commit.increment,
        "checkpoint": one.commit.checkpoint,
        "step": one.commit.step,
        "finished": one.commit.finished,
        "readable": one.loaders is not None,
        "loaders": one.loaders or {},
    }
