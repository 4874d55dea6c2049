"""`onward prune`: rules say which checkpoints stay; the others go, and their space is freed."""

from __future__ import annotations

import time
from typing import Any

import click

from onward.cli.options import (
    grace_option,
    json_option,
    output_argument,
    single_writer_option,
    write_json,
    write_lines,
)
from onward.cli.text import clean, count, painted, size, table, waiting_text
from onward.facts.checkpoints import checkpoint_document
from onward.facts.outputs import open_for_change, open_output
from onward.repository import History, Repository
from onward.repository.collecting import Collector, Reach, Swept, usual_grace_s
from onward.repository.leftovers import Leftovers
from onward.repository.repacking import Repacked, Repacker
from onward.repository.retention import BestOf, Decision, Retention, check_metrics, decide


@click.command()
@output_argument
@click.option("--keep-last", type=int, metavar="N", help="Keep the newest N.")
@click.option(
    "--keep-every",
    type=int,
    metavar="STEPS",
    help="Keep the first at or after each multiple of so many optimizer steps.",
)
@click.option(
    "--keep-best",
    multiple=True,
    metavar="METRIC[:min|:max][:N]",
    help="Keep the best by a metric, highest unless :min; may be given more than once.",
)
@click.option(
    "--keep-finished/--no-keep-finished",
    default=True,
    show_default=True,
    help="Keep the newest finished checkpoint of each increment.",
)
@click.option(
    "--repack/--no-repack",
    default=True,
    show_default=True,
    help="Rewrite packs of which little is still needed.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would happen; changes nothing.")
@grace_option
@single_writer_option
@json_option
def prune(
    output: str,
    keep_last: int | None,
    keep_every: int | None,
    keep_best: tuple[str, ...],
    keep_finished: bool,
    repack: bool,
    dry_run: bool,
    grace_s: float | None,
    single_writer: bool,
    as_json: bool,
) -> None:
    """Forget the checkpoints that no rule keeps, and free the space that only they need.

    Rules add up. The newest checkpoint, and those with an alias or a pin, always stay. Without a
    rule nothing is forgotten; what earlier drops and saves that were cut off left is deleted,
    and packs of which little is still needed are rewritten.
    """
    retention = Retention(
        keep_last=keep_last,
        keep_every=keep_every,
        keep_best=tuple(map(BestOf.parse, keep_best)),
        keep_finished=keep_finished,
    )
    if dry_run:
        repository = open_output(output)
    else:
        repository = open_for_change(output, single_writer=single_writer)
    before = repository.history
    check_metrics(before, retention)
    page = _Page(repository, decide(before, retention))
    kept_s = usual_grace_s(repository.store) if grace_s is None else grace_s
    if dry_run:
        page.foresee(grace_s=kept_s, repack=repack)
    else:
        page.carry_out(retention, grace_s=kept_s, repack=repack)
    if as_json:
        write_json(page.document(dry_run=dry_run))
    else:
        write_lines(page.lines(dry_run=dry_run))


class _Page:
    """What is decided, what is done about it, and how it is told."""

    def __init__(self, repository: Repository, decision: Decision) -> None:
        self._collector = Collector(repository)
        history = repository.history
        versions = history.versions()
        self._output = repository.store.url
        self._commits = list(history.newest_first())
        self._documents = [checkpoint_document(history, versions, c) for c in self._commits]
        self._reasons = decision.reasons
        self._own = _own_bytes(self._collector.reach, history, decision.goes)
        self._swept = Swept()
        self._leftovers = 0
        self._repacked = Repacked()
        self._saved_bytes = 0
        self.dropped = decision.goes

    def foresee(self, *, grace_s: float, repack: bool) -> None:
        """Finds out what `carry_out` would do; changes nothing."""
        swept = self._collector.due(grace_s=grace_s, now_s=time.time())
        freed, waiting = swept.freed_bytes, swept.waiting_bytes
        if grace_s <= 0:
            freed += self._own
        else:
            waiting += self._own
        self._swept = Swept(freed, waiting)
        self._leftovers = len(Leftovers(self._collector).due())
        if repack:
            sparse = Repacker(self._collector).sparse(without=self.dropped)
            self._repacked = Repacked(packs=[each.pack for each in sparse])
            self._saved_bytes = sum(each.size_bytes - each.live_bytes for each in sparse)

    def carry_out(self, retention: Retention, *, grace_s: float, repack: bool) -> None:
        self.dropped = self._collector.prune(retention)
        self._leftovers = Leftovers(self._collector).sweep()
        self._swept = self._collector.sweep(grace_s=grace_s, now_s=time.time())
        if repack:
            self._repacked = Repacker(self._collector).repack()
        if self._repacked.packs:
            again = self._collector.sweep(grace_s=grace_s, now_s=time.time())
            self._swept = Swept(self._swept.freed_bytes, again.waiting_bytes)
            self._saved_bytes = again.freed_bytes - self._repacked.written_bytes

    def lines(self, *, dry_run: bool) -> list[str]:
        rows = []
        for document in self._documents:
            id_ = document["checkpoint"]
            goes = id_ in self.dropped
            why = ", ".join(map(clean, self._reasons[id_])) or "kept meanwhile"
            rows.append(
                [
                    painted("goes", "red") if goes else "stays",
                    f"v{document['version']} {id_}",
                    f"step {document['step']:,}",
                    "" if goes else why,
                ]
            )
        lines = table(rows, right=[2])
        dropped = count(len(self.dropped), "checkpoint")
        stays = len(rows) - len(self.dropped)
        verbs = ("would drop", "would free") if dry_run else ("dropped", "freed")
        lines.append(f"{verbs[0]} {dropped}, {stays:,} remain")
        lines.append(f"{verbs[1]} {size(self._swept.freed_bytes)}")
        if self._leftovers:
            left = count(self._leftovers, "leftover")
            lines.append(f"{'would delete' if dry_run else 'deleted'} {left} of saves cut off")
        if self._repacked.packs:
            packs = count(len(self._repacked.packs), "pack")
            saved = f", saving {'about ' * dry_run}{size(max(0, self._saved_bytes))}"
            lines.append(f"{'would repack' if dry_run else 'repacked'} {packs}{saved}")
        for pack, why in self._repacked.refused.items():
            lines.append(f"not repacked: {pack}: {clean(why)}")
        if self._swept.waiting_bytes:
            lines.append(waiting_text(self._swept.waiting_bytes))
        return lines

    def document(self, *, dry_run: bool) -> dict[str, Any]:
        for document in self._documents:
            document["goes"] = document["checkpoint"] in self.dropped
            document["reasons"] = list(self._reasons[document["checkpoint"]])
        return {
            "output": self._output,
            "dry_run": dry_run,
            "checkpoints": self._documents,
            "dropped": list(self.dropped),
            "freed_bytes": self._swept.freed_bytes,
            "waiting_bytes": self._swept.waiting_bytes,
            "leftovers": self._leftovers,
            "repacked": {
                "packs": len(self._repacked.packs),
                "saved_bytes": self._saved_bytes,
                "refused": self._repacked.refused,
            },
        }


def _own_bytes(reach: Reach, history: History, goes: list[str]) -> int:
    return sum(reach.only(history, goes).values()) if goes else 0
