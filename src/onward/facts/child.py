"""A question answered by a process of its own: `python -m onward.facts.child QUESTION < facts`.

Whoever may not wait, grow or die because of what a store holds asks this way, and ends the process
when it takes too long. The answer is one JSON object on standard output: `{"answer": …}`, or
`{"error": …}` for an error of ours.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

from onward.errors import OnwardError
from onward.facts.damage import damage_document
from onward.jobs.plan import make_plan
from onward.jobs.spec import JobSpec
from onward.repository import open_repository
from onward.repository.verifying import verify
from onward.stores import open_store


def plan(facts: dict[str, Any]) -> Any:
    """What a job would do; `facts` is its `JobSpec`."""
    return make_plan(JobSpec.of(facts)).document()


def damage(facts: dict[str, Any]) -> Any:
    """What is damaged in an output, or in the one checkpoint that is named; changes nothing."""
    repository = open_repository(open_store(facts["url"]))
    name, every_byte = facts.get("checkpoint"), bool(facts.get("every_byte"))
    commits = [repository.history.resolve(name)] if name else None
    findings = verify(repository, commits=commits, every_byte=every_byte)
    return damage_document(repository, findings, every_byte=every_byte)


QUESTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {"plan": plan, "damage": damage}


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
