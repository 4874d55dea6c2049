"""The report as text and as JSON documents."""

from __future__ import annotations

from collections.abc import Sequence

from onward.cli.report_words import ENGLISH, Words
from onward.cli.text import clean, number, size, table
from onward.facts.report import Facts
from onward.learning.bill import Bill, Gap, IncrementBill, Total
from onward.repository import Audit

_NAME = 40


def amount_text(name: str, value: float | None, words: Words = ENGLISH) -> str:
    """One field of a cost, such as `1,200`, `2.4 min` or `12 MB`."""
    if value is None:
        return words.unknown
    match name:
        case "seconds":
            return time_text(value)
        case "stored":
            return size(value)
    return f"{value:,.0f}"


def time_text(seconds: float) -> str:
    """Such as `0.32 s`, `35 s`, `2.4 min`, `3.4 h`, `2.1 days`."""
    value, unit = seconds, "s"
    for limit, length, longer in ((99.5, 60, "min"), (99.5, 60, "h"), (71.5, 24, "days")):
        if value < limit:
            break
        value, unit = value / length, longer
    return f"{value:.2g} {unit}" if value < 9.95 else f"{value:,.0f} {unit}"


def share_text(share: float | None) -> str:
    """A ratio such as `10 %`, `0.3 %`, `1,200 %`; empty where there is none."""
    if share is None:
        return ""
    percent = share * 100
    return f"{percent:,.0f} %" if percent >= 9.95 else f"{percent:.2g} %"


def used_text(bill: IncrementBill, name: str, words: Words = ENGLISH) -> str:
    """What an increment used of something; `≥` where only a part is known."""
    at_least = "≥ " if name in bill.used.at_least else ""
    return at_least + amount_text(name, bill.used.of(name), words)


def share_of_retrain(bill: IncrementBill, name: str, words: Words = ENGLISH) -> str:
    """Such as `10 % of 3,750`, with `~` unless the retrain was measured."""
    if bill.basis == "itself":
        return words.itself
    retrain = bill.retrain.of(name)
    if retrain is None:
        return words.unknown
    about = "" if bill.is_exact or (bill.basis == "scaled" and name == "stored") else "~"
    whole = about + amount_text(name, retrain, words)
    share = share_text(bill.ratio(name)) if bill.finished else ""
    if not share:
        return words.so_far.format(retrain=whole)
    return words.share_of.format(share=about + share, retrain=whole)


def basis_text(bill: IncrementBill, words: Words = ENGLISH) -> str:
    """How the retrain's cost is known."""
    text: str = getattr(words, f"basis_{bill.basis}")
    return text.format(share=share_text(bill.audit.share)) if bill.audit is not None else text


def report_lines(facts: Facts, words: Words = ENGLISH) -> list[str]:
    """The whole report for people."""
    bill = facts.bill
    if not bill.increments:
        return [f"{clean(facts.url)}: {words.no_increment}"]
    head = [
        words.increment, words.steps, words.of_retrain, words.seconds, words.of_retrain,
        words.samples, words.stored,
    ]  # fmt: skip
    rows = [head]
    for one in bill.increments:
        name = f"{one.increment}" + ("" if one.finished else f" {words.unfinished}")
        rows.append(
            [
                name, used_text(one, "steps", words), share_of_retrain(one, "steps", words),
                used_text(one, "seconds", words), share_of_retrain(one, "seconds", words),
                used_text(one, "samples", words), used_text(one, "stored", words),
            ]
        )  # fmt: skip
    rows.append(_total_row(bill, words))
    lines = [clean(facts.url), *table(rows, right=[1, 3, 5, 6])]
    strategy = ""
    for one in bill.increments:
        more = _more(one, words, told_before=strategy)
        strategy = one.strategy
        if more:
            lines.append(f"{words.increment} {one.increment}: {more}")
    for one in bill.increments:
        if one.audit is not None and one.gaps:
            lines += ["", *audit_lines(_name_of(facts, one.audit), one.audit, one.gaps, words)]
    notes = [
        words.unreadable.format(checkpoint=id_, why=why) for id_, why in facts.unreadable.items()
    ]
    return [*lines, "", *footnotes(bill, words), *map(clean, notes)]


def footnotes(bill: Bill, words: Words = ENGLISH) -> list[str]:
    """What the signs in the table mean, as far as they are there."""
    bases = {one.basis for one in bill.increments}
    lines = []
    if "estimated" in bases:
        lines.append(words.note_estimated)
    if "scaled" in bases:
        lines.append(words.note_scaled)
    if "unknown" in bases:
        lines.append(words.note_unknown)
    if any(total.at_least for total in bill.totals.values()):
        lines.append(words.note_at_least)
    return [*lines, words.note_total]


def total_text(total: Total, name: str, words: Words = ENGLISH) -> str:
    """All that was used of something."""
    at_least = "≥ " if total.at_least else ""
    return at_least + amount_text(name, total.used, words)


def total_share(total: Total, name: str, words: Words = ENGLISH) -> str:
    """Such as `~31 % of ~12,000`."""
    if total.ratio is None:
        return words.unknown
    about = "~" if total.estimated else ""
    whole = about + amount_text(name, total.retrain, words)
    return words.share_of.format(share=about + share_text(total.ratio), retrain=whole)


def _total_row(bill: Bill, words: Words) -> list[str]:
    totals = bill.totals
    return [
        words.total,
        total_text(totals["steps"], "steps", words), total_share(totals["steps"], "steps", words),
        total_text(totals["seconds"], "seconds", words),
        total_share(totals["seconds"], "seconds", words),
        total_text(totals["samples"], "samples", words),
        total_text(totals["stored"], "stored", words),
    ]  # fmt: skip


def _more(bill: IncrementBill, words: Words, *, told_before: str) -> str:
    facts = []
    if bill.strategy and bill.strategy != told_before:
        facts.append(clean(bill.strategy))
    if bill.dropped:
        facts.append(dropped_text(bill, words))
    if bill.basis in ("measured", "scaled"):
        facts.append(f"{words.basis} {basis_text(bill, words)}")
    return ", ".join(facts)


def dropped_text(bill: IncrementBill, words: Words = ENGLISH) -> str:
    """How many of an increment's checkpoints are gone; empty where none is."""
    if not bill.dropped:
        return ""
    if bill.dropped == bill.checkpoints:
        return f"{words.checkpoints}: {words.all_dropped}"
    return f"{words.checkpoints}: " + words.some_dropped.format(count=bill.dropped)


def _name_of(facts: Facts, audit: Audit) -> str:
    return f"v{facts.history.versions()[audit.checkpoint]} {audit.checkpoint}"


def audit_title(audit: Audit, name: str, words: Words = ENGLISH) -> str:
    """What was audited, and what the retrain cost."""
    template = words.audited if audit.share == 1 else words.audited_sample
    return template.format(
        checkpoint=name, share=share_text(audit.share), steps=f"{audit.steps:,}",
        time=time_text(audit.seconds), stored=size(audit.stored),
    )  # fmt: skip


def audit_lines(name: str, audit: Audit, gaps: Sequence[Gap], words: Words = ENGLISH) -> list[str]:
    """One audit of the checkpoint called `name`: its cost, and each holdout beside ours."""
    lines = [audit_title(audit, name, words)]
    rows = [[words.holdout, words.ours, words.retrain, words.excess]]
    rows += [
        [clean(gap.holdout)[:_NAME], *(_score(value, words) for value in
         (gap.ours, gap.retrain, gap.excess))]
        for gap in gaps
    ]  # fmt: skip
    return lines + (table(rows, right=[1, 2, 3], indent="  ") if gaps else [])


def _score(value: float | None, words: Words) -> str:
    return words.not_scored if value is None else number(value)
