"""What the end of an attempt means: for the attempt, and for its job."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onward.server.database.tables import Attempt, Job
from onward.server.settings import Settings
from onward.server.spec import RetrySpec

FRUITLESS_ATTEMPTS = 3
"""So many in a row that end at one step before a new checkpoint: the next one would, too."""

_CRASHES = ("crash", "out-of-memory", "hang", "timeout")
_SHOWN = 5
_KEPT = 50


@dataclass(frozen=True, slots=True)
class Ending:
    """How an attempt ended. `cause` is '' where it did what was asked, or was asked to stop."""

    state: str
    cause: str
    reason: str
    done: bool = False
    exit_status: int | None = None
    saves: int = 0
    lost: tuple[str, ...] = ()
    can_retry: bool = True
    outcome: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Turn:
    """Where a job goes from `running`, and what is noted with it."""

    state: str
    reason: str
    facts: Mapping[str, Any] = field(default_factory=dict)


def ended(attempt: Attempt, document: Mapping[str, Any]) -> Ending:
    """An attempt whose agent left an outcome."""
    outcome = document.get("outcome") or {}
    tries = outcome.get("attempts") or [{}]
    exit_code, cause = int(document.get("exit_code", 1)), str(document.get("cause", ""))
    asked = attempt.asked_why if attempt.asked_why in ("hang", "timeout") else ""
    if asked and exit_code != 0 and cause not in ("fenced", "infrastructure"):
        cause = asked
    state = {"preemption": "preempted", "out-of-memory": "out-of-memory", "fenced": "fenced"}
    return Ending(
        state.get(cause, "exited"),
        cause,
        _reason(attempt, outcome, cause),
        done=exit_code == 0,
        exit_status=tries[-1].get("exit_status"),
        saves=max(attempt.saves, sum(int(each.get("saves") or 0) for each in tries)),
        lost=tuple(str(each) for each in document.get("lost") or ()),
        # Wrong arguments stay wrong.
        can_retry=exit_code != 2 or cause != "crash",
        outcome=_short(outcome),
    )


def vanished(attempt: Attempt, reason: str) -> Ending:
    """An attempt whose agent is gone, or never came."""
    why = attempt.asked_why
    cause = why if why in ("hang", "timeout") else "infrastructure"
    return Ending("lost", cause, reason, saves=attempt.saves)


def turn(
    job: Job, attempt: Attempt, ending: Ending, settings: Settings, *, now_s: float,
    earlier: Sequence[Attempt],
) -> Turn:  # fmt: skip
    """The job's next state. `earlier` are its attempts before this one, newest first."""
    committed = job.committed or ending.saves > 0
    fruitless = 0 if ending.saves or ending.done else job.fruitless + 1
    facts: dict[str, Any] = {"committed": committed, "fruitless": fruitless}
    if ending.done:
        message = str(ending.outcome.get("nothing_new") or ending.outcome.get("message") or "")
        return Turn("succeeded", message, {**facts, "cause": "", "run_at": None})
    facts["cause"] = ending.cause
    if job.wanted == "pause" and ending.cause != "fenced":
        return Turn("paused", _said("paused", ending), {**facts, "run_at": None})
    if job.wanted in ("stop", "cancel"):
        word = "stopped" if job.wanted == "stop" else "cancelled"
        return Turn("cancelled", _said(word, ending), {**facts, "run_at": None})
    return _after_failure(job, attempt, ending, settings, now_s=now_s, earlier=earlier, facts=facts)


def _after_failure(
    job: Job, attempt: Attempt, ending: Ending, settings: Settings, *, now_s: float,
    earlier: Sequence[Attempt], facts: dict[str, Any],
) -> Turn:  # fmt: skip
    cause = ending.cause or "crash"
    facts = {**facts, "cause": cause}
    if cause == "fenced" or not ending.can_retry:
        return Turn("failed", ending.reason + _lost(ending), facts)
    if cause in _CRASHES and _is_loop(attempt, ending, earlier):
        where = f"at step {attempt.step:,}" if attempt.step is not None else "before a first step"
        return Turn(
            "failed",
            f"{ending.reason}; {FRUITLESS_ATTEMPTS} attempts in a row ended {where}, before a new "
            f"checkpoint: the next one would, too{_lost(ending)}",
            facts,
        )
    allowed = RetrySpec.model_validate(job.spec.get("retries") or {}).of(cause)
    spent = int(job.retried.get(cause, 0))
    if spent >= allowed:
        tries = f"all {allowed} retries are used up" if allowed else "there are no retries"
        return Turn("failed", f"{ending.reason}; {tries} for {cause}{_lost(ending)}", facts)
    wait_s = backoff_s(settings, int(facts["fruitless"]))
    return Turn(
        "backoff",
        f"{ending.reason}; retry {spent + 1} of {allowed} for {cause} in {wait_s:g} s",
        {**facts, "retried": {**job.retried, cause: spent + 1}, "run_at": now_s + wait_s},
    )


def backoff_s(settings: Settings, fruitless: int) -> float:
    """Doubles with every attempt in a row that brought nothing new."""
    doubled_s: float = settings.first_backoff_s * 2.0 ** min(max(fruitless - 1, 0), 30)
    return min(doubled_s, settings.longest_backoff_s)


def _is_loop(attempt: Attempt, ending: Ending, earlier: Sequence[Attempt]) -> bool:
    if ending.saves:
        return False
    before = earlier[: FRUITLESS_ATTEMPTS - 1]
    return len(before) == FRUITLESS_ATTEMPTS - 1 and all(
        each.cause in _CRASHES and not each.saves and each.step == attempt.step for each in before
    )


def _short(outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What the database keeps: of long lists the end. The whole is in the attempt's folder."""
    return {
        name: value[-_KEPT:] if isinstance(value, list) else value
        for name, value in outcome.items()
    }


def _reason(attempt: Attempt, outcome: Mapping[str, Any], cause: str) -> str:
    error = outcome.get("error") or {}
    text = str(outcome.get("message") or "")
    if error.get("what"):
        told = ": ".join(str(each) for each in (error["what"], error.get("why")) if each)
        text = f"{text}: {told}" if text else told
    if not cause:
        return text
    text = text or "it ended"
    if cause == "hang":
        return f"no step and no line of its log for too long; {text}"
    if cause == "timeout":
        return f"it ran longer than its limit; {text}"
    if cause == "out-of-memory":
        return f"memory ran out; {text}"
    return text


def _said(word: str, ending: Ending) -> str:
    if ending.state == "lost":
        return f"{word}; {ending.reason}"
    if ending.exit_status not in (None, 0, 75, 130) and word != "cancelled":
        return f"{word}; {ending.reason}{_lost(ending)}"
    return word + _lost(ending)


def _lost(ending: Ending) -> str:
    if not ending.lost:
        return ""
    shown = ", ".join(ending.lost[:_SHOWN])
    more = len(ending.lost) - _SHOWN
    return f"; NOT pushed: {shown}" + (f" and {more} more" if more > 0 else "")
