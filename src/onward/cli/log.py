"""`onward log`: the history of an output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from itertools import islice, pairwise
from typing import Any

import click
import msgspec

from onward.cli.graph import Graph, in_ascii
from onward.cli.options import json_option, output_argument, write_json, write_lines
from onward.cli.pushing import unpushed_document, unpushed_here, unpushed_lines
from onward.cli.text import clean, count, number, on_terminal, painted, size, when, wrapped
from onward.errors import Missing
from onward.facts.checkpoints import checkpoint_document
from onward.facts.outputs import open_output
from onward.repository import Commit, History, Repository, record_key
from onward.repository.documents import MAX_RECORD_BYTES
from onward.repository.records import (
    Alias,
    AnyRecord,
    Audit,
    Claim,
    Drop,
    Open,
    Repack,
    parse_record,
    pin_name,
)

_ON_A_TERMINAL = 20
_METRICS_SHOWN = 12
_NAME_SHOWN = 60
_PARALLEL_READS = 16


@click.command()
@output_argument
@click.option("-n", "limit", type=click.IntRange(min=1), metavar="N", help="Only the newest N.")
@click.option("--all", "everything", is_flag=True, help="All, on a terminal too.")
@click.option("--graph/--no-graph", default=True, help="The lineage as lines on the left.")
@click.option("--records", is_flag=True, help="Claims, take-overs, aliases and drops too.")
@click.option("--matrix", is_flag=True, help="How increments scored on holdouts, instead.")
@click.option("--picture", default="", metavar="FILE.svg", help="With --matrix: draw it, too.")
@click.option(
    "--chance", type=float, metavar="SCORE", help="What guessing scores, such as 0.1: FWT needs it."
)
@json_option
def log(
    output: str, limit: int | None, everything: bool, graph: bool, records: bool, matrix: bool,
    picture: str, chance: float | None, as_json: bool,
) -> None:  # fmt: skip
    """List the checkpoints of an output, newest first.

    On a terminal the newest 20 are shown unless -n or --all says otherwise; in a pipe and with
    --json, all of them. --matrix shows the lineage of the latest one: a row for each increment, a
    column for each frozen holdout; ACC is the mean after the last one, BWT and FWT how learning
    changed what was known before and what came after, forgetting how far below its best each is.
    """
    repository = open_output(output)
    if matrix or picture:
        _show_matrix(repository, picture, chance, as_json=as_json)
        return
    if limit is None and not everything and on_terminal() and not as_json:
        limit = _ON_A_TERMINAL
    commits = list(islice(repository.history.newest_first(), limit))
    others = _records_beside(repository, commits) if records else []
    behind = unpushed_here(output, repository.history)
    if as_json:
        document = _document(repository, commits, others if records else None)
        write_json({**document, **unpushed_document(behind)})
    else:
        write_lines(_lines(repository, commits, others, graph=graph) + unpushed_lines(behind))


def _show_matrix(
    repository: Repository, picture: str, chance: float | None, *, as_json: bool
) -> None:
    # Imported here, for it needs NumPy, which the history does not.
    from onward.cli.matrix import draw, matrix_lines
    from onward.facts.matrix import matrix_document

    history, url = repository.history, repository.store.url
    if picture:
        draw(history, picture, url)
    if as_json:
        write_json({"output": url, **matrix_document(history, chance=chance)})
    else:
        shades = on_terminal() and _encodes("█▓▒░")
        write_lines(matrix_lines(history, url, shades=shades, chance=chance))


def _lines(
    repository: Repository, commits: Sequence[Commit], others: Sequence[AnyRecord], *, graph: bool
) -> list[str]:
    history = repository.history
    now = datetime.now().astimezone()
    page = _Page(history, now, graph=graph)
    waiting = list(others)  # newest first, as the commits are
    for commit in commits:
        while waiting and waiting[0].seq > commit.seq:
            page.add_record(waiting.pop(0))
        page.add(commit)
    for record in waiting:
        page.add_record(record)
    live = len(history.commits) - len(history.dropped)
    if not live:
        where = clean(repository.store.url)
        page.lines.append(f"{where} holds no checkpoint yet; a training run makes the first")
    elif len(commits) < live:
        hidden = count(live - len(commits), "older checkpoint")
        page.lines.append(f"… {hidden}: --all shows them" if on_terminal() else f"… {hidden}")
    return page.lines


class _Page:
    """The lines, as they come."""

    def __init__(self, history: History, now: datetime, *, graph: bool) -> None:
        self.lines: list[str] = []
        self._history = history
        self._now = now
        self._versions = history.versions()
        self._names: dict[str, list[str]] = {}
        for name, id_ in sorted(history.aliases.items()):
            self._names.setdefault(id_, []).append(name)
        for id_ in history.pins:
            self._names.setdefault(id_, []).append("pinned")
        latest = history.latest()
        if latest is not None:
            self._names.setdefault(latest.checkpoint, []).insert(0, "latest")
        live = list(history.newest_first())
        self._predecessor = {newer.checkpoint: older.checkpoint for newer, older in pairwise(live)}
        self._graph = Graph() if graph else None
        self._plain_lines = _encodes("●│├─╯┴…")

    def add(self, commit: Commit) -> None:
        node = rest = "  "
        if self._graph is not None:
            row = self._graph.add(commit.checkpoint, self._live_ancestor(commit))
            self.lines += [self._drawn(line) for line in row.before]
            node, rest = self._drawn(row.node) + " ", self._drawn(row.rest) + " "
        names = self._names.get(commit.checkpoint, [])
        facts = [
            painted(f"v{self._versions[commit.checkpoint]}", "yellow"),
            commit.checkpoint,
            f"step {commit.step:,}",
            f"epoch {commit.epoch:,}",
            f"increment {commit.increment:,}",
            *(["finished"] if commit.finished else []),
            *([painted("(" + ", ".join(map(clean, names)) + ")", "green")] if names else []),
        ]
        first, *further = wrapped(facts, indent=rest)
        self.lines += [node + first[len(rest) :], *further]
        more = [when(commit.time, self._now), size(commit.stored)]
        more += self._lineage(commit)
        more += [f"{clean(key[:_NAME_SHOWN])} {number(value)}" for key, value in _first(commit)]
        if len(commit.metrics) > _METRICS_SHOWN:
            more.append(f"+{len(commit.metrics) - _METRICS_SHOWN} metrics")
        self.lines += wrapped(more, indent=rest + "  ")
        for missed in commit.failed_before:
            what = painted(f"step {missed.step:,} was not saved before it:", "red")
            self.lines += wrapped([what, clean(missed.why)], indent=rest + "  ")

    def add_record(self, record: AnyRecord) -> None:
        margin = "  "
        if self._graph is not None:
            margin = (self._drawn(self._graph.margin) or " ") + " "
        text = _record_text(record, self._versions)
        self.lines.append(f"{margin}- {text}  {when(record.time, self._now)}")

    def _live_ancestor(self, commit: Commit) -> str | None:
        parent = commit.parent
        while parent is not None and parent in self._history.dropped:
            parent = self._history.commits[parent].parent
        return parent

    def _lineage(self, commit: Commit) -> list[str]:
        parent = commit.parent
        if parent == self._predecessor.get(commit.checkpoint):
            return []
        if parent is None:
            return ["no parent"]
        dropped = " (dropped)" if parent in self._history.dropped else ""
        return [f"from v{self._versions[parent]}{dropped}"]

    def _drawn(self, text: str) -> str:
        return text if self._plain_lines else in_ascii(text)


def _first(commit: Commit) -> list[tuple[str, float | None]]:
    return list(islice(commit.metrics.items(), _METRICS_SHOWN))


def _encodes(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _record_text(record: AnyRecord, versions: dict[str, int]) -> str:
    match record:
        case Open():
            return f"made by {clean(record.made_by)}"
        case Claim():
            took_over = "claimed" if record.generation == 1 else "taken over"
            return f"{took_over} by {clean(record.who)} (generation {record.generation})"
        case Alias(name=name, checkpoint=str() as id_) if name == pin_name(id_):
            return f"pinned v{versions[id_]}"
        case Alias(checkpoint=None):
            if record.name.removeprefix("pin-") in versions:
                return f"unpinned v{versions[record.name.removeprefix('pin-')]}"
            return f"alias {clean(record.name)} removed"
        case Alias():
            return f"alias {clean(record.name)} → v{versions[str(record.checkpoint)]}"
        case Drop():
            gone = ", ".join(f"v{versions[id_]}" for id_ in record.checkpoints)
            return f"dropped {gone} ({count(len(record.packs), 'pack')})"
        case Repack():
            moved = count(len(record.manifests), "checkpoint")
            return f"repacked {moved} ({count(len(record.packs), 'pack')})"
        case Audit():
            sample = "" if record.share == 1 else f" on a sample of {record.share:.3g}"
            steps = count(record.steps, "step")
            return f"audited v{versions[record.checkpoint]}{sample}: a retrain of {steps}"
        case Commit():
            return f"commit v{versions[record.checkpoint]}"


def _records_beside(repository: Repository, commits: Sequence[Commit]) -> list[AnyRecord]:
    """The records that are no commits, newest first, as far back as the commits that are shown."""
    history = repository.history
    oldest_shown = len(commits) == len(history.commits) - len(history.dropped) or not commits
    start = 0 if oldest_shown else commits[-1].seq

    def read(seq: int) -> AnyRecord | None:
        try:
            data = repository.store.read(record_key(seq), 0, MAX_RECORD_BYTES + 1)
            return parse_record(data, seq)
        except Missing:
            return None  # the log of a working copy begins later

    with ThreadPoolExecutor(_PARALLEL_READS) as pool:
        found = list(pool.map(read, range(history.seq, start - 1, -1)))
    return [record for record in found if record is not None and not isinstance(record, Commit)]


def _document(
    repository: Repository, commits: Sequence[Commit], others: Sequence[AnyRecord] | None
) -> dict[str, Any]:
    history = repository.history
    versions = history.versions()
    latest = history.latest()
    document: dict[str, Any] = {
        "output": repository.store.url,
        "repository": history.repository,
        "generation": history.generation,
        "claimed_by": history.who,
        "total": len(history.commits) - len(history.dropped),
        "latest": latest.checkpoint if latest else None,
        "aliases": history.aliases,
        "pinned": sorted(history.pins),
        "checkpoints": [checkpoint_document(history, versions, commit) for commit in commits],
    }
    if others is not None:
        document["records"] = [msgspec.to_builtins(record) for record in others]
    return document
