"""The lineage of checkpoints as SVG: which came from which, and what matters about them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from onward.cli.report_words import ENGLISH, Words
from onward.cli.text import clean
from onward.facts.lineage import MOST_LANES, Node, nodes_of, place
from onward.learning.rounds import Round
from onward.repository import History

_ROW, _LANE, _LEFT = 40, 16, 14
_TEXT_WIDTH = 270
_NAMES_SHOWN, _NAME, _LINE = 3, 24, 44

STYLE = """
.lineage text{font:13px system-ui,sans-serif;fill:var(--text)}
.lineage .small{font-size:11.5px;fill:var(--muted)}
.lineage .edge{stroke:var(--line-strong);stroke-width:1.5;fill:none}
.lineage .edge.far{stroke-dasharray:3 3}
.lineage .node{fill:var(--surface);stroke:var(--accent);stroke-width:2}
.lineage .node.finished{fill:var(--accent)}
.lineage .node.gone{stroke:var(--muted);fill:var(--surface);stroke-dasharray:2 2}
.lineage .good{fill:var(--good)}
.lineage .bad{fill:var(--bad)}
"""


def lineage(history: History, found: Sequence[Round], words: Words = ENGLISH) -> str:
    """The `<svg>`, newest first: ends of increments, forks, names, pins, verdicts and audits.

    Checkpoints between two of these are only counted, and beyond 200 rows only that there are more.
    """
    nodes, older = nodes_of(history, found)
    if not nodes:
        return ""
    lanes = place(nodes)
    text_x = _LEFT + lanes * _LANE + 4
    width, height = text_x + _TEXT_WIDTH, len(nodes) * _ROW + (24 if older else 6)
    versions = history.versions()
    by_id = {node.commit.checkpoint: node for node in nodes}
    edges, marks = [], []
    for node in nodes:
        edges.append(_edge(node, by_id.get(node.parent or ""), height))
        marks.append(_mark(history, node, versions[node.commit.checkpoint], text_x, words))
    tail = ""
    if older:
        text = escape(words.older.format(count=older))
        tail = f'<text class="small" x="{text_x}" y="{height - 8}">{text}</text>'
    label = escape(words.lineage_label)
    return (
        f'<svg class="lineage" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{label}">{"".join(edges)}{"".join(marks)}{tail}</svg>'
    )


def _x(node: Node) -> int:
    return _LEFT + min(node.lane, MOST_LANES - 1) * _LANE


def _y(node: Node) -> int:
    return node.row * _ROW + 16


def _edge(node: Node, parent: Node | None, height: int) -> str:
    if node.parent is None:
        return ""
    far = " far" if node.between else ""
    if parent is None:  # it is not drawn any more
        return f'<path class="edge{far}" d="M{_x(node)} {_y(node)}V{height - 20}"/>'
    x, y, to_x, to_y = _x(node), _y(node), _x(parent), _y(parent)
    bend = "" if x == to_x else f"V{to_y - 14}Q{x} {to_y} {to_x} {to_y}"
    return f'<path class="edge{far}" d="M{x} {y}{bend or f"V{to_y}"}"/>'


def _mark(history: History, node: Node, version: int, text_x: int, words: Words) -> str:
    commit = node.commit
    gone = commit.checkpoint in history.dropped
    kind = " gone" if gone else " finished" if commit.finished else ""
    first = " · ".join(
        [
            f"v{version}",
            words.step.format(step=commit.step),
            words.increment_n.format(number=commit.increment),
        ]
    )
    facts = [words.dropped] if gone else []
    newest = history.latest()
    if newest is not None and newest.checkpoint == commit.checkpoint:
        facts.append(words.latest)
    if not commit.finished:
        facts.append(words.unfinished)
    names = history.names_of(commit.checkpoint)
    facts += [_cut(name, _NAME) for name in names[:_NAMES_SHOWN]]
    if len(names) > _NAMES_SHOWN:
        facts.append(f"+{len(names) - _NAMES_SHOWN}")
    if commit.checkpoint in history.pins:
        facts.append(words.pinned)
    if commit.checkpoint in history.audits:
        facts.append(words.audited_mark)
    if node.between:
        facts.append(words.between.format(count=node.between))
    x, y = _x(node), _y(node)
    verdict = commit.row.verdict if commit.row else ""
    word = verdict.partition(":")[0]  # what follows names holdouts
    colour = {"regression": "bad", "better": "good"}.get(word, "")
    said = f'<tspan class="{colour}">{escape(_cut(verdict, _NAME))}</tspan>' if verdict else ""
    plain = escape(_cut(" · ".join(facts), _LINE))
    second = " · ".join(part for part in (said, plain) if part)
    title = escape(f"{commit.checkpoint}: {_cut(commit.reason, 200)}")
    return (
        f'<g><title>{title}</title><circle class="node{kind}" cx="{x}" cy="{y}" r="5"/>'
        f'<text x="{text_x}" y="{y + 1}">{escape(first)}</text>'
        f'<text class="small" x="{text_x}" y="{y + 16}">{second}</text></g>'
    )


def _cut(text: str, most: int) -> str:
    text = clean(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"
