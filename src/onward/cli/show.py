"""`onward show`: one checkpoint, what made it and what it holds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import islice
from typing import Any

import click

from onward.cli.options import (
    best_options,
    json_option,
    output_argument,
    write_json,
    write_lines,
)
from onward.cli.text import clean, count, number, on_terminal, painted, size, table, when
from onward.facts.checkpoints import shown_document
from onward.facts.contents import contents, flattened, own_packs, shown, top
from onward.facts.outputs import Found, find_in, label, open_output
from onward.repository import Tensor
from onward.training.wording import lasting

_TENSORS_ON_A_TERMINAL = 30
_OWN_ENTRY = "onward"


@click.command()
@output_argument
@click.argument("checkpoint", metavar="[CHECKPOINT]", default="latest")
@best_options
@click.option("--all", "everything", is_flag=True, help="All tensors, on a terminal too.")
@json_option
def show(
    output: str, checkpoint: str, metric: str, lowest: bool, everything: bool, as_json: bool
) -> None:
    """Show what made one checkpoint (by default the latest), and what it holds."""
    found = find_in(open_output(output), checkpoint, metric=metric, lowest=lowest)
    if as_json:
        write_json(shown_document(found))
    else:
        limit = _TENSORS_ON_A_TERMINAL if on_terminal() and not everything else None
        write_lines([*_facts(found), *_metrics(found), *_about(found), *_holds(found, limit)])


def _facts(found: Found) -> list[str]:
    history, commit, manifest = found.repository.history, found.commit, found.manifest
    names = history.names_of(commit.checkpoint)
    if commit.checkpoint in history.pins:
        names.append("pinned")
    latest = history.latest()
    if latest is not None and latest.checkpoint == commit.checkpoint:
        names.insert(0, "latest")
    titled = f"checkpoint {found.label}" + (f"  ({', '.join(map(clean, names))})" if names else "")
    place = f"step {commit.step:,}, epoch {commit.epoch:,}, increment {commit.increment:,}"
    state = "finished" if commit.finished else "not finished"
    rows = [
        ["output", clean(found.repository.store.url)],
        ["trained", place],
        ["increment", f"{state}; began as {clean(manifest.verb)}"],
        ["saved", f"{when(commit.time, datetime.now().astimezone())}: {clean(commit.reason)}"],
        ["parent", _parent(found)],
        ["framework", clean(f"{manifest.framework.name} {manifest.framework.version}")],
    ]
    saving = manifest.about.get("saving")
    if isinstance(saving, Mapping):
        rows.insert(6, ["saved every", clean(_saving(saving))])
    if manifest.origin:
        origin = " @ ".join(clean(manifest.origin.get(key, "?")) for key in ("url", "checkpoint"))
        rows.insert(5, ["branched from", origin])
    return [painted(titled, "yellow"), *table(rows, indent="  ")]


def _saving(facts: Mapping[str, Any]) -> str:
    """How `save_every="auto"` chose, from what `MeasuredInterval.about` told."""

    def seconds(name: str) -> str:
        value = facts.get(name)
        if not isinstance(value, int | float):
            return "unknown"
        return lasting(value) if value >= 120 else f"{value:.3g} s"

    text = f"{seconds('interval_s')}, chosen for a failure every {seconds('mtbf_s')}"
    if "stall_s" not in facts:
        return f"{text}; no save was measured yet"
    return f"{text}: a save stalls {seconds('stall_s')}, durable after {seconds('durable_s')}"


def _parent(found: Found) -> str:
    history, parent = found.repository.history, found.commit.parent
    if parent is None:
        return "none"
    dropped = ", dropped since" if parent in history.dropped else ""
    return label(history, history.commits[parent]) + dropped


def _metrics(found: Found) -> list[str]:
    rows = [[clean(key), number(value)] for key, value in found.commit.metrics.items()]
    return ["", "metrics", *table(rows, right=[1], indent="  ")] if rows else []


def _about(found: Found) -> list[str]:
    about = dict(found.manifest.about)
    about.pop("saving", None)
    learning = about.get("learning")
    if isinstance(learning, Mapping) and isinstance(learning.get("curve"), list):
        # Pictures show it; --json has it whole.
        about["learning"] = {**learning, "curve": count(len(learning["curve"]), "point")}
    lines: list[str] = []
    for title in ("config", "data"):
        part = about.pop(title, None)
        if isinstance(part, Mapping):
            lines += _section("configuration" if title == "config" else title, part)
        elif part is not None:
            about[title] = part
    if isinstance(about.get("command"), list):
        about["command"] = " ".join(str(word) for word in about["command"])
    own = _own_values(found)
    return [*_section("about", about), *lines, *_section("the run's own counters", own)]


def _section(title: str, values: Mapping[str, Any]) -> list[str]:
    rows = [[clean(key), clean(_short(value))] for key, value in flattened(values).items()]
    return ["", title, *table(rows, indent="  ")] if rows else []


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 300 else f"{text[:297]}…"


def _own_values(found: Found) -> dict[str, Any]:
    """Counters, positions and settings that the run keeps for itself, as far as they are plain."""
    values = contents(found.manifest).values
    prefix = f"{_OWN_ENTRY}/"
    return {
        path.removeprefix(prefix): shown(value)
        for path, value in values.items()
        if path.startswith(prefix)
    }


def _holds(found: Found, limit: int | None) -> list[str]:
    manifest = found.manifest
    own = own_packs(found.repository, found.commit, manifest)
    held = contents(manifest)
    lines = ["", f"holds {size(manifest.size_bytes())} in {count(len(manifest.tensors), 'tensor')}"]
    lines[-1] += f"; this save stored {size(found.commit.stored)} of it"
    packs = [
        [pack, size(ref.size), "own" if pack in own else "inherited"]
        for pack, ref in manifest.packs.items()
    ]
    lines += table(_groups(held.tensors, held.values), right=[1, 3], indent="  ")
    lines += ["", "packs", *table(packs, right=[1], indent="  ")] if packs else []
    if not held.tensors:
        return lines
    rows = [
        [
            tensor.dtype,
            shape_text(tensor),
            size(tensor.size_bytes),
            _from(tensor, own),
            clean(path),
        ]
        for path, tensor in islice(held.tensors.items(), limit)
    ]
    lines += ["", "tensors", *table(rows, right=[2], indent="  ")]
    if len(rows) < len(held.tensors):
        lines.append(f"  … {count(len(held.tensors) - len(rows), 'more tensor')}: --all shows them")
    return lines


def _groups(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> list[list[str]]:
    """One row per object of the state: its tensors, their bytes, its other values."""
    names = dict.fromkeys(top(path) for path in (*tensors, *values))
    rows = []
    for name in names:
        mine = {id(t): t for path, t in tensors.items() if top(path) == name}
        others = sum(top(path) == name for path in values)
        rows.append(
            [
                clean(name),
                count(len(mine), "tensor"),
                size(sum(t.size_bytes for t in mine.values())),
                count(others, "other value"),
            ]
        )
    return rows


def _from(tensor: Tensor, own: set[str]) -> str:
    packs = list(dict.fromkeys(part.pack for part in tensor.ranges()))
    if not packs:
        return "empty"
    word = "own" if set(packs) <= own else "inherited" if not set(packs) & own else "patched"
    return f"{word} {packs[0][:8]}" + (f"+{len(packs) - 1}" if len(packs) > 1 else "")


def shape_text(tensor: Tensor) -> str:
    """`[10, 512]`."""
    return str(list(tensor.shape))
