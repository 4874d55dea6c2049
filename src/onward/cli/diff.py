"""`onward diff`: two checkpoints, of one output or of two."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Any, TypeVar

import click
import msgspec

from onward.cli.comparing import ABSENT, Changed, Comparison, Pair, bytes_to_read, compare
from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    write_json,
    write_lines,
)
from onward.cli.progress import byte_progress
from onward.cli.show import shape_text
from onward.cli.text import clean, count, number, on_terminal, painted, size, table
from onward.facts.contents import plain, shown, top
from onward.facts.outputs import Found, open_output, using
from onward.repository import Repository, Tensor

T = TypeVar("T")
_ROWS_ON_A_TERMINAL = 30


@click.command()
@output_argument
@click.argument("first", metavar="A")
@click.argument("second", metavar="B")
@best_options
@click.option("--all", "everything", is_flag=True, help="Every difference, on a terminal too.")
@json_option
def diff(
    output: str,
    first: str,
    second: str,
    metric: str,
    lowest: bool,
    everything: bool,
    as_json: bool,
) -> None:
    """Compare two checkpoints, down to the values.

    A and B are checkpoints of OUTPUT, or OTHER-OUTPUT@CHECKPOINT to compare across outputs. Only
    what differs is listed: facts, configuration, metrics, plain state, and tensors, with the
    largest absolute difference and the norm of the difference relative to A's. Tensors whose
    digests are equal are not read.
    """
    repository = open_output(output)

    def compared(a: Found, b: Found) -> tuple[Found, Found, Comparison]:
        with byte_progress("reading", lambda: bytes_to_read(a, b), hidden=as_json) as progress:
            return a, b, compare(a, b, progress=progress)

    def compared_with(a: Found) -> tuple[Found, Found, Comparison]:
        return _using(repository, second, lambda b: compared(a, b), metric, lowest)

    a, b, comparison = _using(repository, first, compared_with, metric, lowest)
    if as_json:
        write_json(_document(a, b, comparison))
    else:
        limit = _ROWS_ON_A_TERMINAL if on_terminal() and not everything else None
        write_lines(_lines(a, b, comparison, limit))


def _using(
    repository: Repository, name: str, act: Callable[[Found], T], metric: str, lowest: bool
) -> T:
    url, at, checkpoint = name.rpartition("@")  # no checkpoint's name has an @ in it
    if at:
        repository = open_output(url)
    return using(repository, checkpoint, act, metric=metric, lowest=lowest)


def _lines(a: Found, b: Found, found: Comparison, limit: int | None) -> list[str]:
    across = a.repository.history.repository != b.repository.history.repository
    lines = []
    for letter, one in (("A", a), ("B", b)):
        where = f"  {clean(one.repository.store.url)}" if across else ""
        lines.append(painted(f"{letter} {one.label}  step {one.commit.step:,}", "yellow") + where)
    lines += _pairs("facts", found.facts, None, _plain_text)
    lines += _pairs("configuration", found.configuration, limit, _plain_text)
    lines += _pairs("about", found.about, limit, _plain_text)
    lines += _metrics(found.metrics)
    lines += _pairs("state that is no tensor", found.values, limit, shown)
    lines += _tensors(found, limit)
    if not found.bytes_differ:
        lines += ["", "the stored states are equal, bit for bit"]
    return lines


def _pairs(title: str, pairs: Mapping[str, Pair], limit: int | None, text: Any) -> list[str]:
    rows = [
        [clean(key), *("—" if side is ABSENT else clean(text(side)) for side in pair)]
        for key, pair in islice(pairs.items(), limit)
    ]
    if not rows:
        return []
    lines = ["", title, *table([[key, a, "→", b] for key, a, b in rows], indent="  ")]
    if len(rows) < len(pairs):
        lines.append(f"  … {count(len(pairs) - len(rows), 'more difference')}: --all shows them")
    return lines


def _plain_text(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _metrics(pairs: Mapping[str, Pair]) -> list[str]:
    rows = []
    for key, (a, b) in pairs.items():
        sides = ["—" if side is ABSENT else number(side) for side in (a, b)]
        both = isinstance(a, float | int) and isinstance(b, float | int)
        rows.append([clean(key), sides[0], "→", sides[1], f"({b - a:+.4g})" if both else ""])
    return ["", "metrics", *table(rows, right=[1, 3], indent="  ")] if rows else []


def _tensors(found: Comparison, limit: int | None) -> list[str]:
    differing = len(found.changed)
    lines = ["", f"tensors: {differing:,} differ, {found.same_tensors:,} are equal"]
    lines[-1] += "".join(
        f", {len(tensors):,} only in {letter}"
        for letter, tensors in (("A", found.removed), ("B", found.added))
        if tensors
    )
    lines += table(_groups(found.changed), right=[1, 2, 3], indent="  ")
    rows = [
        *(_changed_row(one) for one in found.changed),
        *(["only in A", "", "", _described(path, t)] for path, t in found.removed.items()),
        *(["only in B", "", "", _described(path, t)] for path, t in found.added.items()),
    ]
    if rows:
        kept = rows[:limit]
        titles = ["max |B-A|", "rel. L2", "elements", "tensor"]
        lines += ["", *table([titles, *kept], right=[0, 1, 2], indent="  ")]
        if len(kept) < len(rows):
            lines.append(f"  … {count(len(rows) - len(kept), 'more tensor')}: --all shows them")
    return lines


def _groups(changed: list[Changed]) -> list[list[str]]:
    """One row per object of the state whose tensors differ."""
    rows = []
    for name in dict.fromkeys(top(one.path) for one in changed):
        mine = [one.by for one in changed if top(one.path) == name and one.by is not None]
        if mine:
            largest = max(by.max_abs for by in mine)
            rows.append([clean(name), count(len(mine), "tensor"), "largest", f"{largest:.4g}"])
    return rows


def _changed_row(one: Changed) -> list[str]:
    name = clean(one.path)
    if (one.first.dtype, one.first.shape) != (one.second.dtype, one.second.shape):
        name += f"  {_kind(one.first)} → {_kind(one.second)}"
    if one.by is None:
        return ["—", "—", "dtype" if one.first.shape == one.second.shape else "shape", name]
    by = one.by
    changed = "dtype" if by.changed is None else _share(by.changed, by.elements)
    if by.not_finite:
        name += f"  ({by.not_finite:,} not finite)"
    relative = "from 0" if by.relative_l2 is None else f"{by.relative_l2:.3g}"
    return [f"{by.max_abs:.4g}", relative, changed, name]


def _share(changed: int, elements: int) -> str:
    percent = 100 * changed / elements if elements else 0.0
    return "all" if changed == elements else f"{max(percent, 0.01):.2g} %"


def _kind(tensor: Tensor) -> str:
    return f"{tensor.dtype} {shape_text(tensor)}"


def _described(path: str, tensor: Tensor) -> str:
    return f"{clean(path)}  {_kind(tensor)} {size(tensor.size_bytes)}"


def _document(a: Found, b: Found, found: Comparison) -> dict[str, Any]:
    return {
        "a": _side(a),
        "b": _side(b),
        "equal": not found.bytes_differ,
        "facts": _pair_documents(found.facts),
        "configuration": _pair_documents(found.configuration),
        "about": _pair_documents(found.about),
        "metrics": _pair_documents(found.metrics),
        "values": _pair_documents(found.values),
        "tensors": {
            "equal": found.same_tensors,
            "changed": [_changed_document(one) for one in found.changed],
            "only_in_a": [_tensor_document(p, t) for p, t in found.removed.items()],
            "only_in_b": [_tensor_document(p, t) for p, t in found.added.items()],
        },
    }


def _side(one: Found) -> dict[str, Any]:
    history = one.repository.history
    return {
        "output": one.repository.store.url,
        "checkpoint": one.commit.checkpoint,
        "version": history.versions()[one.commit.checkpoint],
        "step": one.commit.step,
    }


def _pair_documents(pairs: Mapping[str, Pair]) -> dict[str, dict[str, Any]]:
    return {
        key: {
            letter: plain(side)
            for letter, side in zip(("a", "b"), pair, strict=True)
            if side is not ABSENT
        }
        for key, pair in pairs.items()
    }


def _changed_document(one: Changed) -> dict[str, Any]:
    return {
        "path": one.path,
        "a": {"dtype": one.first.dtype, "shape": one.first.shape},
        "b": {"dtype": one.second.dtype, "shape": one.second.shape},
        "by": None if one.by is None else msgspec.to_builtins(one.by),
    }


def _tensor_document(path: str, tensor: Tensor) -> dict[str, Any]:
    return {"path": path, "dtype": tensor.dtype, "shape": tensor.shape}
