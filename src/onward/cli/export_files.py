"""A checkpoint as the file that a framework's own script loads: .pth and .ckpt."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import click

from onward.cli.mindspore_support import mindspore_files
from onward.cli.progress import byte_progress
from onward.cli.target import FileChunks, Target
from onward.cli.text import clean, count
from onward.cli.torch_support import torch_files
from onward.errors import UsageError
from onward.facts.contents import RESERVED, contents, top
from onward.facts.outputs import Found
from onward.frameworks.base import TensorLeaf
from onward.frameworks.mindspore_entries import entries_of
from onward.frameworks.translation_by_shape import Renaming, renamed
from onward.repository import read_state

_Tree: TypeAlias = Mapping[str, Any]
_Writer: TypeAlias = Callable[[Found, str, _Tree, _Tree, Target, bool], tuple[int, list[str]]]
"""Writes a model and optimizers; gives the file's size and what found no place in it."""

FRAMEWORK_OF = {"pth": "torch", "ckpt": "mindspore"}


@dataclass(slots=True)
class Exported:
    """What went into the file."""

    tensors: int
    size_bytes: int
    left_out: list[str] = field(default_factory=list)
    made_with: str = ""
    renaming: Renaming | None = None
    """How names were translated, where another framework made the checkpoint."""

    def lines(self) -> list[str]:
        """What was translated, what could not be told and what is missing, for people."""
        lines = []
        if self.renaming is not None:
            lines += _translation_lines(self.renaming, self.made_with)
        if self.left_out:
            lines.append(f"left out: {', '.join(map(clean, self.left_out))}")
        return lines

    def document(self) -> dict[str, Any]:
        """The same for `--json`."""
        found = self.renaming
        return {
            "left_out": self.left_out,
            "translated": None
            if found is None
            else {
                "from": self.made_with,
                "by_name": found.by_name,
                "by_rule": dict(found.by_rule),
                "dropped": found.dropped,
                "not_told": found.unsure,
            },
        }


def export_native(
    found: Found,
    model: str,
    optimizers: list[str],
    target: Target,
    *,
    format_: str,
    whole: bool,
    layers: Mapping[str, str] | None,
    hidden: bool,
) -> Exported:
    """Writes one model, and if `whole` its optimizers, where the checkpoint is of this framework.

    Of another framework's checkpoint only the weights, under names as far as they can be told;
    with `layers` of None under their own.
    """
    made_with, to = found.manifest.framework.name, FRAMEWORK_OF[format_]
    keys = [model, *(optimizers if whole and made_with == to else [])]
    _check_layers(found, layers, translates=made_with != to)
    write = _pth_writer() if format_ == "pth" else _ckpt_writer()
    total = sum(t.size_bytes for p, t in contents(found.manifest).tensors.items() if top(p) in keys)
    with byte_progress("reading", lambda: total, hidden=hidden) as progress:
        tree = read_state(found.repository.store, found.manifest, keys=keys, progress=progress)
    renaming = None
    net = tree[model]
    leaves = {name: leaf for name, leaf in net.items() if isinstance(leaf, TensorLeaf)}
    if made_with != to:
        kept = dict.fromkeys({name.rpartition(".")[0] for name in leaves}, "keep")
        renaming = renamed(leaves, to=to, layers=kept if layers is None else layers)
        net = renaming.tensors
    trees = {name: tree[name] for name in keys[1:]}
    size_bytes, left_out = write(found, model, net, trees, target, hidden)
    if whole:
        left_out += [name for name in found.manifest.state if name not in (*keys, *RESERVED)]
    if renaming is not None:
        left_out += [f"{model}/{name}" for name in tree[model] if name not in leaves]
    return Exported(len(net), size_bytes, left_out, made_with, renaming)


def layers_of(given: tuple[str, ...]) -> dict[str, str]:
    """`--layer words=embedding`, as often as it is said."""
    pairs = [entry.rpartition("=") for entry in given]
    for entry, (layer, equals, _) in zip(given, pairs, strict=True):
        if not equals or not layer:
            raise UsageError(
                f"--layer {entry}", do="say what it is, such as --layer words=embedding"
            )
    return {layer: kind for layer, _, kind in pairs}


def _check_layers(found: Found, layers: Mapping[str, str] | None, *, translates: bool) -> None:
    if translates or layers == {}:
        return
    raise UsageError(
        "--layer and --keep-names are for files of another framework",
        why=f"checkpoint {found.label} was made with {found.manifest.framework.name}, and its "
        "names stay as they are",
        do="leave them out",
    )


def _pth_writer() -> _Writer:
    files = torch_files()

    def write(
        found: Found, model: str, net: _Tree, optimizers: _Tree, target: Target, hidden: bool
    ) -> tuple[int, list[str]]:
        place = {"epoch": found.commit.epoch, "step": found.commit.step}
        with target.scratch() as scratch:
            files.write_pth(scratch, net=net, optimizers=optimizers, extra=place)
            size_bytes = scratch.tell()
            target.write(FileChunks(scratch), size_bytes, hidden=hidden)
        return size_bytes, []

    return write


def _ckpt_writer() -> _Writer:
    files = mindspore_files()

    def write(
        found: Found, model: str, net: _Tree, optimizers: _Tree, target: Target, hidden: bool
    ) -> tuple[int, list[str]]:
        # There is room for one: names in the file say nothing of whose they are.
        own = [name for name, tree in optimizers.items() if _trains(tree, model)][:1]
        tensors = {name: leaf for name, leaf in net.items() if isinstance(leaf, TensorLeaf)}
        entries, missing = entries_of(tensors, optimizers[own[0]] if own else None, model=model)
        left_out = [f"{model}/{name}" for name in net if name not in tensors]
        left_out += [f"{own[0]}/{name}" for name in missing] if own else []
        left_out += [name for name in optimizers if name not in own]
        place = {"epoch_num": found.commit.epoch, "step_num": found.commit.step} if own else {}
        with target.scratch_folder() as folder:
            path = folder / "made.ckpt"
            files.write_ckpt(path, entries, info=place)
            size_bytes = path.stat().st_size
            with path.open("rb") as file:
                target.write(FileChunks(file), size_bytes, hidden=hidden)
        return size_bytes, left_out

    return write


def _trains(optimizer: Mapping[str, Any], model: str) -> bool:
    groups = optimizer.get("param_groups", [])
    names = [str(name) for group in groups for name in group.get("params", [])]
    return any(name.startswith(f"{model}.") for name in names)


def _translation_lines(found: Renaming, made_with: str) -> list[str]:
    rules = ", ".join(f"{rule} {number}" for rule, number in sorted(found.by_rule.items()))
    by_rule = f"{sum(found.by_rule.values())} by rule" + (f" ({rules})" if rules else "")
    lines = [f"translated from {made_with}: {found.by_name} by name, {by_rule}; optimizers are not"]
    if found.dropped:
        lines.append(f"{count(len(found.dropped), 'counter')} of batches has no place there")
    for layer, what in found.unsure.items():
        lines.append(
            f"kept as it is: {clean(layer) or 'the model itself'} may be {what} (see --layer)"
        )
    return lines


def echo(done: Exported) -> None:
    """Prints what there is to say after the first line."""
    for line in done.lines():
        click.echo(line)
