"""The report as one HTML page that needs nothing else: no script, no network, light and dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape

from onward import _version
from onward.cli import curves, lineage
from onward.cli.report_text import (
    amount_text,
    audit_title,
    basis_text,
    dropped_text,
    footnotes,
    share_of_retrain,
    share_text,
    total_share,
    total_text,
    used_text,
)
from onward.cli.report_words import ENGLISH, Words
from onward.cli.text import clean, number
from onward.facts.report import Facts
from onward.learning.bill import FIELDS, IncrementBill

_CURVES = 12
_GAPS = 40
_ROWS = 30
_NAME = 60

_LIGHT = """--surface:#fff;--page:#f6f7f9;--text:#1c2430;--muted:#5d6877;
--line:#e3e7ec;--line-strong:#9aa5b3;--band:#f1f4f8;--accent:#1f6feb;--good:#1a7f37;--bad:#c4232b"""
_STYLE = """
:root{color-scheme:light dark;$LIGHT}
@media (prefers-color-scheme:dark){:root{--surface:#171b22;--page:#0e1116;--text:#e4e8ee;
--muted:#98a3b1;--line:#2a313b;--line-strong:#5b6675;--band:#1f252e;--accent:#6ea8fe;
--good:#57c278;--bad:#ff7b72}}
*{box-sizing:border-box}
body{margin:0;background:var(--page);color:var(--text);font:15px/1.5 system-ui,sans-serif}
main{max-width:1120px;margin:0 auto;padding:24px 16px 48px}
h1{font-size:24px;margin:0;line-height:1.25}
h2{font-size:17px;margin:0 0 12px}
p{margin:6px 0}
header{margin-bottom:20px}
header p,.note{color:var(--muted);font-size:13px}
.place{overflow-wrap:anywhere;font-family:ui-monospace,monospace}
section{background:var(--surface);border:1px solid var(--line);border-radius:10px;padding:16px;
margin:16px 0}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:12px;margin:0}
.card{background:var(--surface);border:1px solid var(--line);border-radius:10px;padding:14px 16px}
.card b{display:block;font-size:17px;line-height:1.3;font-variant-numeric:tabular-nums}
.card span{color:var(--muted);font-size:13px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:right;padding:7px 10px;border-bottom:1px solid var(--line);vertical-align:top}
th{color:var(--muted);font-weight:500;font-size:13px}
th:first-child,td:first-child{text-align:left;padding-left:0}
th:last-child,td:last-child{padding-right:0}
td small{display:block;color:var(--muted);font-size:12.5px}
td.name{overflow-wrap:anywhere}
tr.total td{border-bottom:0;border-top:2px solid var(--line-strong);font-weight:600}
tr.total td small{font-weight:400}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:16px}
figure{margin:0;min-width:0}
figcaption{font-size:13px;overflow-wrap:anywhere}
figcaption span{color:var(--muted)}
.chart{display:block;width:100%;height:auto}
.scroll{overflow:auto;max-height:640px}
.matrix{overflow:auto;max-height:720px}
.matrix svg{display:block;border-radius:6px}
.bad{color:var(--bad)}
@media (min-width:641px){td:not(:last-child) small{white-space:nowrap}
.scroll th{position:sticky;top:0;background:var(--surface)}
.scroll tr.total td{position:sticky;bottom:0;background:var(--surface);
box-shadow:0 -2px 0 var(--line-strong)}}
@media (max-width:640px){main{padding:16px 10px 32px}section{padding:12px}
thead{display:none}tr{display:block;border-bottom:1px solid var(--line);padding:8px 0}
td,td:first-child,td:last-child{display:flex;justify-content:space-between;gap:12px;border:0;
padding:2px 0;text-align:right}
td::before{content:attr(data-label);color:var(--muted);font-size:13px;flex:none;text-align:left}
td:first-child{font-weight:600}
tr.total{border-bottom:0;border-top:2px solid var(--line-strong)}tr.total td{border:0}}
@media print{:root{color-scheme:light;$LIGHT}
body{background:none;font-size:12px}main{max-width:none;padding:0}
section,.card{break-inside:avoid;border-color:#ccc}.scroll,.matrix{max-height:none;overflow:visible}
.matrix svg{max-width:100%;height:auto}
section.long{break-inside:auto}}
""".replace("$LIGHT", _LIGHT)

Matrix = Callable[[Facts], str]
"""Draws the matrix of scores as `<svg>`; '' where there is nothing to draw."""


def page(facts: Facts, *, time: str, matrix: Matrix, words: Words = ENGLISH) -> str:
    """The whole document. Everything that others wrote is escaped; a policy forbids the rest."""
    style = _STYLE + curves.STYLE + lineage.STYLE
    sections = [_header(facts, time, words)]
    if facts.bill.increments:
        sections += [
            _cards(facts, words), _bill(facts, words), _audits(facts, words),
            _curves(facts, words), _matrix(facts, matrix, words), _lineage(facts, words),
            _notes(facts, words),
        ]  # fmt: skip
    else:
        sections.append(f"<section><p>{_text(words.no_increment)}</p></section>")
    return (
        f'<!doctype html><html lang="{words.language}"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{_text(words.title)}: {_text(_short_name(facts.url))}</title>"
        f"<style>{style}</style></head><body><main>{''.join(sections)}</main></body></html>\n"
    )


def picture(facts: Facts, *, matrix: Matrix, words: Words = ENGLISH) -> str:
    """The curves and the matrix as one SVG file; '' where there is neither."""
    drawn = [curves.chart(curve, facts.rounds, words) for curve in facts.curves[:_CURVES]]
    charts = [(curve, svg) for curve, svg in zip(facts.curves, drawn, strict=False) if svg]
    across = min(3, max(1, len(charts)))
    parts = []
    for place, (curve, svg) in enumerate(charts):
        x = (place % across) * (curves.WIDTH + 16) + 8
        y = (place // across) * (curves.HEIGHT + 34) + 8
        caption = _text(curve.metric[:_NAME])
        parts.append(f'<text class="caption" x="{x}" y="{y + 14}">{caption}</text>')
        parts.append(_placed(svg, x, y + 20))
    height = -(-len(charts) // across) * (curves.HEIGHT + 34) + 8
    width = across * (curves.WIDTH + 16)
    heat = matrix(facts)
    if heat:
        wide, tall = _extent(heat)
        parts.append(_placed(heat, 8, height + 8))
        width, height = max(width, wide + 16), height + tall + 16
    if not parts:
        return ""
    variables = _STYLE.split("*{", 1)[0].replace(":root", "svg")
    style = variables + curves.STYLE + ".caption{font:13px system-ui,sans-serif;fill:var(--text)}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{style}</style>'
        f'<rect width="100%" height="100%" fill="var(--surface)"/>{"".join(parts)}</svg>\n'
    )


def _header(facts: Facts, time: str, words: Words) -> str:
    count = _increments(len(facts.bill.increments), words)
    made = words.made.format(count=count, version=_version.__version__, time=time)
    return (
        f'<header><h1>{_text(words.title)}</h1><p class="place">{_text(facts.url)}</p>'
        f"<p>{_text(made)}</p></header>"
    )


def _cards(facts: Facts, words: Words) -> str:
    """The one figure that matters, four times: what increments took of what retraining takes."""
    cards = []
    for name in FIELDS:
        total = facts.bill.totals[name]
        if total.ratio is None:
            continue
        about = "~" if total.estimated else ""
        head = getattr(words, "headline" if name == "steps" else f"headline_{name}")
        under = words.headline_under.format(
            used=amount_text(name, total.compared, words),
            retrain=about + amount_text(name, total.retrain, words),
        )
        title = words.headline_over.format(count=_increments(total.increments, words))
        cards.append(
            f'<div class="card" title="{_text(title)}">'
            f"<b>{_text(head.format(share=about + share_text(total.ratio)))}</b>"
            f"<span>{_text(under)}</span></div>"
        )
    if not cards:
        return f'<p class="note">{_text(words.nothing_compared)}</p>'
    return f'<div class="cards">{"".join(cards)}</div>'


def _bill(facts: Facts, words: Words) -> str:
    names = [words.increment, *(getattr(words, name) for name in FIELDS), words.basis]
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = [_bill_row(one, names, words) for one in facts.bill.increments]
    cells = [_cell(names[0], words.total)]
    for name, label in zip(FIELDS, names[1:], strict=False):
        total = facts.bill.totals[name]
        cells.append(_cell(label, total_text(total, name, words), total_share(total, name, words)))
    rows.append(f'<tr class="total">{"".join(cells)}{_cell("", "")}</tr>')
    notes = "".join(f'<p class="note">{_text(line)}</p>' for line in footnotes(facts.bill, words))
    scroll = "scroll" if len(rows) > _ROWS else ""
    return (
        f'<section class="long"><h2>{_text(words.bill)}</h2><div class="{scroll}">'
        f"<table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>{notes}</section>"
    )


def _bill_row(one: IncrementBill, names: Sequence[str], words: Words) -> str:
    state = words.finished if one.finished else words.unfinished
    under = " · ".join(part for part in (state, dropped_text(one, words)) if part)
    cells = [_cell(names[0], f"{one.increment:,}", under)]
    for name, label in zip(FIELDS, names[1:], strict=False):
        share = "" if one.basis in ("itself", "unknown") else share_of_retrain(one, name, words)
        cells.append(_cell(label, used_text(one, name, words), share))
    cells.append(_cell(names[-1], basis_text(one, words), one.strategy))
    return f"<tr>{''.join(cells)}</tr>"


def _audits(facts: Facts, words: Words) -> str:
    audited = [one for one in facts.bill.increments if one.audit is not None]
    if not audited:
        return ""
    versions = facts.history.versions()
    parts = []
    for one in audited:
        audit = one.audit
        assert audit is not None
        said = audit_title(audit, f"v{versions[audit.checkpoint]}", words)
        parts.append(f"<p>{_text(said)}</p>")
        if one.gaps:
            parts.append(_gaps(one, words))
    note = f'<p class="note">{_text(words.excess_note)}</p>'
    return f"<section><h2>{_text(words.audits)}</h2>{''.join(parts)}{note}</section>"


def _gaps(one: IncrementBill, words: Words) -> str:
    names = [words.holdout, words.metric, words.ours, words.retrain, words.excess]
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    rows = []
    for gap in one.gaps[:_GAPS]:
        scores = [
            words.not_scored if value is None else number(value)
            for value in (gap.ours, gap.retrain, gap.excess)
        ]
        cells = [_cell(label, text) for label, text in
                 zip(names, [gap.holdout, gap.metric, *scores], strict=True)]  # fmt: skip
        rows.append(f"<tr>{''.join(cells)}</tr>")
    more = ""
    if len(one.gaps) > _GAPS:
        text = words.more_holdouts.format(count=len(one.gaps) - _GAPS)
        more = f'<p class="note">{_text(text)}</p>'
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _curves(facts: Facts, words: Words) -> str:
    figures = []
    for curve in facts.curves[:_CURVES]:
        svg = curves.chart(curve, facts.rounds, words)
        if not svg:
            continue
        last = curves.last_value(curve)
        facts_of = [words.last_value.format(value=number(last))]
        if curves.is_logarithmic(curve):
            facts_of.append(words.log_scale)
        figures.append(
            f"<figure><figcaption>{_text(curve.metric[:_NAME])} "
            f"<span>{_text(', '.join(facts_of))}</span></figcaption>{svg}</figure>"
        )
    note = words.curves_note if figures else words.no_curves
    if len(facts.curves) > _CURVES:
        note += " " + words.more_metrics.format(count=len(facts.curves) - _CURVES)
    return (
        f'<section><h2>{_text(words.curves)}</h2><div class="charts">{"".join(figures)}</div>'
        f'<p class="note">{_text(note)}</p></section>'
    )


def _matrix(facts: Facts, matrix: Matrix, words: Words) -> str:
    svg = matrix(facts)
    drawn = f'<div class="matrix">{svg}</div>' if svg else ""
    note = f'<p class="note">{_text(words.matrix_note if svg else words.no_matrix)}</p>'
    return f"<section><h2>{_text(words.matrix)}</h2>{drawn}{note}</section>"


def _lineage(facts: Facts, words: Words) -> str:
    svg = lineage.lineage(facts.history, facts.rounds, words)
    return (
        f'<section class="long"><h2>{_text(words.lineage)}</h2>'
        f'<div class="scroll">{svg}</div><p class="note">{_text(words.lineage_note)}</p></section>'
    )


def _notes(facts: Facts, words: Words) -> str:
    if not facts.unreadable:
        return ""
    lines = "".join(
        f'<p class="bad">{_text(words.unreadable.format(checkpoint=id_, why=why))}</p>'
        for id_, why in facts.unreadable.items()
    )
    return f"<section><h2>{_text(words.notes)}</h2>{lines}</section>"


def _increments(count: int, words: Words) -> str:
    return words.one_increment if count == 1 else words.increments.format(count=count)


def _cell(label: str, text: str, under: str = "") -> str:
    small = f"<small>{_text(under)}</small>" if under else ""
    return f'<td class="name" data-label="{_text(label)}"><span>{_text(text)}{small}</span></td>'


def _text(text: str) -> str:
    return escape(clean(text))


def _short_name(url: str) -> str:
    return url.partition("?")[0].rstrip("/").rpartition("/")[2] or url


def _placed(svg: str, x: int, y: int) -> str:
    return f'<g transform="translate({x} {y})">{svg}</g>'


def _extent(svg: str) -> tuple[int, int]:
    """Width and height of a drawing, as its `viewBox` says."""
    box = svg.partition('viewBox="')[2].partition('"')[0].split()
    return round(float(box[2])), round(float(box[3]))
