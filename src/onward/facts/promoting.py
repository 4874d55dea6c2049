"""Changing the champion: promoting past the gate, and going back."""

from __future__ import annotations

from dataclasses import dataclass

from onward.errors import Damaged, GateRefused, Regression, UnknownCheckpoint, Unproven
from onward.facts.gate import candidate_in, verdict_on
from onward.facts.outputs import label
from onward.learning.champion import CHAMPION, champions, move_champion
from onward.learning.gate import Verdict
from onward.repository import Commit, Repository


@dataclass(frozen=True, slots=True)
class Promotion:
    """Who is champion now, who was before, and what the gate said, if it was asked."""

    champion: Commit
    before: str | None
    verdict: Verdict | None = None

    def document(self) -> dict[str, object]:
        return {
            "champion": self.champion.checkpoint,
            "before": self.before,
            "verdict": self.verdict.document() if self.verdict else None,
        }


def promote(
    repository: Repository,
    name: str = "",
    *,
    force: bool = False,
    margin: float | None = None,
    relative_margin: float | None = None,
) -> Promotion:
    """Makes a checkpoint, by default the newest finished one, the champion.

    Only if the gate shows that it lost nothing, else raises `GateRefused`; `force` does not ask it.
    """
    history = repository.history
    found = candidate_in(history, name)
    before = history.aliases.get(CHAMPION)
    verdict: Verdict | None = None
    if before != found.checkpoint:
        if not force:
            _check_whole(repository, found)
        if before is not None and not force:
            verdict = verdict_on(
                repository, found, history.commits[before],
                margin=margin, relative_margin=relative_margin,
            )  # fmt: skip
            if not verdict.passed:
                raise _refusal(verdict)
        move_champion(repository, found.checkpoint, expected=before)
    return Promotion(found, before, verdict)


def next_back(repository: Repository, *, again: str = "name another one and force it") -> str:
    """The champion before the present one: where a rollback goes.

    Raises `UnknownCheckpoint` where there is none; `again` is what to do then.
    """
    present = repository.history.aliases.get(CHAMPION)
    stack = champions(repository)
    history = repository.history
    earlier = stack[:-1] if stack[-1:] == [present] else stack
    live = [id_ for id_ in earlier if id_ not in history.dropped]
    if not live:
        gone = ", ".join(f"v{history.versions()[id_]}" for id_ in earlier)
        raise UnknownCheckpoint(
            "there is no champion to go back to",
            why=f"dropped since: {gone}" if gone else "nothing was champion before",
            do=again,
        )
    return live[-1]


def roll_back(repository: Repository, *, again: str = "name another one and force it") -> Promotion:
    """Makes the champion before the present one the champion again, as `next_back` says."""
    present = repository.history.aliases.get(CHAMPION)
    target = next_back(repository, again=again)
    move_champion(repository, target, expected=present)
    return Promotion(repository.history.commits[target], present)


def _check_whole(repository: Repository, commit: Commit) -> None:
    damage = repository.damage(commit)
    if damage:
        raise Damaged(
            f"checkpoint {label(repository.history, commit)} cannot be restored",
            why=damage,
            do="promote another one; `onward verify` says which are intact",
        )


def _refusal(verdict: Verdict) -> GateRefused:
    kind = Regression if verdict.verdict == "regression" else Unproven
    reasons = [
        f"{judged.name!r}: {judged.why}"
        for judged in verdict.holdouts
        if judged.verdict not in ("better", "no change")
    ]
    return kind(
        f"{verdict.candidate} is not promoted over {verdict.champion}, {verdict.verdict}",
        why="\n".join(reasons) or "nothing was scored that both models know",
        do="`onward gate` shows the numbers; --force promotes it all the same",
    )
