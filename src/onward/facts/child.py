"""A question answered by a process of its own: `python -m onward.facts.child QUESTION < facts`.

Whoever may not wait, grow or die because of what a store holds asks this way, and ends the process
when it takes too long. The answer is one JSON object on standard output: `{"answer": …}`, or
`{"error": …}` for an error of ours.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onward.errors import Damaged, DataError, NewerFormat, OnwardError
from onward.facts.checkpoints import shown_document
from onward.facts.damage import PROGRESS, damage_document
from onward.facts.data_diff import compared_checkpoints, compared_document
from onward.facts.data_log import data_facts
from onward.facts.ledgers import ledgers_in
from onward.facts.outputs import find_in, open_for_change
from onward.facts.promoting import promote
from onward.facts.report import gather
from onward.facts.report_document import report_document
from onward.facts.seen import Asked, answer_of
from onward.jobs.plan import make_plan
from onward.jobs.spec import JobSpec
from onward.repository import open_repository
from onward.repository.verifying import verify
from onward.stores import open_store

_TELL_EVERY_S = 0.2
_MOST_READ_BYTES = 256 << 20
"""Of data, for a plan that somebody waits for."""


def plan(facts: dict[str, Any]) -> Any:
    """What a job would do; `facts` is its `JobSpec`."""
    return make_plan(JobSpec.of(facts), most_read_bytes=_MOST_READ_BYTES).document()


def damage(facts: dict[str, Any]) -> Any:
    """What is damaged in the checkpoint that is named, by lengths; changes nothing."""
    repository = open_repository(open_store(facts["url"]))
    commit = repository.history.resolve(facts["checkpoint"])
    return damage_document(repository, verify(repository, commits=[commit]), every_byte=False)


def damage_in_every_byte(facts: dict[str, Any]) -> Any:
    """As `damage`, by every byte. Tells in a file `PROGRESS` of its folder how far it is."""
    repository = open_repository(open_store(facts["url"]))
    commit = repository.history.resolve(facts["checkpoint"])
    try:
        all_bytes = sum(pack.size for pack in repository.manifest(commit).packs.values())
    except (Damaged, NewerFormat):
        all_bytes = 0  # a finding
    told, parent = _Told(Path(PROGRESS), all_bytes), os.getppid()

    def progress(size: int) -> None:
        if os.getppid() != parent:
            sys.exit(1)  # who asked was killed, and the next one asks again
        told.add(size)

    findings = verify(repository, commits=[commit], every_byte=True, progress=progress)
    return damage_document(repository, findings, every_byte=True)


class _Told:
    """What was read so far, in a file that is never half written."""

    def __init__(self, path: Path, all_bytes: int) -> None:
        self._path = path
        self._all_bytes = all_bytes
        self._read_bytes = 0
        self._next_s = 0.0
        self.add(0)

    def add(self, size: int) -> None:
        self._read_bytes += size
        if time.monotonic() < self._next_s:
            return
        self._next_s = time.monotonic() + _TELL_EVERY_S
        fresh = self._path.with_suffix(".fresh")
        said = {"read_bytes": self._read_bytes, "all_bytes": self._all_bytes}
        fresh.write_text(json.dumps(said))
        fresh.replace(self._path)


def show(facts: dict[str, Any]) -> Any:
    """What one checkpoint holds, and what its data was."""
    found = find_in(open_repository(open_store(facts["url"])), facts["checkpoint"])
    return {"shown": shown_document(found), "loaders": data_facts(found.manifest)}


def report(facts: dict[str, Any]) -> Any:
    """What each increment cost."""
    return report_document(gather(open_repository(open_store(facts["url"]))))


def data_diff(facts: dict[str, Any]) -> Any:
    """How the data of the second checkpoint differs from that of the first."""
    repository = open_repository(open_store(facts["url"]))
    compared = compared_checkpoints(
        repository, facts["first"], facts["second"], facts.get("loader", "")
    )
    return compared_document(compared, facts["names"])


def seen(facts: dict[str, Any]) -> Any:
    """Of some checkpoints, whether each learned from an item; null of those that cannot tell.

    Raises why if none of them can.
    """
    repository = open_repository(open_store(facts["url"]))
    asked = Asked(facts["by"], facts["item"])
    answers: dict[str, Any] = {}
    silent: DataError | None = None
    for id_ in facts["checkpoints"]:
        try:
            held = ledgers_in(repository, id_)
        except DataError as error:  # it keeps no ledger; another may
            silent = error
            answers[id_] = {"seen": None, "learned": None}
            continue
        learned, learning = answer_of(asked, list(held.ledgers.values()))
        answers[id_] = {"seen": learned or learning, "learned": learned}
    if silent is not None and all(each["seen"] is None for each in answers.values()):
        raise silent
    return answers


def make_champion(facts: dict[str, Any]) -> Any:
    """Promotes a checkpoint past the gate."""
    repository = open_for_change(facts["url"], single_writer=facts["single_writer"])
    done = promote(repository, facts["checkpoint"], force=facts["force"], margin=facts["margin"])
    return done.document()


QUESTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "plan": plan,
    "damage": damage,
    "damage_in_every_byte": damage_in_every_byte,
    "show": show,
    "report": report,
    "data_diff": data_diff,
    "seen": seen,
    "promote": make_champion,
}


def main() -> int:
    """Answers one question."""
    try:
        answer: dict[str, Any] = {"answer": QUESTIONS[sys.argv[1]](json.load(sys.stdin))}
    except OnwardError as error:
        answer = {
            "error": {
                "kind": type(error).__name__, "what": error.what, "why": error.why, "do": error.do,
            }
        }  # fmt: skip
    json.dump(answer, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
